"""The Choria Broker's auth layer as an auth-callout service for stock nats-server.

nats-server asks this service about every connection. The way of one request, and the three files
to read first, in this order:

1. :mod:`broker_auth.callout.service` carries bytes: it subscribes to ``$SYS.REQ.USER.AUTH``,
   answers each request once, and drains without losing one.
2. :mod:`broker_auth.policy.decide` decides: a pure function of request, policy and time, its rules
   numbered as in ``docs/policy.md``.
3. :mod:`broker_auth.tokens.verify` checks the signed tokens that decisions rest on.
"""

__version__ = "0.1.0"
