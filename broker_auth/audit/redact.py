"""Redacts a request for storage: keeps what a check needs to be repeated, removes every secret.

docs/policy.md#what-is-kept-of-a-decision: no password, no token signature. A provisioning token also
carries secrets in its claims (``cht``, ``chpwd``), and an unauthenticated client controls the length of every field.
"""

from __future__ import annotations

import json
from typing import Any, Final, TypeVar

import msgspec

from broker_auth import encoding
from broker_auth.audit.unsigned import parse_unsigned
from broker_auth.policy.request import AuthorizationRequest, ClientTLS, ConnectOpts
from broker_auth.tokens.faults import TokenRejected
from broker_auth.tokens.show import masked_secrets

SHOWN: Final = 256  # characters of a field that a client chose; longer than any valid node name
UNREADABLE: Final = "unreadable"  # replaces a value that is not a token or a chain
PASSWORD: Final = "pass"  # names of removed parts in records
TOKEN_SIGNATURE: Final = "token_signature"
OTHER: Final = "not the token"  # replaces a `jwt` that differs from `auth_token`
_MAX_REJECTED_TOKEN: Final = 4096  # characters of a token that was not accepted
MAX_CHAIN_CHARACTERS: Final = 32 * 1024  # of all certificates of a stored request; enough for sixteen small ones
_SHOWN_UNUSUAL: Final = 64  # characters of a text that is not printable ASCII: up to six bytes each
_MAX_ITEMS: Final = 32

S = TypeVar("S", bound=msgspec.Struct)


def redact(request: AuthorizationRequest, *, trusted: bool = True) -> tuple[AuthorizationRequest, tuple[str, ...]]:
    """Return the request without secrets, and the names of the removed parts.

    Args:
        request: the request as received.
        trusted: whether its token was accepted; a rejected token is kept only if it is short.
    """
    options = request.connect_opts
    removed = ((PASSWORD, options.password), (TOKEN_SIGNATURE, options.auth_token))
    kept = ConnectOpts(
        jwt=OTHER if options.jwt and options.jwt != options.auth_token else "",
        nkey=bounded(options.nkey),
        sig=bounded(options.sig),
        auth_token=_without_secrets(options.auth_token, trusted=trusted),
        user=bounded(options.user),
        name=bounded(options.name),
        lang=bounded(options.lang),
        version=bounded(options.version),
        protocol=_bounded(options.protocol),
    )
    info = cut(request.client_info)
    redacted = tuple(name for name, value in removed if value)
    return (
        AuthorizationRequest(
            server_id=cut(request.server_id),
            user_nkey=bounded(request.user_nkey),
            client_info=info,
            connect_opts=kept,
            client_tls=_tls(request.client_tls),
            type=bounded(request.type),
            version=_bounded(request.version),
        ),
        redacted,
    )


def bounded(text: str) -> str:
    """Return ``text`` truncated for a record; shorter if its characters take several bytes each."""
    if text.isascii() and text.isprintable():
        return text[:SHOWN]
    return text[:_SHOWN_UNUSUAL]


def cut(part: S) -> S:
    """Return a copy of ``part`` with every text and every list of texts truncated."""
    changed = {name: _bounded(getattr(part, name)) for name in part.__struct_fields__}
    return type(part)(**changed)


def _bounded(value: Any) -> Any:
    match value:
        case str():
            return bounded(value)
        case tuple():
            return tuple(_bounded(item) for item in value[:_MAX_ITEMS])
        case int() if abs(value) >= 2**63:
            return 0
        case _:
            return value


def _tls(tls: ClientTLS | None) -> ClientTLS | None:
    """Return the TLS state with its chains, which a repeated decision needs, unless they are too large."""
    if tls is None:
        return None
    chains = tls.verified_chains
    size = sum(len(pem) for chain in chains or () for pem in chain)
    kept = chains if size <= MAX_CHAIN_CHARACTERS else ((UNREADABLE,),)
    return ClientTLS(version=bounded(tls.version), cipher=bounded(tls.cipher), verified_chains=kept)


def _without_secrets(token: str, *, trusted: bool) -> str:
    """Return header and claims without the signature, secret claims masked."""
    if not token:
        return ""
    if not trusted and len(token) > _MAX_REJECTED_TOKEN:
        return UNREADABLE
    try:
        claims = parse_unsigned(token).claims
    except TokenRejected:
        return UNREADABLE
    header, written, _ = token.strip().split(".")
    if secrets := masked_secrets(claims):
        written = encoding.encode(json.dumps(claims | secrets).encode()).decode()
    return f"{header}.{written}."
