"""The parts of a connection by which it can be revoked (docs/policy.md#revoked-credentials)."""

from __future__ import annotations

import math
from dataclasses import dataclass

from broker_auth.certificates.peer import PeerIdentity
from broker_auth.policy.revocations import Key, RevocationKind
from broker_auth.tokens.claims import Claims, ClientClaims, ServerClaims
from broker_auth.tokens.verify import Verified


@dataclass(frozen=True, slots=True)
class Shown:
    """Everything about a connection that may be revoked, except its address.

    Attributes:
        keys: to look up, in the order in which they are reported.
        names: identities, which patterns may match.
        issued: when its token was issued, in Unix seconds; minus infinity without a token.
    """

    keys: tuple[tuple[RevocationKind, Key], ...]
    names: tuple[str, ...]
    issued: float


def shown(token: Verified | None, peer: PeerIdentity | None, node: str) -> Shown:
    """Return what a connection shows; arguments as of :meth:`.Revocations.find`."""
    keys: list[tuple[RevocationKind, Key]] = [(RevocationKind.NODE, node)]
    names: tuple[str, ...] = ()
    if token is not None:
        keys += _keys_of_token(token)
        names += (token_name(token.claims),)
    if peer is not None:
        keys.append((RevocationKind.CERTIFICATE, bytes.fromhex(peer.fingerprint)))
        keys += [(RevocationKind.SERIAL, serial) for serial in peer.serials]
        names += peer_names(peer)
    keys += [(RevocationKind.IDENTITY, name) for name in names]
    return Shown(tuple(keys), names, -math.inf if token is None else _issued(token))


def token_name(claims: Claims) -> str:
    """Return whose token it is; empty for provisioning tokens."""
    if isinstance(claims, ClientClaims):
        return claims.callerid
    return claims.identity if isinstance(claims, ServerClaims) else ""


def peer_names(peer: PeerIdentity) -> tuple[str, ...]:
    """Return every name that may be revoked: the common name counts here whatever other names there are."""
    return (*peer.names, peer.common_name) if peer.common_name else peer.names


def _issued(token: Verified) -> float:
    """Return when a token was issued: without ``iat`` at any time, and never after its chain issuer was."""
    issued = token.claims.iat
    if issued is None:
        return -math.inf
    return min(issued, token.chain_issuer.issued) if token.chain_issuer else issued


def _keys_of_token(token: Verified) -> list[tuple[RevocationKind, Key]]:
    keys: list[tuple[RevocationKind, Key]] = [
        (RevocationKind.TOKEN_ID, token.claims.jti),
        (RevocationKind.TOKEN_SHA256, token.digest),
        (RevocationKind.SIGNER, token.signer),
    ]
    keys += [(RevocationKind.KEY, key) for key in token.keys]
    if token.chain_issuer is not None:
        keys.append((RevocationKind.CHAIN_ISSUER, token.chain_issuer.id))
        keys.append((RevocationKind.SIGNER, token.signer.partition(" via ")[0]))
    return keys
