"""What may be kept of a request: everything a check can be repeated with, and no secret.

POLICY "What is kept of a decision": no password, no token's signature. A provisioning token also
carries secrets in its claims (``cht``, ``chpwd``), and a stranger chooses how long everything is.
"""

from __future__ import annotations

import base64
import json
from typing import Final

import msgspec

from broker_auth.policy.case import PASSWORD, TOKEN_SIGNATURE
from broker_auth.policy.request import AuthorizationRequest, ConnectOpts
from broker_auth.tokens.faults import TokenRejected
from broker_auth.tokens.jws import parse

SHOWN: Final = 256  # characters of what a stranger chose; more than a node's name may have
UNREADABLE: Final = "unreadable"  # stands for what was no token
_SECRET_CLAIMS: Final = ("cht", "chpwd")
_MASK: Final = "***"


def redact(request: AuthorizationRequest) -> tuple[AuthorizationRequest, tuple[str, ...]]:
    """The request as it may be kept, and the names of what was removed (for :class:`Replay`)."""
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
        claims = parse(token, allow_unsigned=True).claims
    except TokenRejected:
        return UNREADABLE
    header, written, _ = token.strip().split(".")
    secrets = {name: _MASK for name in _SECRET_CLAIMS if claims.get(name)}
    if secrets:
        written = base64.urlsafe_b64encode(json.dumps(claims | secrets).encode()).rstrip(b"=").decode()
    return f"{header}.{written}."
