"""Issuing tokens in a trust chain (docs/policy.md#the-chain-of-trust)."""

from __future__ import annotations

import binascii
import re
from dataclasses import dataclass
from typing import Any, Final

from broker_auth.encoding import is_hex_key
from broker_auth.errors import InputError
from broker_auth.tokens import ksuid
from broker_auth.tokens.claims import CHAIN_ISSUER_PREFIX, ORG_ISSUER_PREFIX, Purpose, typed_claims
from broker_auth.tokens.faults import TokenRejected
from broker_auth.tokens.jws import parse
from broker_auth.tokens.keys import verify_ed25519
from broker_auth.tokens.signing import SigningKey

Claims = dict[str, Any]

_HEX_SIGNATURE: Final = re.compile(r"[0-9a-fA-F]{128}")


def make_chain_issuer(claims: Claims, org_key: SigningKey) -> Claims:
    """Return the claims of a chain issuer; the organization's key must also sign the token.

    Raises:
        InputError: the claims hold no public key, or ``org_key`` is not an Ed25519 key.
    """
    if not claims.get("public_key"):
        raise InputError("a chain issuer needs a public key")
    signature = org_key.sign_chain(f"{claims['jti']}.{claims['public_key']}")
    return claims | {"iss": f"{ORG_ISSUER_PREFIX}{org_key.public_hex}", "tcs": signature}


def issue_under(claims: Claims, issuer_token: str, issuer_key: SigningKey) -> Claims:
    """Return the claims of a token issued by a chain issuer, which must also sign it.

    ``issexp`` and ``exp`` are set to end with the issuer's token, but a chain issuer could write any time: only its
    age limits it (``plugin.broker_auth.chain_issuer_max_age``).

    Args:
        claims: of a client or server token with a public key.
        issuer_token: the chain issuer's own token.
        issuer_key: the chain issuer's key.

    Raises:
        InputError: the token is not a chain issuer's, has expired, or belongs to another key.
    """
    creator = _chain_issuer(issuer_token)
    if issuer_key.public_hex != creator.public_key.lower():
        raise InputError(f"{issuer_key.name}: not the key of the chain issuer's token")
    if not claims.get("public_key"):
        raise InputError("a token issued by a chain issuer needs a public key")
    assert creator.exp is not None
    issuer_expires = int(creator.exp)
    if issuer_expires <= claims["iat"]:
        raise InputError("the chain issuer's token has expired; renew it, then issue with the new one")
    signature = issuer_key.sign_chain(f"{claims['jti']}.{creator.tcs}")
    return claims | {
        "iss": f"{CHAIN_ISSUER_PREFIX}{creator.jti}.{creator.public_key}",
        "issexp": issuer_expires,
        "exp": min(claims["exp"], issuer_expires),
        "tcs": f"{creator.tcs}.{signature}",
    }


@dataclass(frozen=True, slots=True, kw_only=True)
class _ChainIssuer:
    jti: str
    public_key: str
    tcs: str
    exp: float | None


def _chain_issuer(token: str) -> _ChainIssuer:
    """Return the claims of a chain issuer's token after verifying its chain signature with the key it names."""
    try:
        claims = typed_claims(parse(token).claims, Purpose.CLIENT)
    except TokenRejected as rejected:
        raise InputError(f"the chain issuer's token cannot be read: {rejected.detail}") from rejected
    org_hex = claims.iss.removeprefix(ORG_ISSUER_PREFIX)
    well_formed = (
        claims.iss.startswith(ORG_ISSUER_PREFIX)
        and is_hex_key(org_hex)
        and _HEX_SIGNATURE.fullmatch(claims.tcs)
        and is_hex_key(claims.public_key)
        and ksuid.timestamp(claims.jti) is not None
        and claims.exp is not None
    )
    if not well_formed:
        raise InputError("the token is not a chain issuer's; make one with 'broker-auth token client --issuer'")
    signed = f"{claims.jti}.{claims.public_key}".encode()
    if not verify_ed25519(binascii.unhexlify(org_hex), signed, binascii.unhexlify(claims.tcs)):
        raise InputError("the chain signature of the chain issuer's token is not by the key it names")
    return _ChainIssuer(jti=claims.jti, public_key=claims.public_key, tcs=claims.tcs, exp=claims.exp)
