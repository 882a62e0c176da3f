"""Requests that wait to be answered, each broker's apart: by priority, oldest first, never too many.

Brokers share by construction, not by trust. Where there is no more room, a broker that holds more than its
share of requests or bytes loses its own, so a flood through one evicts nothing of another's that is within its
share. Half of each batch goes by priority, brokers taking turns within one; the other half goes to the brokers
in turn, each giving the best it has. Whatever one broker says of its requests, each of ``n`` brokers is
therefore served with at least 1/2n of what can be answered.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from typing import Final, Generic, TypeVar

from broker_auth.callout.priority import Priority

CAPACITY: Final = 8192  # requests; about what a worker can answer while clients wait
MAX_BYTES: Final = 16 * 1024 * 1024  # of messages; a client's may be 64 KiB each, the usual is 2

T = TypeVar("T")


class _Queues(Generic[T]):
    """The requests of one broker: a queue for each priority; an entry is its item, bytes and arrival."""

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
        """Remove and return the oldest item of the best priority; there must be one."""
        return self.pop(next(filter(None, self.queues)))

    def least(self) -> int:
        """Return the worst priority that waits; there must be one."""
        return next(kind for kind in reversed(Priority) if self.queues[kind])


class Backlog(Generic[T]):
    """Holds the waiting requests of ``brokers`` brokers, numbered from 0.

    An item that finds nothing else waiting is not given a priority until a second one comes: while the service
    keeps up, order does not matter and priorities cost nothing.
    """

    def __init__(
        self, brokers: int, classify: Callable[[T], Priority], capacity: int = CAPACITY, max_bytes: int = MAX_BYTES
    ) -> None:
        """``classify`` gives the priority of an item; the bounds are for all brokers together."""
        self._classify = classify
        self._capacity = capacity
        self._max_bytes = max_bytes
        self._brokers: Sequence[_Queues[T]] = [_Queues() for _ in range(brokers)]
        self._next = 0  # the broker whose turn it is
        self._alone: tuple[int, T, int, float] | None = None

    def put(self, item: T, broker: int, size: int = 0, since: float = 0.0) -> list[T]:
        """Let ``item`` wait; return the items that have to go.

        They are the oldest of the worst priority of the broker that holds most; where that is the same broker, it
        is ``item`` itself if every other is better.

        Args:
            item: what waits.
            broker: the number of the broker that it came from.
            size: bytes that it holds.
            since: when it arrived, in seconds on a steady clock.
        """
        alone = self._alone
        if alone is None:
            if not len(self):
                self._alone = (broker, item, size, since)
                return []
        else:
            self._alone = None
            self._put(alone[1], alone[0], alone[2], alone[3])
        return self._put(item, broker, size, since)

    def take(self, count: int) -> list[T]:
        """Remove and return the next items in their order, no more than ``count``; none if nothing waits."""
        if self._alone is not None:
            alone, self._alone = self._alone, None
            return [alone[1]]
        busy = [queues for queues in self._in_turn() if queues.count]
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
        if self._alone is not None and self._alone[3] < before:
            gone.append(self._alone[1])
            self._alone = None
        for queues in self._brokers:
            if queues.count:
                for queue in queues.queues:
                    while queue and queue[0][2] < before:
                        gone.append(queues.pop(queue))
        return gone

    def oldest(self) -> float | None:
        """Return when the item that has waited longest arrived; None if nothing waits."""
        heads = [queue[0][2] for queues in self._brokers for queue in queues.queues if queue]
        if self._alone is not None:
            heads.append(self._alone[3])
        return min(heads, default=None)

    def __len__(self) -> int:
        waiting = 0 if self._alone is None else 1
        for queues in self._brokers:
            waiting += queues.count
        return waiting

    def _put(self, item: T, broker: int, size: int, since: float) -> list[T]:
        own, priority = self._brokers[broker], self._classify(item)
        dropped: list[T] = []
        while (holder := self._largest(own, size)) is not None:
            if holder is own and (not own.count or priority > own.least()):
                return [*dropped, item]
            dropped.append(holder.pop(holder.queues[holder.least()]))
        own.put(item, priority, size, since)
        return dropped

    def _largest(self, own: _Queues[T], size: int) -> _Queues[T] | None:
        """Return the broker that has to give up something for ``size`` bytes of ``own``; None if there is room."""
        brokers = self._brokers
        count = sum([queues.count for queues in brokers])
        if count >= self._capacity:
            largest = max(brokers, key=lambda queues: queues.count)
            return own if own.count >= largest.count else largest
        if count and sum([queues.bytes for queues in brokers]) + size > self._max_bytes:
            largest = max(brokers, key=lambda queues: queues.bytes)
            return own if own.bytes + size >= largest.bytes else largest
        return None

    def _in_turn(self) -> Iterator[_Queues[T]]:
        brokers = self._brokers
        first = self._next % len(brokers)
        yield from brokers[first:]
        yield from brokers[:first]


def _by_priority(busy: Sequence[_Queues[T]], count: int) -> list[T]:
    """Remove and return up to ``count`` items, the best priority first, brokers taking turns within one."""
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
