"""Request priorities under load. They affect order only, never the decision.

A priority is derived from the unverified request, so it costs almost nothing. The best priorities are for credentials
that this process has verified before, not for mere claims of a broker.
"""

from __future__ import annotations

from enum import IntEnum

from broker_auth.policy.model import Policy
from broker_auth.policy.request import AuthorizationRequest
from broker_auth.tokens.claims import Purpose
from broker_auth.tokens.verify import Rejected


class Priority(IntEnum):
    """Priority of a request; lower values are answered first."""

    FLEET = 0
    """A certificate chain that was verified before: a fleet member or a provisioner."""
    TOKEN = 1
    """A client or server token that was accepted before.

    Lower than a certificate, whose key was proven: a client sends its token with its requests, so another party may
    have read it and can present it, though not sign a nonce.
    """
    CERTIFICATE = 2
    """The broker claims to have verified a chain that this process has not seen.

    Higher than nodes, because a large fleet has more certificates than are cached. A false claim of a broker only
    delays its own clients, because brokers are served round robin (:mod:`broker_auth.callout.backlog`).
    """
    NODE = 3
    """A provisioning token that was accepted before."""
    UNKNOWN = 4
    """An unknown token, or no credential."""
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
