"""Token verification: the signature, the signer's authority, the validity period (docs/policy.md#tokens).

:meth:`TokenVerifier.examine` performs the checks that do not depend on time, once for each distinct token:

1. parse it (:mod:`.jws`),
2. read its unverified purpose, which only selects the keys to check it against,
3. check the types of its claims,
4. find the key: the issuer of its ``ou`` (and the trust chain below it), or the configured signers,
5. verify the signature with an algorithm that fits the key,
6. check that the claims required for its kind are present, and read the bounds of a provisioning token.

:func:`check_times` is called on every use, so a cached token expires like any other.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from broker_auth.cache import BoundedCache
from broker_auth.times import short_duration
from broker_auth.tokens import chain, nonce
from broker_auth.tokens.bounds import Bounds, bounds_of
from broker_auth.tokens.chain import ChainIssuer
from broker_auth.tokens.claims import (
    CHAIN_ISSUER_PREFIX,
    Claims,
    ClientClaims,
    Purpose,
    ServerClaims,
    earlier,
    purpose_of,
    typed_claims,
)
from broker_auth.tokens.faults import TokenFault, TokenRejected
from broker_auth.tokens.jws import ASCII_SPACE, MAX_TOKEN_BYTES, Jws, parse, show
from broker_auth.tokens.keys import VerificationKey

ALGORITHMS: Final = frozenset({"RS256", "RS384", "RS512", "EdDSA", "ES256", "ES384"})
ACCEPTED_CACHE: Final = 3072  # tokens; 1.4 KB each
REJECTED_CACHE: Final = 2048  # tokens; a separate cache, so that a flood of bad tokens cannot evict good ones


@dataclass(frozen=True, slots=True, kw_only=True)
class Verified:
    """A token with valid signature and claims; :func:`check_times` checks its times.

    Attributes:
        signer: name of the key that signed it.
        signer_key: fingerprint of that key.
        digest: SHA-256 of what was signed. A thief could write an ECDSA signature in another way, but not this.
        keys: the public keys behind it: of its owner, and of the chain issuer that signed it.
        chain_issuer: its chain issuer, or itself if it is a chain issuer; None outside a trust chain.
        bounds: the nodes that may wait by it; None if it is for any, or for members.
    """

    purpose: Purpose
    claims: Claims
    algorithm: str
    signer: str
    signer_key: str = ""
    digest: bytes = b""
    keys: tuple[bytes, ...] = ()
    chain_issuer: ChainIssuer | None = None
    bounds: Bounds | None = None

    @property
    def expires(self) -> float | None:
        """End of its validity: the earliest of ``exp``, ``issexp`` and the end of its chain issuer."""
        return earlier(self.claims.expires, self.chain_issuer.ends if self.chain_issuer else None)


@dataclass(frozen=True, slots=True, kw_only=True)
class Rejected:
    """A token that is never valid with these keys. ``purpose`` and ``token_id`` are unverified."""

    fault: TokenFault
    detail: str
    purpose: Purpose | None = None
    token_id: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class TrustedKeys:
    """The keys whose tokens are accepted.

    Attributes:
        issuers: the key of each organization; not empty means issuer mode.
        chain_issuer_max_age: seconds for which a chain issuer is accepted, counted from the time in its token id.
    """

    issuers: Mapping[str, VerificationKey]
    provisioning: Sequence[VerificationKey] = ()
    client: Sequence[VerificationKey] = ()
    server: Sequence[VerificationKey] = ()
    chain_issuer_max_age: float = chain.DEFAULT_MAX_AGE


class TokenVerifier:
    """A verifier of tokens against a fixed set of keys, which caches results by the token's SHA-256."""

    def __init__(self, keys: TrustedKeys, cached: int | None = None) -> None:
        """Prepare to verify with ``keys``, and to cache the results of ``cached`` accepted tokens"""
        self._keys = keys
        self._signers = {
            Purpose.PROVISIONING: keys.provisioning,
            Purpose.CLIENT: keys.client,
            Purpose.SERVER: keys.server,
        }
        self._accepted: BoundedCache[bytes, Verified] = BoundedCache(ACCEPTED_CACHE if cached is None else cached)
        self._rejected: BoundedCache[bytes, Rejected] = BoundedCache(REJECTED_CACHE)

    def examine(self, raw: str) -> Verified | Rejected:
        """Return the result of the time-independent checks. Never raises; the token's size bounds its cost."""
        if len(raw) > MAX_TOKEN_BYTES + 1024:  # not worth hashing
            return Rejected(fault=TokenFault.TOO_LARGE, detail=f"token is larger than {MAX_TOKEN_BYTES} bytes")
        digest = _digest(raw)
        known = self._accepted.get(digest) or self._rejected.get(digest)
        if known is not None:
            return known
        result = self._examine(raw)
        if isinstance(result, Verified):
            self._accepted.put(digest, result)
        else:
            self._rejected.put(digest, result)
        return result

    def recall(self, raw: str) -> Verified | Rejected | None:
        """Return the cached result of :meth:`examine`; None if not in the cache. Verifies nothing."""
        if len(raw) > MAX_TOKEN_BYTES + 1024:
            return None
        digest = _digest(raw)
        return self._accepted.get(digest) or self._rejected.get(digest)

    @property
    def keys(self) -> TrustedKeys:
        """The keys that verify tokens."""
        return self._keys

    def _examine(self, raw: str) -> Verified | Rejected:
        purpose: Purpose | None = None
        token_id = ""
        try:
            jws = parse(raw)
            token_id = jws.claims["jti"][:64] if isinstance(jws.claims.get("jti"), str) else ""
            purpose = purpose_of(jws.claims)
            if jws.algorithm not in ALGORITHMS:
                raise TokenRejected(TokenFault.ALGORITHM, f"token algorithm {show(jws.algorithm)} is not accepted")
            claims = typed_claims(jws.claims, purpose)
            key = self._signer(jws, self._candidates(jws, purpose, claims))
            _require_claims(claims)
            bounds = bounds_of(jws.claims) if purpose is Purpose.PROVISIONING else None
        except TokenRejected as rejected:
            return Rejected(fault=rejected.fault, detail=rejected.detail, purpose=purpose, token_id=token_id)
        chain_issuer = self._chain_issuer(purpose, claims)
        return Verified(
            purpose=purpose,
            claims=claims,
            algorithm=jws.algorithm,
            signer=key.name,
            signer_key=key.fingerprint,
            digest=hashlib.sha256(jws.signing_input).digest(),
            keys=_public_keys(claims, in_chain=chain_issuer is not None),
            chain_issuer=chain_issuer,
            bounds=bounds,
        )

    def _chain_issuer(self, purpose: Purpose, claims: Claims) -> ChainIssuer | None:
        """Return the chain issuer of a token whose chain has been verified."""
        if not self._keys.issuers or purpose is Purpose.PROVISIONING:
            return None  # outside issuer mode, chains are not verified
        return chain.claimed_issuer(claims, self._keys.chain_issuer_max_age)

    def _candidates(self, jws: Jws, purpose: Purpose, claims: Claims) -> Sequence[VerificationKey]:
        """Return the keys that may have signed the token and fit its algorithm; at least one."""
        if self._keys.issuers and (purpose is not Purpose.PROVISIONING or jws.algorithm == "EdDSA"):
            candidates: Sequence[VerificationKey] = [self._issuer_key(purpose, claims)]
        else:
            candidates = self._signers[purpose]
            chain.refuse_unfollowed(claims, purpose, jws.algorithm)
        if not candidates:
            raise TokenRejected(TokenFault.NO_SIGNER, f"no signer is configured for {purpose} tokens")
        fitting = [key for key in candidates if jws.algorithm in key.checks]
        if not fitting:
            raise TokenRejected(
                TokenFault.ALGORITHM, f"token algorithm {jws.algorithm} does not fit any configured key"
            )
        return fitting

    def _signer(self, jws: Jws, candidates: Sequence[VerificationKey]) -> VerificationKey:
        """Return the key that signed the token."""
        for key in candidates:
            if key.verify(jws.algorithm, jws.signing_input, jws.signature):
                return key
        raise wrong_signature(candidates)

    def _issuer_key(self, purpose: Purpose, claims: Claims) -> VerificationKey:
        if not claims.ou:
            raise TokenRejected(TokenFault.ISSUER_MISSING, "token names no organization ('ou')")
        if purpose is Purpose.PROVISIONING:
            chain.refuse_unfollowed(claims, purpose, "EdDSA")
        org_key = self._keys.issuers.get(claims.ou)
        if org_key is None:
            raise TokenRejected(
                TokenFault.ISSUER_UNKNOWN, f"no issuer is configured for organization {show(claims.ou)}"
            )
        return org_key if purpose is Purpose.PROVISIONING else chain.signing_key(claims, org_key)


