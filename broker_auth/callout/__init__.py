"""The path of a request: from the bytes of nats-server to a signed answer.

Read :mod:`.service` first, then :mod:`.request` (what is checked before the policy is asked) and :mod:`.reply` (what is
signed). :mod:`.connection` maintains the connection to a broker; :mod:`.backlog` orders requests under load;
:mod:`.hedging` answers requests that other workers do not answer. :mod:`broker_auth.daemon` has the
processes around it.
"""
