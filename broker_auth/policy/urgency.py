"""Who is answered first when more ask than can be answered in time. Admits nobody, denies nobody.

Told from a request that is not verified yet, so it costs next to nothing; who lies about it only
waits in another queue for the same decision.
"""

from __future__ import annotations

from enum import IntEnum

from broker_auth.policy.request import AuthorizationRequest
from broker_auth.tokens.claims import Purpose
from broker_auth.tokens.verify import Rejected, TokenVerifier


class Urgency(IntEnum):
    """The lower, the sooner."""

    FLEET = 0
    """Verified TLS: the fleet, the provisioner."""
    TOKEN = 1
    """A client or server token that was accepted before.

    Not as urgent as a certificate, whose key was proven: a client's token travels with its requests, and
    whoever has read it there can present it, if not sign a nonce for it.
    """
    NODE = 2
    """A provisioning token that was accepted before."""
    UNKNOWN = 3
    """A token never seen, or none."""
    REFUSED = 4
    """A token that was refused before, or has expired."""


def urgency(request: AuthorizationRequest, tokens: TokenVerifier, now: float) -> Urgency:
    """How urgent a request is at ``now`` (Unix seconds)."""
    if request.client_tls is not None and request.client_tls.verified_chains:
        return Urgency.FLEET
    raw = request.connect_opts.auth_token
    known = tokens.recall(raw) if raw else None
    if known is None:
        return Urgency.UNKNOWN
    if isinstance(known, Rejected):
        return Urgency.REFUSED
    expires = known.expires
    if expires is not None and expires <= now:
        return Urgency.REFUSED
    return Urgency.NODE if known.purpose is Purpose.PROVISIONING else Urgency.TOKEN
