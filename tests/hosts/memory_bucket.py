"""A bucket in memory, which behaves as fact 33 of docs/nats-server.md says, for tests of sequences."""

from __future__ import annotations

import copy
from dataclasses import dataclass, field

from broker_auth.natsio.bucket import REVOCATIONS, BucketError, BucketSpec, BucketState, ConflictError, KeyValue


@dataclass
class StoredStream:
    """The content of a bucket in JetStream."""

    created: str = "1"
    last: int = 0
    entries: dict[str, KeyValue] = field(default_factory=dict)


class MemoryBucket:
    """A bucket that many hosts share, and that fails as told.

    Attributes:
        spec: its limits.
        stream: what it holds.
        up: whether it can be reached.
        lose_answers: the number of writes that are stored and whose answers are lost.
    """

    def __init__(self, spec: BucketSpec = REVOCATIONS) -> None:
        self.spec = spec
        self.stream = StoredStream()
        self.up = True
        self.lose_answers = 0

    def copy(self) -> StoredStream:
        """Return a backup."""
        return copy.deepcopy(self.stream)

    async def state(self) -> BucketState:
        """Return where it ends."""
        self._reach()
        return BucketState(self.stream.created, self.stream.last)

    async def read(self, after: int, last: int) -> tuple[list[KeyValue], int]:
        """Return a few entries that are later than a revision, oldest first."""
        self._reach()
        later = [one for one in self._ordered() if one.revision > after][:3]
        return later, later[-1].revision if later else last

    async def get(self, key: str) -> KeyValue | None:
        """Return the entry of a key."""
        self._reach()
        return self.stream.entries.get(key)

    async def get_own(self, key: str) -> KeyValue | None:
        """Return the entry of a key, as its user may."""
        return await self.get(key)

    async def entries(self, prefix: str) -> list[KeyValue]:
        """Return the entries below a prefix."""
        self._reach()
        return [one for one in self._ordered() if one.key.startswith(f"{prefix}.")]

    async def put(self, key: str, value: bytes, expected: int, ttl: float | None = None) -> int:
        """Write a value if the key has the expected revision; it stays, since no test waits until it would end."""
        assert ttl is None or ttl > 0
        self._reach()
        known = self.stream.entries.get(key)
        if (known.revision if known else 0) != expected:
            raise ConflictError(f"{key} has another revision")
        self.stream.last += 1
        self.stream.entries[key] = KeyValue(key, value, self.stream.last)
        if self.lose_answers:
            self.lose_answers -= 1
            raise BucketError("the answer was lost")
        return self.stream.last

    def _ordered(self) -> list[KeyValue]:
        return sorted(self.stream.entries.values(), key=lambda one: one.revision)

    def _reach(self) -> None:
        if not self.up:
            raise BucketError("the bucket cannot be reached")
