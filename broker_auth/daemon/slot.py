"""Keeps one process running: replaces it when it dies or stops sending heartbeats, with a growing backoff."""

from __future__ import annotations

import asyncio
import logging
import signal
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final, Generic, TypeVar

from broker_auth.daemon.child import Child
from broker_auth.daemon.tasks import LongTasks

_BACKOFF: Final = (0.0, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0)  # seconds, by number of consecutive failures
_RESTART_SECONDS: Final = 1.0
_TICK_SECONDS: Final = 0.5
_STEADY_SECONDS: Final = 30.0  # a process that ran for this long resets the backoff
_log = logging.getLogger(__name__)

H = TypeVar("H")


class Cause(StrEnum):
    """The reason for replacing a process."""

    DIED = "died"
    STUCK = "stuck"


@dataclass(frozen=True, slots=True, kw_only=True)
class ProcessSpec(Generic[H]):
    """The kind of process that a slot runs.

    Attributes:
        title: name in the log, followed by the process id.
        start: forks the process; may raise OSError.
        timeout: seconds without a heartbeat after which the process is killed.
        drain: seconds that the process has to end when asked.
        on_end: called with each process that ended.
        on_replace: called with the cause before a replacement is started.
        is_late: returns whether a heartbeat reports work that waits too long; two in a row get the process killed.
    """

    title: str
    start: Callable[[], Child[H]]
    timeout: float
    drain: float
    on_end: Callable[[Child[H]], None]
    on_replace: Callable[[Cause], None]
    is_late: Callable[[H], bool] = lambda _: False


class Slot(Generic[H]):
    """A process slot: restarts its process until it is retired.

    Attributes:
        child: the running process, None during a restart.
    """

    def __init__(self, spec: ProcessSpec[H]) -> None:
        self.child: Child[H] | None = None
        self._spec = spec
        self._retired = False
        self._stuck = False
        self._last_heartbeat: H | None = None
        self._last_late = False
        self._failures = 0
        self._tasks = LongTasks()
        self._tasks.start(spec.title, self._run, once=True)

    async def retire(self) -> None:
        """Drain the process without starting another."""
        self._retired = True
        child = self.child
        if child is not None and not await child.end(self._spec.drain):
            _log.warning("%s %d did not drain (status %s)", self._spec.title, child.pid, child.status)
        if child is not None:
            await self._tasks.finish()
        await self._tasks.cancel()  # without a process, the task waits to start the next one

    def check(self, now: float) -> None:
        """Kill the process if its heartbeats time out or report work that waits too long."""
        child = self.child
        if child is None or child.status is not None:
            return
        if now - child.last_seen > self._spec.timeout:
            _log.error(
                "%s %d has sent no heartbeat for %.1f s and is killed",
                self._spec.title,
                child.pid,
                now - child.last_seen,
            )
        elif self._is_late(child.heartbeat):
            _log.error("%s %d lets requests wait for too long and is killed", self._spec.title, child.pid)
        else:
            return
        self._stuck = True
        child.last_seen = now
        child.signal(signal.SIGKILL)

    def _is_late(self, heartbeat: H | None) -> bool:
        """Return whether this heartbeat and the previous one are late: a single one may be due to a suspension."""
        if heartbeat is None or heartbeat is self._last_heartbeat:
            return False
        before, self._last_heartbeat, self._last_late = self._last_late, heartbeat, self._spec.is_late(heartbeat)
        return before and self._last_late

    async def _run(self) -> None:
        while not self._retired:
            child = self.child or await self._started()
            await child.ended.wait()
            await child.read_to_end()
            self.child = None
            self._spec.on_end(child)
            if not self._retired:
                await self._back_off(child)

    async def _started(self) -> Child[H]:
        """Start a process; retry on OSError, because the system may recover from a lack of memory or descriptors."""
        while True:
            try:
                self.child = self._spec.start()
            except OSError as error:
                _log.error(
                    "%s cannot be started: %s; retrying in %g s",
                    self._spec.title,
                    error.strerror,
                    _RESTART_SECONDS,
                )
                await asyncio.sleep(_RESTART_SECONDS)
            else:
                return self.child

    async def _back_off(self, child: Child[H]) -> None:
        cause = Cause.STUCK if self._stuck else Cause.DIED
        self._stuck = False
        lived = asyncio.get_running_loop().time() - child.started
        self._failures = 1 if lived > _STEADY_SECONDS else self._failures + 1
        delay = _BACKOFF[min(self._failures, len(_BACKOFF)) - 1]
        self._spec.on_replace(cause)
        _log.error("%s %d %s (status %s); replaced in %g s", self._spec.title, child.pid, cause, child.status, delay)
        await asyncio.sleep(delay)


async def watch(slots: Callable[[], Iterable[Slot[Any]]]) -> None:
    """Kill processes whose heartbeats time out, until cancelled."""
    loop = asyncio.get_running_loop()
    before = loop.time()
    while True:
        await asyncio.sleep(_TICK_SECONDS)
        now = loop.time()
        if now - before > 2 * _TICK_SECONDS:
            # This process itself was suspended; reset the heartbeat timer of every process.
            for slot in slots():
                if slot.child is not None:
                    slot.child.last_seen = now
        for slot in slots():
            slot.check(now)
        before = now