def wrong_signature(candidates: Sequence[VerificationKey]) -> TokenRejected:
    """Return the rejection of a token that none of ``candidates`` signed."""
    return TokenRejected(TokenFault.SIGNATURE, f"token is not signed by {', '.join(key.name for key in candidates)}")


def _public_keys(claims: Claims, *, in_chain: bool) -> tuple[bytes, ...]:
    """Return the keys that verified claims name; those of provisioning tokens are not checked, so they do not count."""
    if not isinstance(claims, ClientClaims | ServerClaims):
        return ()
    own = bytes.fromhex(claims.public_key)
    if in_chain and claims.iss.startswith(CHAIN_ISSUER_PREFIX):
        return own, bytes.fromhex(claims.iss.rpartition(".")[2])
    return (own,)


def _digest(raw: str) -> bytes:
    """Return what tells a token from others; white space around it does not, or one token could displace all others."""
    return hashlib.sha256(raw.strip(ASCII_SPACE).encode("utf-8", "surrogatepass")).digest()


def _require_claims(claims: Claims) -> None:
    """Check that client and server tokens have the claims that docs/policy.md#3-tokens requires."""
    if isinstance(claims, ClientClaims):
        if not claims.callerid:
            raise TokenRejected(TokenFault.CLAIM_MISSING, "client token has no 'callerid'")
        nonce.public_key(claims)
    elif isinstance(claims, ServerClaims):
        if not claims.identity:
            raise TokenRejected(TokenFault.CLAIM_MISSING, "server token has no 'identity'")
        nonce.public_key(claims)
        if not claims.collectives:
            raise TokenRejected(TokenFault.CLAIM_MISSING, "server token belongs to no collective ('collectives')")


