"""The nonce signature: proof that a connection that presents a token has the token's private key."""

from __future__ import annotations

import binascii
import re
from typing import Final

from broker_auth import encoding
from broker_auth.encoding import is_hex_key
from broker_auth.tokens.claims import Claims
from broker_auth.tokens.faults import TokenFault, TokenRejected
from broker_auth.tokens.keys import verify_ed25519

_SIGNATURE: Final = re.compile(r"[A-Za-z0-9_-]{86}")  # 64 bytes in raw base64url


def verify_nonce(claims: Claims, nonce: str, sig: str) -> None:
    """Check ``sig``, the raw-URL-base64 Ed25519 signature over the nonce's text.

    Sources: docs/policy.md#claims-that-must-be-there, fact 8.

    Raises:
        TokenRejected: the nonce or signature is missing, or the signature or key is malformed or does not match.
    """
    if not sig:
        raise TokenRejected(TokenFault.NONCE_UNSIGNED, "the connection did not sign the server's nonce")
    if not nonce:
        raise TokenRejected(TokenFault.NONCE_MISSING, "the server sent no nonce to be signed")
    public = public_key(claims)
    if not _SIGNATURE.fullmatch(sig):
        raise TokenRejected(TokenFault.NONCE_SIGNATURE_FORMAT, "nonce signature is not 64 bytes in base64url")
    if not verify_ed25519(public, nonce.encode("utf-8", "replace"), encoding.decode(sig.encode())):
        raise TokenRejected(TokenFault.NONCE_SIGNATURE, "nonce signature is not by the token's key")


def public_key(claims: Claims) -> bytes:
    """Return the Ed25519 key in the token.

    Raises:
        TokenRejected: the key is absent, or not 64 hex characters.
    """
    if not claims.public_key:
        raise TokenRejected(TokenFault.CLAIM_MISSING, "token has no 'public_key'")
    if not is_hex_key(claims.public_key):
        raise TokenRejected(TokenFault.PUBLIC_KEY, "token claim 'public_key' is not 64 hex characters")
    return binascii.unhexlify(claims.public_key)
