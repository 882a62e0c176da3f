"""Requests that are put aside until it is known whether their node is counted; they delay no other request."""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Awaitable, Callable
from typing import Final, Generic, TypeVar

from broker_auth.callout.callout import Exchange
from broker_auth.logs.limit import LogLimit
from broker_auth.policy.counting import Counted, NodeClaim

MAX_DEFERRED: Final = 2048
MAX_OF_TOKEN: Final = 1024  # all nodes of a token may return at the same moment; a thief may connect very often by it
_log = logging.getLogger(__name__)

Count = Callable[[NodeClaim], Awaitable[Counted]]
"""Returns whether a node is counted, soon: UNKNOWN if that takes too long."""

E = TypeVar("E", bound=Exchange)


class Deferred(Generic[E]):
    """The requests of a worker that were put aside."""

    def __init__(self, count: Count | None, conclude: Callable[[list[E]], None]) -> None:
        """Put nothing aside yet.

        Args:
            count: see :data:`Count`; None if nobody counts on this host.
            conclude: called with each exchange once its ``counted`` is set.
        """
        self._count = count
        self._conclude = conclude
        self._tasks: set[asyncio.Task[None]] = set()
        self._of_token: Counter[str] = Counter()
        self._errors = LogLimit()

    def __len__(self) -> int:
        return len(self._tasks)

    def add(self, exchange: E, claim: NodeClaim) -> bool:
        """Put an exchange aside until its node is counted.

        Returns:
            False if there is no place for it, or nobody to ask: its ``counted`` is UNKNOWN then.
        """
        if self._count is None or len(self._tasks) >= MAX_DEFERRED or self._of_token[claim.signed] >= MAX_OF_TOKEN:
            exchange.counted = Counted.UNKNOWN
            return False
        self._of_token[claim.signed] += 1
        task = asyncio.create_task(self._settle(self._count, exchange, claim))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return True

    async def finish(self) -> None:
        """Wait until every exchange is concluded."""
        while self._tasks:
            await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _settle(self, count: Count, exchange: E, claim: NodeClaim) -> None:
        exchange.counted = Counted.UNKNOWN
        try:
            exchange.counted = await count(claim)
        except Exception:  # the connection is denied
            if self._errors.due():
                _log.exception("a node could not be counted (%d so far)", self._errors.count)
        finally:
            self._of_token[claim.signed] -= 1
            if not self._of_token[claim.signed]:
                del self._of_token[claim.signed]
        self._conclude([exchange])
