"""Secrets that cannot be printed by accident and are compared in constant time."""

from __future__ import annotations

import hashlib
import hmac


class Secret:
    """A password or seed. ``repr``, ``str`` and formatting never show the value."""

    __slots__ = ("_digest", "_value")

    def __init__(self, value: str) -> None:
        self._value = value
        self._digest = hashlib.sha256(value.encode("utf-8", "surrogatepass")).digest()

    def reveal(self) -> str:
        """Return the value, for the one place that needs it (a key parser, a login)."""
        return self._value

    def matches(self, candidate: str) -> bool:
        """Return whether ``candidate`` equals the secret. Compares digests, so that not even the length leaks."""
        digest = hashlib.sha256(candidate.encode("utf-8", "surrogatepass")).digest()
        return hmac.compare_digest(self._digest, digest)

    def __bool__(self) -> bool:
        return bool(self._value)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Secret) and hmac.compare_digest(self._digest, other._digest)

    def __hash__(self) -> int:
        return hash(self._digest)

    def __repr__(self) -> str:
        return "Secret(***)"

    __str__ = __repr__
