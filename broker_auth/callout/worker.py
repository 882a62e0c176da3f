"""A worker as its supervisor sees it: a process, its last beat, and its end."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
from collections.abc import Callable

import msgspec

from broker_auth.callout.process import Beat, Prepared, work
from broker_auth.callout.spawn import spawn

_MAX_BEAT = 1024 * 1024  # bytes of one line
_log = logging.getLogger(__name__)


class Worker:
    """One forked process.

    Attributes:
        pid: its process id.
        started: on the loop's clock, in seconds.
        heard: when its last beat came, on the same clock.
        beat: its last beat, None before the first.
        status: how it ended (:func:`os.waitstatus_to_exitcode`), None while it runs.
        ended: set once it has ended and been waited for.
    """

    def __init__(self, prepared: Prepared, on_beat: Callable[[], None]) -> None:
        """Fork it; ``on_beat`` is called after each beat."""
        self.prepared = prepared
        self.pid, self._channel = spawn(lambda channel: work(prepared, channel))
        self.started = self.heard = asyncio.get_running_loop().time()
        self.beat: Beat | None = None
        self.status: int | None = None
        self.ended = asyncio.Event()
        self._on_beat = on_beat
        self._listener = asyncio.create_task(self._listen())
        _log.debug("worker %d started", self.pid)

    @property
    def subscribed(self) -> frozenset[str]:
        """The brokers it can be reached through."""
        return frozenset(name for name, up in self.beat.brokers.items() if up) if self.beat else frozenset()

    def signal(self, number: signal.Signals) -> None:
        """Send it a signal; nothing happens once it has ended."""
        if self.status is None:
            os.kill(self.pid, number)

    def reap(self) -> None:
        """Notice its end, if it has ended."""
        if self.status is not None:
            return
        pid, status = os.waitpid(self.pid, os.WNOHANG)
        if pid:
            self.status = os.waitstatus_to_exitcode(status)
            self.ended.set()

    async def end(self, patience: float) -> bool:
        """Ask it to drain, and kill it after ``patience`` seconds; whether it ended by itself."""
        self.signal(signal.SIGTERM)
        try:
            async with asyncio.timeout(patience):
                await self.ended.wait()
        except TimeoutError:
            self.signal(signal.SIGKILL)
            await self.ended.wait()
        await self.last_words()
        return self.status == 0

    async def last_words(self) -> None:
        """Read what it sent before it ended."""
        await asyncio.gather(self._listener, return_exceptions=True)

    async def _listen(self) -> None:
        reader, writer = await asyncio.open_unix_connection(sock=self._channel, limit=_MAX_BEAT)
        try:
            while line := await reader.readline():
                self.beat = msgspec.json.decode(line, type=Beat)
                self.heard = asyncio.get_running_loop().time()
                self._on_beat()
        except (OSError, ValueError) as error:  # killed in the middle of a line
            _log.debug("worker %d: %s", self.pid, error)
        finally:
            writer.close()
