"""Verification that a TLS peer's chain leads to a configured CA (docs/policy.md#0-connections-not-served).

nats-server sends the chains that it verified. It may have verified them against the system's roots (fact 3 of
docs/nats-server.md), so :mod:`.paths` checks that they lead to a configured CA.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Final

from broker_auth.cache import BoundedCache
from broker_auth.certificates.authorities import Roots
from broker_auth.certificates.certificate import Certificate
from broker_auth.certificates.paths import CachedPeer, Search
from broker_auth.certificates.peer import PeerIdentity, RefusedPeer
from broker_auth.certificates.pemfile import PemError, read_bundle
from broker_auth.errors import InputError

PEER_CACHE: Final = 2048  # peers; about 1 KB each
REFUSED_CACHE: Final = 512  # a separate cache, so that refused chains cannot evict peers
_MAX_REMEMBERED_NAMES: Final = 16_384  # characters; a peer with more is not cached
_MAX_RECALLED: Final = 64 * 1024  # characters; longer chains are not hashed for a priority lookup


class PeerVerifier:
    """A verifier of peers against a fixed set of roots, which caches results by the SHA-256 of the chains.

    Attributes:
        authorities: the roots.
    """

    def __init__(self, roots: Sequence[Certificate], cached: int | None = None) -> None:
        """Prepare to verify against ``roots``; without roots, every chain that nats-server verified is accepted.

        Args:
            roots: the configured CAs.
            cached: how many verified peers are cached; :data:`PEER_CACHE` by default.
        """
        self._roots = Roots(roots)
        self.authorities = tuple(roots)
        self._known: BoundedCache[bytes, CachedPeer] = BoundedCache(PEER_CACHE if cached is None else cached)
        self._refused: BoundedCache[bytes, CachedPeer] = BoundedCache(REFUSED_CACHE)

    def identify(self, chains: Sequence[Sequence[str]], now: float) -> PeerIdentity | RefusedPeer:
        """Return the peer, or why none of its chains leads to a configured root at ``now``.

        Args:
            chains: the verified chains as PEM, leaf first, as in the authorization request.
            now: Unix seconds.
        """
        digest = _digest(chains)
        for cache in (self._known, self._refused):
            known = cache.get(digest)
            if known is not None and known.start <= now < known.end:
                return known.peer
        known = Search(self._roots, now).run(chains)
        self._remember(digest, known)
        return known.peer

    def recall(self, chains: Sequence[Sequence[str]], now: float) -> bool | None:
        """Return the cached result: True if these chains hold at ``now``, None if they are not in the cache.

        Verifies nothing and never raises, so it is safe for any request.
        """
        if sum([len(pem) for chain in chains for pem in chain]) > _MAX_RECALLED:
            return None
        digest = _digest(chains)
        for cache, verified in ((self._known, True), (self._refused, False)):
            known = cache.get(digest)
            if known is not None and known.start <= now < known.end:
                return verified
        return None

    def _remember(self, digest: bytes, known: CachedPeer) -> None:
        peer = known.peer
        if sum(map(len, peer.all_names)) > _MAX_REMEMBERED_NAMES:
            return
        (self._known if isinstance(peer, PeerIdentity) else self._refused).put(digest, known)


def load_roots(data: bytes, name: str) -> list[Certificate]:
    """Return all certificates of a PEM file.

    Raises:
        InputError: no certificate is usable. Single unusable certificates are skipped, as nats-server does.
    """
    try:
        return list(read_bundle(data).certificates)
    except PemError as error:
        raise InputError(f"{name}: {error.what}") from error


def _digest(chains: Sequence[Sequence[str]]) -> bytes:
    """Return the SHA-256 of the chains, each part prefixed by its length to keep the encoding unambiguous."""
    parts: list[str] = []
    for chain in chains:
        parts.append(f"{len(chain)};")
        for pem in chain:
            parts.append(f"{len(pem)}:")
            parts.append(pem)
    return hashlib.sha256("".join(parts).encode("utf-8", "surrogatepass")).digest()
