"""Keeps one process running: replaces it when it dies or falls silent, ever more slowly if that goes on."""

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

_BACKOFF: Final = (0.0, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0)  # seconds, by failures in a row
_RESTART_SECONDS: Final = 1.0
_TICK_SECONDS: Final = 0.5
_STEADY_SECONDS: Final = 30.0  # a process that ran this long had not failed to start
_log = logging.getLogger(__name__)

H = TypeVar("H")


class Cause(StrEnum):
    """Why a process had to be replaced."""

    DIED = "died"
    STUCK = "stuck"


@dataclass(frozen=True, slots=True, kw_only=True)
class Kind(Generic[H]):
    """What a slot runs.

    Attributes:
        title: in the log, before the process id.
        start: forks the process; may raise OSError.
        silence: seconds without a heartbeat after which it is killed.
        drain: seconds it has to end when it is asked to.
        on_end: called with each process that ended.
        on_replace: called with the reason when another is to follow.
        is_late: tells from a heartbeat that work waits too long; killed if two in a row say so.
    """

    title: str
    start: Callable[[], Child[H]]
    silence: float
    drain: float
    on_end: Callable[[Child[H]], None]
    on_replace: Callable[[Cause], None]
    is_late: Callable[[H], bool] = lambda _: False


class Slot(Generic[H]):
    """One process after the other, until retired.

    Attributes:
        child: the process that runs now, None between two.
    """

    def __init__(self, kind: Kind[H]) -> None:
        self.child: Child[H] | None = None
        self._kind = kind
        self._retired = False
        self._stuck = False
        self._last_beat: H | None = None
        self._last_late = False
        self._failures = 0
        self._tasks = LongTasks()
        self._tasks.start(kind.title, self._run, once=True)

    async def retire(self) -> None:
        """Drain the process and start no other."""
        self._retired = True
        child = self.child
        if child is not None and not await child.end(self._kind.drain):
            _log.warning("%s %d did not drain (status %s)", self._kind.title, child.pid, child.status)
        if child is not None:
            await self._tasks.finish()
        await self._tasks.cancel()  # without a process it waits to start the next one

    def check(self, now: float) -> None:
        """Kill the process if it has sent no heartbeat for too long, or lets work wait although it sends them."""
        child = self.child
        if child is None or child.status is not None:
            return
        if now - child.heard > self._kind.silence:
            _log.error("%s %d sent nothing for %.1f s and is killed", self._kind.title, child.pid, now - child.heard)
        elif self._is_late(child.beat):
            _log.error("%s %d lets requests wait for too long and is killed", self._kind.title, child.pid)
        else:
            return
        self._stuck = True
        child.heard = now
        child.signal(signal.SIGKILL)

    def _is_late(self, beat: H | None) -> bool:
        """Return whether a new heartbeat and the one before it say so: one may follow upon a suspension."""
        if beat is None or beat is self._last_beat:
            return False
        before, self._last_beat, self._last_late = self._last_late, beat, self._kind.is_late(beat)
        return before and self._last_late

    async def _run(self) -> None:
        while not self._retired:
            child = self.child or await self._started()
            await child.ended.wait()
            await child.read_to_end()
            self.child = None
            self._kind.on_end(child)
            if not self._retired:
                await self._back_off(child)

    async def _started(self) -> Child[H]:
        """Start a process, once the system has what it takes: it may recover from a lack of memory or descriptors."""
        while True:
            try:
                self.child = self._kind.start()
            except OSError as error:
                _log.error(
                    "%s cannot be started: %s; tried again in %g s",
                    self._kind.title,
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
        self._kind.on_replace(cause)
        _log.error("%s %d %s (status %s); replaced in %g s", self._kind.title, child.pid, cause, child.status, delay)
        await asyncio.sleep(delay)


async def watch(slots: Callable[[], Iterable[Slot[Any]]]) -> None:
    """Kill silent processes, until cancelled."""
    loop = asyncio.get_running_loop()
    before = loop.time()
    while True:
        await asyncio.sleep(_TICK_SECONDS)
        now = loop.time()
        if now - before > 2 * _TICK_SECONDS:
            # This process did not listen (it was suspended, or the machine was): start every timer again.
            for slot in slots():
                if slot.child is not None:
                    slot.child.heard = now
        for slot in slots():
            slot.check(now)
        before = now
