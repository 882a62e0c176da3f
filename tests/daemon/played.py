"""Processes that a test plays, on a clock that does not wait: a supervisor meets minutes in milliseconds."""

from __future__ import annotations

import asyncio
import selectors
import signal
from collections.abc import Callable, Coroutine
from typing import Any, Final, Generic, TypeVar

from broker_auth.daemon.child import Child

H = TypeVar("H")
T = TypeVar("T")
_MAX_SECONDS: Final = 2 * 3600.0


class VirtualClockLoop(asyncio.SelectorEventLoop):
    """An event loop whose clock jumps to the next timer whenever nothing else is to be done."""

    def __init__(self) -> None:
        self.now = 0.0
        super().__init__(_JumpingSelector(self))

    def time(self) -> float:
        """Return the virtual time in seconds."""
        return self.now


class _JumpingSelector(selectors.SelectSelector):
    def __init__(self, loop: VirtualClockLoop) -> None:
        super().__init__()
        self._loop = loop

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        """Return what is ready; without it, move the clock instead of waiting."""
        events = super().select(0)
        if not events:
            assert timeout is not None, "every task waits for something that never happens"
            assert self._loop.now < _MAX_SECONDS, "this test never ends"
            self._loop.now += max(0.0, timeout)
        return events


def run(work: Coroutine[Any, Any, T]) -> T:
    """Run a test on a virtual clock."""
    with asyncio.Runner(loop_factory=VirtualClockLoop) as runner:
        return runner.run(work)


def suspend(seconds: float) -> None:
    """Let time pass that this process does not notice, as when it was suspended."""
    loop = asyncio.get_running_loop()
    assert isinstance(loop, VirtualClockLoop)
    loop.now += seconds


class PlayedChild(Child[H]):
    """A process that sends the same heartbeat each second, and ends when it is told to.

    Attributes:
        signals: those it was sent.
    """

    def __init__(self, pid: int, heartbeat: H | None, on_beat: Callable[[], None], *, drains: bool = True) -> None:
        """Start it.

        Args:
            pid: its process id.
            heartbeat: what it sends; None if it never sends anything.
            on_beat: called after each heartbeat.
            drains: whether it ends on SIGTERM.
        """
        self.pid = pid
        self.started = self.last_seen = asyncio.get_running_loop().time()
        self.heartbeat = None
        self.status = None
        self.ended = asyncio.Event()
        self.signals: list[signal.Signals] = []
        self._next = heartbeat
        self._on_heartbeat = on_beat
        self._drains = drains
        self._silent = False
        self._tick()

    def say(self, heartbeat: H) -> None:
        """Send another heartbeat from now on."""
        self._next = heartbeat
        self._send()

    def fall_silent(self) -> None:
        """Send nothing more."""
        self._silent = True

    def die(self, status: int = -9) -> None:
        """End by itself."""
        self.status = status
        self.ended.set()

    def signal(self, number: signal.Signals) -> None:
        """Take a signal as a process does."""
        if self.status is not None:
            return
        self.signals.append(number)
        if number is signal.SIGKILL:
            self.die()
        elif number is signal.SIGTERM and self._drains:
            self.die(0)

    def reap(self) -> None:
        """Do nothing: the operating system does not know this process."""

    async def read_to_end(self) -> None:
        """Do nothing: heartbeats arrive at once."""

    def _tick(self) -> None:
        if self.status is None and not self._silent:
            asyncio.get_running_loop().call_later(1.0, self._tick)
            if self._next is not None:
                self._send()

    def _send(self) -> None:
        self.heartbeat = self._next
        self.last_seen = asyncio.get_running_loop().time()
        self._on_heartbeat()


class Starter(Generic[H]):
    """A starter of played processes, which records them.

    Attributes:
        children: all that were started, in order.
        times: when, on the loop's clock.
        stillborn: whether processes die as soon as they are started.
        drains: whether processes end on SIGTERM.
        failures: raised by the next starts.
    """

    def __init__(self, first_pid: int = 1) -> None:
        self.children: list[PlayedChild[H]] = []
        self.times: list[float] = []
        self.stillborn = False
        self.drains = True
        self.failures: list[OSError] = []
        self._first_pid = first_pid

    def start(self, heartbeat: H | None, on_beat: Callable[[], None]) -> PlayedChild[H]:
        """Return a process that sends this heartbeat."""
        self.times.append(asyncio.get_running_loop().time())
        if self.failures:
            raise self.failures.pop(0)
        child = PlayedChild(self._first_pid + len(self.children), heartbeat, on_beat, drains=self.drains)
        self.children.append(child)
        if self.stillborn:
            child.die(70)
        return child
