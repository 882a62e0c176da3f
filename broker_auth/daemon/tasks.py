"""Long-lived tasks of a supervising process: one that ends is logged, counted and started again.

Without this, an exception that nobody foresaw would end a task in silence: no later reload, no watchdog, and
heartbeats that say that all is well.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Final

_RESTART_SECONDS: Final = 1.0
_log = logging.getLogger(__name__)


class LongTasks:
    """Tasks that run until they are cancelled, whatever happens in them.

    Attributes:
        failures: how often one of them ended unforeseen.
    """

    def __init__(self, on_failure: Callable[[], None] = lambda: None) -> None:
        """``on_failure`` is called after each failure."""
        self.failures = 0
        self._on_failure = on_failure
        self._tasks: list[asyncio.Task[None]] = []

    def start(self, name: str, work: Callable[[], Awaitable[None]], *, once: bool = False) -> None:
        """Run ``work``, and again whenever it ends.

        Args:
            name: of the task, in the log.
            work: what to run; each call starts it from the beginning.
            once: whether it may return, which ends the task.
        """
        self._tasks.append(asyncio.create_task(self._run(name, work, once=once), name=name))

    def count_failure(self) -> None:
        """Count a failure: one of these tasks', or of others that are counted with them."""
        self.failures += 1
        self._on_failure()

    async def finish(self) -> None:
        """Wait for the tasks that end by themselves."""
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def cancel(self) -> None:
        """End every task, and return once they have ended."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._tasks.clear()

    async def _run(self, name: str, work: Callable[[], Awaitable[None]], *, once: bool) -> None:
        while True:
            try:
                await work()
                if once:
                    return
                _log.error("task %r has ended; started again in %g s", name, _RESTART_SECONDS)
            except Exception:
                _log.exception("task %r failed; started again in %g s", name, _RESTART_SECONDS)
            self.count_failure()
            await asyncio.sleep(_RESTART_SECONDS)
