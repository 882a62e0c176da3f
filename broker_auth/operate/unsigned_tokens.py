"""Verifiers of tokens whose signature was removed, such as those in audit records; the service does not import this."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from broker_auth.audit.unsigned import with_placeholder
from broker_auth.cache import BoundedCache
from broker_auth.tokens.jws import Jws
from broker_auth.tokens.keys import VerificationKey
from broker_auth.tokens.verify import Rejected, TokenVerifier, TrustedKeys, Verified, wrong_signature

_SIGNERS: Final = 8  # keys whose tokens' results are cached


class UnsignedTokens:
    """Verifiers of tokens without signatures, by the key that is known to have signed them; they cache results."""

    def __init__(self, keys: TrustedKeys, cached: int | None = None) -> None:
        """Prepare to examine tokens, and to cache the results of ``cached`` tokens for each signer."""
        self._keys = keys
        self._cached = cached
        self._verifiers: BoundedCache[str, UnsignedTokenVerifier] = BoundedCache(_SIGNERS)

    def examine(self, raw: str, signer_key: str) -> Verified | Rejected:
        """Return the result of every check of a token but that of its signature.

        Args:
            raw: the token, without its signature.
            signer_key: fingerprint of the key that signed it; empty if not known: a key that may have signed it did.
        """
        verifier = self._verifiers.get(signer_key)
        if verifier is None:
            verifier = UnsignedTokenVerifier(self._keys, signer_key, self._cached)
            self._verifiers.put(signer_key, verifier)
        return verifier.examine(raw)


class UnsignedTokenVerifier(TokenVerifier):
    """A token verifier that makes every check except that of the signature."""

    def __init__(self, keys: TrustedKeys, signer_key: str = "", cached: int | None = None) -> None:
        """Prepare to treat every token as signed by one key.

        Args:
            keys: the keys that verify tokens.
            signer_key: fingerprint of the key that signed every token; empty if any of ``keys`` may have.
            cached: how many tokens' results are cached.
        """
        super().__init__(keys, cached)
        self._signer_key = signer_key

    def examine(self, raw: str) -> Verified | Rejected:
        """Return the result for a token as if the assumed key had signed it."""
        return super().examine(with_placeholder(raw))

    def _signer(self, jws: Jws, candidates: Sequence[VerificationKey]) -> VerificationKey:  # noqa: ARG002
        for key in candidates:
            if not self._signer_key or key.fingerprint == self._signer_key:
                return key
        raise wrong_signature(candidates)