def check_times(verified: Verified, now: float, *, leeway: float = 0.0, allow_non_expiring: bool = False) -> None:
    """Check the token's times, and the age of its chain issuer.

    Args:
        verified: the token.
        now: Unix seconds.
        leeway: seconds, for ``nbf``, ``iat`` and the time in a chain issuer's id, but not for ``exp``.
        allow_non_expiring: accept provisioning tokens without ``exp``.

    Raises:
        TokenRejected: the token is not valid now.
    """
    claims = verified.claims
    if claims.exp is None:
        if not (allow_non_expiring and verified.purpose is Purpose.PROVISIONING):
            hint = ""
            if verified.purpose is Purpose.PROVISIONING:
                hint = "; set plugin.broker_auth.provisioning.allow_non_expiring_tokens to accept it"
            raise TokenRejected(TokenFault.NO_EXPIRY, f"token never expires (no 'exp'){hint}")
    elif now >= claims.exp:
        raise TokenRejected(TokenFault.EXPIRED, f"token expired {_words(now - claims.exp)} ago")
    if claims.issexp is not None and now >= claims.issexp:
        raise TokenRejected(TokenFault.ISSUER_EXPIRED, f"the token's issuer expired {_words(now - claims.issexp)} ago")
    if claims.nbf is not None and now + leeway < claims.nbf:
        raise TokenRejected(TokenFault.NOT_YET_VALID, f"token is not valid for another {_words(claims.nbf - now)}")
    if claims.iat is not None and now + leeway < claims.iat:
        raise TokenRejected(TokenFault.ISSUED_IN_FUTURE, f"token was issued {_words(claims.iat - now)} in the future")
    if verified.chain_issuer is not None:
        _check_age(verified.chain_issuer, now, leeway)


def _words(seconds: float) -> str:
    return short_duration(seconds, " ")


def _check_age(issuer: ChainIssuer, now: float, leeway: float) -> None:
    if now >= issuer.ends:
        raise TokenRejected(
            TokenFault.CHAIN_ISSUER_TOO_OLD,
            f"chain issuer {issuer.id} has been too old for {_words(now - issuer.ends)}",
        )
    if now + leeway < issuer.issued:
        raise TokenRejected(
            TokenFault.CHAIN_ISSUER_IN_FUTURE,
            f"chain issuer {issuer.id} was issued {_words(issuer.issued - now)} in the future",
        )
