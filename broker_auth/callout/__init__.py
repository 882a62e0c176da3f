"""The way of one request: bytes from nats-server in, a signed answer out.

Read :mod:`.service` first, then :mod:`.request` (what is checked before the policy is asked) and :mod:`.reply` (what is
signed). :mod:`.connection` maintains the connection to a broker; :mod:`.backlog` orders requests under load;
:mod:`.hedging` answers for workers that are silent. The processes around it are in :mod:`broker_auth.daemon`.
"""
