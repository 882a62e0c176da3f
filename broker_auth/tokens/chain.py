"""Trust chains: an organization's issuer lets a client issue tokens itself (docs/policy.md#the-chain-of-trust).

* ``iss`` = ``I-<org key>``: a chain issuer, which may issue tokens. ``tcs`` = org key's signature over
  ``<jti>.<public_key>``. The JWT is signed by the org key.
* ``iss`` = ``C-<creator jti>.<creator public key>``: issued by such a chain issuer.
  ``tcs`` = ``<creator tcs>.<creator key's signature over "<jti>.<creator tcs>">``. The JWT is signed
  by the creator.
* any other ``iss``: signed by the org key directly.

The organization signs the chain issuer's token id and key, and nothing else: ``issexp`` and ``exp`` of
tokens below it are chosen by the chain issuer. The id is a KSUID and so contains a signed time, from which
:attr:`ChainIssuer.ends` is counted.
"""

from __future__ import annotations

import binascii
import re
from dataclasses import dataclass
from typing import Final

from broker_auth.tokens import ksuid
from broker_auth.tokens.claims import CHAIN_ISSUER_PREFIX, ORG_ISSUER_PREFIX, Claims, Purpose
from broker_auth.tokens.faults import TokenFault, TokenRejected
from broker_auth.tokens.keys import VerificationKey, ed25519_key, verify_ed25519

_HEX_KEY: Final = re.compile(r"[0-9a-f]{64}")
_HEX_SIGNATURE: Final = re.compile(r"[0-9a-fA-F]{128}")


DEFAULT_MAX_AGE: Final = 366 * 86_400.0  # seconds a chain issuer is accepted for, counted from its id
WARNING_SECONDS: Final = 30 * 86_400.0  # before a chain issuer's end; it is renewed by a new token


@dataclass(frozen=True, slots=True, kw_only=True)
class ChainIssuer:
    """A client that the organization allows to issue tokens, identified by the signed token id.

    Attributes:
        id: the chain issuer's token id, a KSUID.
        issued: the time in that id (Unix seconds).
        ends: when it and every token below it stop being accepted (Unix seconds).
    """

    id: str
    issued: int
    ends: float

    def ends_soon(self, now: float) -> bool:
        """Return whether it has ended or ends within :data:`WARNING_SECONDS`."""
        return self.ends - now < WARNING_SECONDS


def claimed_issuer(claims: Claims, max_age: float) -> ChainIssuer | None:
    """Return the chain issuer of a token: itself or its creator. Verifies nothing.

    Returns:
        None if the token is not in a chain, or names an id that is not a KSUID.
    """
    if claims.iss.startswith(ORG_ISSUER_PREFIX):
        token_id = claims.jti
    elif claims.iss.startswith(CHAIN_ISSUER_PREFIX):
        token_id = claims.iss.removeprefix(CHAIN_ISSUER_PREFIX).partition(".")[0]
    else:
        return None
    issued = ksuid.timestamp(token_id)
    return None if issued is None else ChainIssuer(id=token_id, issued=issued, ends=issued + max_age)


def signing_key(claims: Claims, org_key: VerificationKey) -> VerificationKey:
    """Return the key that must have signed the JWT: the organization's, or its creator's after verifying the chain.

    Raises:
        TokenRejected: a part of the chain is missing or broken.
    """
    if claims.iss.startswith(ORG_ISSUER_PREFIX):
        _require_chain_claims(claims)
        _verify_org_issuer(claims, org_key)
        return org_key
    if claims.iss.startswith(CHAIN_ISSUER_PREFIX):
        _require_chain_claims(claims)
        return _verify_creator(claims, org_key)
    if claims.tcs:
        raise TokenRejected(TokenFault.CHAIN_ISSUER, "token carries a trust chain, but its issuer is not in one")
    return org_key


