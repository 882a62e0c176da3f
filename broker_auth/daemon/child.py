"""A forked process as its parent sees it: its last heartbeat, and its end."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
from collections.abc import Callable
from typing import Generic, TypeVar

import msgspec

from broker_auth.daemon.spawn import Body, spawn

_MAX_HEARTBEAT = 1024 * 1024  # bytes of one line
_log = logging.getLogger(__name__)

H = TypeVar("H")


class Child(Generic[H]):
    """One forked process.

    Attributes:
        pid: its process id.
        started: on the loop's clock, in seconds.
        heard: when its last heartbeat came, on the same clock.
        beat: its last heartbeat, None before the first.
        status: how it ended (:func:`os.waitstatus_to_exitcode`), None while it runs.
        ended: set once it has ended and been waited for.
    """

    def __init__(self, body: Body, beats: type[H], on_beat: Callable[[], None]) -> None:
        """Fork it.

        Args:
            body: what it does; it writes heartbeats to its end of the channel, a JSON line each.
            beats: what a heartbeat is decoded to.
            on_beat: called after each heartbeat.

        Raises:
            OSError: the system has no process or descriptor left.
        """
        self.pid, self._channel = spawn(body)
        self.started = self.heard = asyncio.get_running_loop().time()
        self.beat: H | None = None
        self.status: int | None = None
        self.ended = asyncio.Event()
        self._decoder = msgspec.json.Decoder(beats)
        self._on_beat = on_beat
        self._listener = asyncio.create_task(self._listen())
        _log.debug("process %d started", self.pid)

    def signal(self, number: signal.Signals) -> None:
        """Send it a signal; nothing happens once it has ended."""
        if self.status is None:
            os.kill(self.pid, number)

    def reap(self) -> None:
        """Collect its exit status, if it has ended."""
        if self.status is not None:
            return
        pid, status = os.waitpid(self.pid, os.WNOHANG)
        if pid:
            self.status = os.waitstatus_to_exitcode(status)
            self.ended.set()

    async def end(self, deadline: float) -> bool:
        """Ask it to drain, and kill it after ``deadline`` seconds. Return whether it ended by itself."""
        self.signal(signal.SIGTERM)
        try:
            async with asyncio.timeout(deadline):
                await self.ended.wait()
        except TimeoutError:
            self.signal(signal.SIGKILL)
            await self.ended.wait()
        await self.read_to_end()
        return self.status == 0

    async def read_to_end(self) -> None:
        """Read what it sent before it ended."""
        await asyncio.gather(self._listener, return_exceptions=True)

    async def _listen(self) -> None:
        reader, writer = await asyncio.open_unix_connection(sock=self._channel, limit=_MAX_HEARTBEAT)
        try:
            while line := await reader.readline():
                self.beat = self._decoder.decode(line)
                self.heard = asyncio.get_running_loop().time()
                self._on_beat()
        except (OSError, ValueError) as error:  # killed in the middle of a line
            _log.debug("process %d: %s", self.pid, error)
        finally:
            writer.close()
