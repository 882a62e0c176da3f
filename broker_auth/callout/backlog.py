"""Requests that wait for their turn: the most urgent first, of those the oldest, never too many."""

from __future__ import annotations

from collections import deque
from typing import Final, Generic, TypeVar

from broker_auth.policy.urgency import Urgency

CAPACITY: Final = 8192  # requests; about what a worker can answer while clients wait
MAX_BYTES: Final = 16 * 1024 * 1024  # of messages; a stranger's may be 64 KiB each, the usual is 2

T = TypeVar("T")


class Backlog(Generic[T]):
    """A bounded queue for each :class:`Urgency`."""

    def __init__(self, capacity: int = CAPACITY, max_bytes: int = MAX_BYTES) -> None:
        self._capacity = capacity
        self._max_bytes = max_bytes
        self._queues: tuple[deque[tuple[T, int]], ...] = tuple(deque() for _ in Urgency)
        self._count = 0
        self._bytes = 0

    def put(self, item: T, urgency: Urgency, size: int = 0) -> list[T]:
        """Let ``item``, of ``size`` bytes, wait.

        Returns what has to go for it if there is no room: the oldest of the least urgent, or ``item``
        itself if everything else is more urgent.
        """
        dropped: list[T] = []
        while self._count and (self._count >= self._capacity or self._bytes + size > self._max_bytes):
            least = max(kind for kind in Urgency if self._queues[kind])
            if urgency > least:
                return [*dropped, item]
            dropped.append(self._pop(self._queues[least]))
        self._queues[urgency].append((item, size))
        self._count += 1
        self._bytes += size
        return dropped

    def take(self, count: int) -> list[T]:
        """The next ones in their order, no more than ``count``; none if nothing waits."""
        taken: list[T] = []
        for queue in self._queues:
            while queue and len(taken) < count:
                taken.append(self._pop(queue))
        return taken

    def __len__(self) -> int:
        return self._count

    def _pop(self, queue: deque[tuple[T, int]]) -> T:
        item, size = queue.popleft()
        self._count -= 1
        self._bytes -= size
        return item