def refuse_unfollowed(claims: Claims, purpose: Purpose, algorithm: str) -> None:
    """Refuse chain claims that Choria would refuse, in a token whose chain is not followed here.

    Chains are followed for client and server tokens in issuer mode. Elsewhere a configured signer signs the token
    itself, and a token that says otherwise contradicts itself (docs/policy.md#the-chain-of-trust).

    Raises:
        TokenRejected: the token claims a place in a chain.
    """
    in_chain = claims.iss.startswith(CHAIN_ISSUER_PREFIX)
    if in_chain and algorithm == "EdDSA" and purpose is not Purpose.PROVISIONING:
        raise TokenRejected(
            TokenFault.CHAIN_ISSUER, "token is issued in a trust chain, which is followed in issuer mode only"
        )
    if not claims.tcs or (in_chain and claims.issexp is not None):
        return
    if in_chain:
        raise TokenRejected(TokenFault.CHAIN_CLAIM_MISSING, "token of a trust chain has no 'issexp'")
    if purpose is not Purpose.CLIENT:
        raise TokenRejected(TokenFault.CHAIN_ISSUER, "token carries a trust chain, but its issuer is not in one")


def _require_chain_claims(claims: Claims) -> None:
    required = {
        "jti": claims.jti,
        "iat": claims.iat,
        "exp": claims.exp,
        "public_key": claims.public_key,
        "tcs": claims.tcs,
    }
    for name, value in required.items():
        if value is None or value == "":
            raise TokenRejected(TokenFault.CHAIN_CLAIM_MISSING, f"token of a trust chain has no '{name}'")
    issued = ksuid.timestamp(claims.jti)
    if issued is None:
        raise TokenRejected(TokenFault.CHAIN_ID, "token id ('jti') is not a KSUID")
    if claims.iat != issued:
        raise TokenRejected(TokenFault.CHAIN_ID_TIME, "token id ('jti') was not made at 'iat'")


def _verify_org_issuer(claims: Claims, org_key: VerificationKey) -> None:
    if claims.iss != f"{ORG_ISSUER_PREFIX}{org_key.hex}":
        raise TokenRejected(TokenFault.CHAIN_ISSUER_KEY, "token names another issuer key than its organization's")
    signed = f"{claims.jti}.{claims.public_key}"
    if not org_key.verify("EdDSA", signed.encode(), _signature(claims.tcs)):
        raise TokenRejected(TokenFault.CHAIN_ORG_SIGNATURE, "the organization did not sign this chain issuer")


def _verify_creator(claims: Claims, org_key: VerificationKey) -> VerificationKey:
    if claims.issexp is None:
        raise TokenRejected(TokenFault.CHAIN_CLAIM_MISSING, "token of a trust chain has no 'issexp'")
    creator_jti, dot, creator_hex = claims.iss.removeprefix(CHAIN_ISSUER_PREFIX).partition(".")
    creator_hex = creator_hex.lower()  # Go writes the key in lower case into the text that the organization signs
    if not dot or not creator_jti or not _HEX_KEY.fullmatch(creator_hex):
        raise TokenRejected(TokenFault.CHAIN_ISSUER, "issuer is not C-<token id>.<public key>")
    if ksuid.timestamp(creator_jti) is None:
        raise TokenRejected(TokenFault.CHAIN_ISSUER_ID, "the id of the token's issuer is not a KSUID, so it has no age")
    creator_tcs, dot, own_signature = claims.tcs.partition(".")
    if not dot:
        raise TokenRejected(TokenFault.CHAIN_SIGNATURE_FORMAT, "trust chain signature does not have two parts")
    creator_signed = f"{creator_jti}.{creator_hex}"
    if not org_key.verify("EdDSA", creator_signed.encode(), _signature(creator_tcs)):
        raise TokenRejected(TokenFault.CHAIN_ORG_SIGNATURE, "the organization did not sign this token's issuer")
    signed = f"{claims.jti}.{creator_tcs}"
    signature = _signature(own_signature)
    if not verify_ed25519(binascii.unhexlify(creator_hex), signed.encode(), signature):
        raise TokenRejected(
            TokenFault.CHAIN_CREATOR_SIGNATURE, "the issuer did not sign this token's place in the chain"
        )
    return ed25519_key(creator_hex, f"{org_key.name} via {creator_jti}")


def _signature(text: str) -> bytes:
    if not _HEX_SIGNATURE.fullmatch(text):
        raise TokenRejected(TokenFault.CHAIN_SIGNATURE_FORMAT, "trust chain signature is not 128 hex characters")
    return binascii.unhexlify(text)
