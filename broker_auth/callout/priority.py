"""Request priorities under load. They affect order only, never the decision.

A priority is read off a request that is not verified yet, so it costs next to nothing. The best ones rest on
what this process has verified before; nothing that a broker merely says ranks beside them.
"""

from __future__ import annotations

from enum import IntEnum

from broker_auth.policy.model import Policy
from broker_auth.policy.request import AuthorizationRequest
from broker_auth.tokens.claims import Purpose
from broker_auth.tokens.verify import Rejected


class Priority(IntEnum):
    """The lower, the sooner."""

    FLEET = 0
    """A certificate chain that was verified before: the fleet, the provisioner."""
    TOKEN = 1
    """A client or server token that was accepted before.

    Below a certificate, whose key was proven: a client's token travels with its requests, and whoever has read
    it there can present it, if not sign a nonce for it.
    """
    CERTIFICATE = 2
    """The broker says that it verified a chain; this process has not seen that chain yet.

    Above nodes, because a large fleet has more certificates than are remembered. A broker that lies about it
    takes places from its own clients only: brokers share by turns (:mod:`broker_auth.callout.backlog`).
    """
    NODE = 3
    """A provisioning token that was accepted before."""
    UNKNOWN = 4
    """A token never seen, or none."""
    REFUSED = 5
    """A credential that was refused before, or has expired."""


def priority(request: AuthorizationRequest, policy: Policy, now: float) -> Priority:
    """Return the priority of a request at ``now`` (Unix seconds); verifies nothing."""
    tls = request.client_tls
    if tls is not None and tls.verified_chains:
        known = policy.peers.recall(tls.verified_chains, now)
        if known is None:
            return Priority.CERTIFICATE
        if known:
            return Priority.FLEET
    return _of_token(request.connect_opts.auth_token, policy, now)


def _of_token(raw: str, policy: Policy, now: float) -> Priority:
    known = policy.tokens.recall(raw) if raw else None
    if known is None:
        return Priority.UNKNOWN
    if isinstance(known, Rejected):
        return Priority.REFUSED
    expires = known.expires
    if expires is not None and expires <= now:
        return Priority.REFUSED
    return Priority.NODE if known.purpose is Purpose.PROVISIONING else Priority.TOKEN
