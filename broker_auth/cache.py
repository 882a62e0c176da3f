"""A bounded least-recently-used (LRU) mapping, so that input from strangers cannot exhaust memory."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable
from typing import Generic, TypeVar

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")


class BoundedCache(Generic[K, V]):
    """An LRU cache of at most ``capacity`` entries. Not thread-safe."""

    __slots__ = ("_capacity", "_entries")

    def __init__(self, capacity: int) -> None:
        self._capacity = capacity
        self._entries: OrderedDict[K, V] = OrderedDict()

    def get(self, key: K) -> V | None:
        """Return the value and mark it as most recently used; None if absent."""
        value = self._entries.get(key)
        if value is not None:
            self._entries.move_to_end(key)
        return value

    def put(self, key: K, value: V) -> None:
        """Store ``value``, evicting the least recently used entry if the cache is full."""
        if len(self._entries) >= self._capacity and key not in self._entries:
            self._entries.popitem(last=False)
        self._entries[key] = value

    def items(self) -> list[tuple[K, V]]:
        """Return every entry, least recently used first."""
        return list(self._entries.items())

    def __len__(self) -> int:
        return len(self._entries)
