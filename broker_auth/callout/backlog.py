"""Pending requests, in separate queues for each broker: by priority, oldest first, bounded.

Brokers share the capacity without trusting each other. When the backlog is full, a broker that exceeds its share of
requests or bytes loses its own requests, so a flood through one broker evicts nothing of another within its share.
Half of each batch is filled by priority, round robin among brokers within one priority; the other half round robin
among brokers, with the best request of each. So regardless of the priorities that one broker claims, each of ``n``
brokers gets at least 1/2n of the capacity.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from typing import Final, Generic, TypeVar

from broker_auth.callout.priority import Priority

CAPACITY: Final = 8192  # requests; about as many as a worker can answer before clients give up
MAX_BYTES: Final = 16 * 1024 * 1024  # of messages; a message may have 512 KiB, typically 2 KiB

T = TypeVar("T")


class _Queues(Generic[T]):
    """The requests of one broker: a queue for each priority, with entries of item, size and arrival time."""

    __slots__ = ("bytes", "count", "queues")

    def __init__(self) -> None:
        self.queues: tuple[deque[tuple[T, int, float]], ...] = tuple(deque() for _ in Priority)
        self.count = 0
        self.bytes = 0

    def put(self, item: T, priority: int, size: int, since: float) -> None:
        self.queues[priority].append((item, size, since))
        self.count += 1
        self.bytes += size

    def pop(self, queue: deque[tuple[T, int, float]]) -> T:
        item, size, _ = queue.popleft()
        self.count -= 1
        self.bytes -= size
        return item

    def best(self) -> T:
        """Remove and return the oldest item of the best priority; must not be empty."""
        return self.pop(next(filter(None, self.queues)))

    def least(self) -> int:
        """Return the worst priority of all items; must not be empty."""
        return next(kind for kind in reversed(Priority) if self.queues[kind])


class Backlog(Generic[T]):
    """The pending requests of ``brokers`` brokers, numbered from 0.

    Items are not sorted, and their priorities not computed, until more are pending than fit into one batch: while the
    service keeps up, the order does not matter, and priorities cost nothing.
    """

    def __init__(
        self,
        brokers: int,
        classify: Callable[[T], Priority],
        capacity: int = CAPACITY,
        max_bytes: int = MAX_BYTES,
        unsorted: int = 1,
    ) -> None:
        """Create an empty backlog; the bounds are for all brokers together.

        Args:
            brokers: their number.
            classify: returns an item's priority.
            capacity: maximum number of items.
            max_bytes: maximum size of items, unless there is only one.
            unsorted: number of items that are pending without being sorted.
        """
        self._classify = classify
        self._capacity = capacity
        self._max_bytes = max_bytes
        self._brokers: Sequence[_Queues[T]] = [_Queues() for _ in range(brokers)]
        self._next = 0  # the broker to start the next batch with
        self._limit = min(unsorted, capacity)
        self._unsorted: list[tuple[int, T, int, float]] = []  # all that is pending, or nothing; in order of arrival
        self._unsorted_bytes = 0

    def put(self, item: T, broker: int, size: int = 0, since: float = 0.0) -> list[T]:
        """Add ``item``; return the items evicted to make room.

        Evicted are the oldest items of the worst priority of the broker with the most items; if that is the broker of
        ``item`` and all its other items have a better priority, ``item`` itself.

        Args:
            item: the item.
            broker: the number of the broker that it was received from.
            size: its size in bytes.
            since: its arrival time, in seconds on a monotonic clock.
        """
        unsorted = self._unsorted
        if unsorted or not self._sorted():
            if not unsorted or (len(unsorted) < self._limit and self._unsorted_bytes + size <= self._max_bytes):
                unsorted.append((broker, item, size, since))
                self._unsorted_bytes += size
                return []
            self._sort()
        return self._put(item, broker, size, since)

    def take(self, count: int) -> list[T]:
        """Remove and return the next batch of at most ``count`` items; empty if nothing is pending."""
        if self._unsorted:
            if len(self._unsorted) <= count:
                return [item for _, item, _, _ in self._emptied()]
            self._sort()
        busy = [queues for queues in self._round_robin() if queues.count]
        if not busy:
            return []
        self._next += 1
        if len(busy) == 1:
            return _by_priority(busy, count)
        taken = _by_priority(busy, (count + 1) // 2)
        while len(taken) < count and (busy := [queues for queues in busy if queues.count]):
            taken += [queues.best() for queues in busy[: count - len(taken)]]
        return taken

    def expire(self, before: float) -> list[T]:
        """Remove and return the items that arrived earlier than ``before``."""
        gone: list[T] = []
        if self._unsorted and self._unsorted[0][3] < before:
            self._sort()
        for queues in self._brokers:
            if queues.count:
                for queue in queues.queues:
                    while queue and queue[0][2] < before:
                        gone.append(queues.pop(queue))
        return gone

    def oldest(self) -> float | None:
        """Return the arrival time of the oldest item; None if nothing is pending."""
        heads = [queue[0][2] for queues in self._brokers for queue in queues.queues if queue]
        if self._unsorted:
            heads.append(self._unsorted[0][3])
        return min(heads, default=None)

    def __len__(self) -> int:
        return len(self._unsorted) or self._sorted()

    def _sorted(self) -> int:
        """Return the number of items in queues."""
        waiting = 0
        for queues in self._brokers:
            waiting += queues.count
        return waiting

    def _sort(self) -> None:
        """Move the unsorted items to their queues; there is room, because only these are pending."""
        for broker, item, size, since in self._emptied():
            self._brokers[broker].put(item, self._classify(item), size, since)

    def _emptied(self) -> list[tuple[int, T, int, float]]:
        """Remove and return the unsorted items."""
        items, self._unsorted, self._unsorted_bytes = self._unsorted, [], 0
        return items

    def _put(self, item: T, broker: int, size: int, since: float) -> list[T]:
        own, priority = self._brokers[broker], self._classify(item)
        dropped: list[T] = []
        while (victim := self._largest(own, size)) is not None:
            if victim is own and (not own.count or priority > own.least()):
                return [*dropped, item]
            dropped.append(victim.pop(victim.queues[victim.least()]))
        own.put(item, priority, size, since)
        return dropped

    def _largest(self, own: _Queues[T], size: int) -> _Queues[T] | None:
        """Return the broker to evict an item of, to add ``size`` bytes to ``own``; None if there is room."""
        brokers = self._brokers
        count = sum([queues.count for queues in brokers])
        if count >= self._capacity:
            largest = max(brokers, key=lambda queues: queues.count)
            return own if own.count >= largest.count else largest
        if count and sum([queues.bytes for queues in brokers]) + size > self._max_bytes:
            largest = max(brokers, key=lambda queues: queues.bytes)
            return own if own.bytes + size >= largest.bytes else largest
        return None

    def _round_robin(self) -> Iterator[_Queues[T]]:
        brokers = self._brokers
        first = self._next % len(brokers)
        yield from brokers[first:]
        yield from brokers[:first]


def _by_priority(busy: Sequence[_Queues[T]], count: int) -> list[T]:
    """Remove and return up to ``count`` items by priority, round robin among brokers within one priority."""
    taken: list[T] = []
    for kind in Priority:
        waiting = [queues for queues in busy if queues.queues[kind]]
        while waiting and len(taken) < count:
            for queues in waiting[: count - len(taken)]:
                taken.append(queues.pop(queues.queues[kind]))
            waiting = [queues for queues in waiting if queues.queues[kind]]
        if len(taken) >= count:
            break
    return taken
