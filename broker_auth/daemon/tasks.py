"""Long-lived tasks of a supervising process: a task that ends is logged, counted and restarted.

Otherwise an unexpected exception would end a task silently: reloads and the watchdog would stop, while heartbeats
would still report that all is well.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Final

_RESTART_SECONDS: Final = 1.0
_log = logging.getLogger(__name__)


class LongTasks:
    """Tasks that are restarted after any exception, until they are cancelled.

    Attributes:
        failures: number of unexpected ends.
    """

    def __init__(self, on_failure: Callable[[], None] = lambda: None) -> None:
        """Start nothing yet; ``on_failure`` is called after each failure."""
        self.failures = 0
        self._on_failure = on_failure
        self._tasks: list[asyncio.Task[None]] = []

    def start(self, name: str, work: Callable[[], Awaitable[None]], *, once: bool = False) -> None:
        """Run ``work``; restart it whenever it ends.

        Args:
            name: name of the task in the log.
            work: the coroutine function to run.
            once: whether the task is finished when ``work`` returns.
        """
        self._tasks.append(asyncio.create_task(self._run(name, work, once=once), name=name))

    def count_failure(self) -> None:
        """Count a failure of one of these tasks, or of another one."""
        self.failures += 1
        self._on_failure()

    async def finish(self) -> None:
        """Wait for the tasks that end by themselves."""
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def cancel(self) -> None:
        """Cancel every task, and wait until all have ended."""
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
                _log.error("task %r has ended; restarting in %g s", name, _RESTART_SECONDS)
            except Exception:
                _log.exception("task %r failed; restarting in %g s", name, _RESTART_SECONDS)
            self.count_failure()
            await asyncio.sleep(_RESTART_SECONDS)
