"""Requests that wait for their turn: the most urgent first, of those the oldest, never too many."""

from __future__ import annotations

from collections import deque
from typing import Final, Generic, TypeVar

from broker_auth.policy.urgency import Urgency

CAPACITY: Final = 4096  # requests; more than a worker can answer within the time clients wait

T = TypeVar("T")


class Backlog(Generic[T]):
    """A bounded queue for each :class:`Urgency`."""

    def __init__(self, capacity: int = CAPACITY) -> None:
        self._capacity = capacity
        self._queues: tuple[deque[T], ...] = tuple(deque() for _ in Urgency)
        self._count = 0

    def put(self, item: T, urgency: Urgency) -> T | None:
        """Let ``item`` wait. Returns what has to go for it: the oldest of the least urgent, if there is no room.

        That is ``item`` itself if everything else is more urgent.
        """
        dropped = None
        if self._count >= self._capacity:
            least = max(kind for kind in Urgency if self._queues[kind])
            if urgency > least:
                return item
            dropped = self._queues[least].popleft()
            self._count -= 1
        self._queues[urgency].append(item)
        self._count += 1
        return dropped

    def take(self) -> T | None:
        """The next one; None if nothing waits."""
        for queue in self._queues:
            if queue:
                self._count -= 1
                return queue.popleft()
        return None

    def __len__(self) -> int:
        return self._count
