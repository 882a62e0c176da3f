"""What may be kept of a request: everything a check can be repeated with, and no secret.

POLICY "What is kept of a decision": no password, no token's signature. A provisioning token also
carries secrets in its claims (``cht``, ``chpwd``), and a stranger chooses how long everything is.
"""

from __future__ import annotations

import json
from typing import Final

import msgspec

from broker_auth import encoding
from broker_auth.observe.unsigned import parse_unsigned
from broker_auth.policy.request import AuthorizationRequest, ConnectOpts
from broker_auth.tokens.faults import TokenRejected
from broker_auth.tokens.show import masked_secrets

SHOWN: Final = 256  # characters of what a stranger chose; more than a node's name may have
UNREADABLE: Final = "unreadable"  # stands for what was no token
PASSWORD: Final = "pass"  # what may be removed, as records name it
TOKEN_SIGNATURE: Final = "token_signature"


def redact(request: AuthorizationRequest) -> tuple[AuthorizationRequest, tuple[str, ...]]:
    """The request as it may be kept, and the names of what was removed."""
    options = request.connect_opts
    removed = ((PASSWORD, options.password), (TOKEN_SIGNATURE, options.auth_token))
    kept = ConnectOpts(
        jwt=_without_secrets(options.jwt),
        nkey=options.nkey[:SHOWN],
        sig=options.sig[:SHOWN],
        auth_token=_without_secrets(options.auth_token),
        user=options.user[:SHOWN],
        name=options.name[:SHOWN],
        lang=options.lang[:SHOWN],
        version=options.version[:SHOWN],
        protocol=options.protocol,
    )
    info = msgspec.structs.replace(request.client_info, name=request.client_info.name[:SHOWN])
    redacted = tuple(name for name, value in removed if value)
    return msgspec.structs.replace(request, connect_opts=kept, client_info=info), redacted


def _without_secrets(token: str) -> str:
    """Header and claims with nothing behind the last dot, secret claims masked."""
    if not token:
        return ""
    try:
        claims = parse_unsigned(token).claims
    except TokenRejected:
        return UNREADABLE
    header, written, _ = token.strip().split(".")
    if secrets := masked_secrets(claims):
        written = encoding.encode(json.dumps(claims | secrets).encode()).decode()
    return f"{header}.{written}."
