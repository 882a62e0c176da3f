"""A forked process from its parent's point of view: its last heartbeat and its exit status."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
from collections.abc import Callable, Sequence
from typing import Generic, TypeVar

import msgspec

from broker_auth.daemon.spawn import Body, spawn

_MAX_HEARTBEAT = 1024 * 1024  # bytes of a line
_MAX_UNREAD = 64 * 1024 * 1024  # bytes sent to a process that it has not read
_log = logging.getLogger(__name__)

H = TypeVar("H")


class Child(Generic[H]):
    """One forked process.

    Attributes:
        pid: its process id.
        started: on the loop's clock, in seconds.
        last_seen: when its last heartbeat arrived, on the same clock.
        heartbeat: its last heartbeat, None before the first.
        status: its exit code (:func:`os.waitstatus_to_exitcode`), None while it runs.
        ended: set once it has ended and been reaped.
    """

    def __init__(self, body: Body, heartbeat_type: type[H], on_heartbeat: Callable[[], None]) -> None:
        """Fork the process.

        Args:
            body: the code that it runs; it writes heartbeats to its end of the channel, as JSON lines.
            heartbeat_type: the type that heartbeats are decoded to.
            on_heartbeat: called after each heartbeat.

        Raises:
            OSError: the system is out of processes or file descriptors.
        """
        self.pid, self._channel = spawn(body)
        self.started = self.last_seen = asyncio.get_running_loop().time()
        self.heartbeat: H | None = None
        self.status: int | None = None
        self.ended = asyncio.Event()
        self._decoder = msgspec.json.Decoder(heartbeat_type)
        self._on_heartbeat = on_heartbeat
        self._writer: asyncio.StreamWriter | None = None
        self._unsent: list[bytes] = []
        self._listener = asyncio.create_task(self._listen())
        _log.debug("process %d started", self.pid)

    def signal(self, number: signal.Signals) -> None:
        """Send a signal, unless the process has ended."""
        if self.status is None:
            os.kill(self.pid, number)

    def send(self, lines: Sequence[bytes]) -> None:
        """Send messages, a line each. Kill the process if it does not read them: its successor is forked with them."""
        if self._writer is None:
            self._unsent += lines
        elif self.status is None:
            self._writer.writelines(lines)
        size = sum(map(len, self._unsent)) if self._writer is None else self._writer.transport.get_write_buffer_size()
        if size > _MAX_UNREAD:
            _log.error("process %d does not read what it is sent, and is killed", self.pid)
            self.signal(signal.SIGKILL)

    def reap(self) -> None:
        """Collect the exit status if the process has ended."""
        if self.status is not None:
            return
        pid, status = os.waitpid(self.pid, os.WNOHANG)
        if pid:
            self.status = os.waitstatus_to_exitcode(status)
            self.ended.set()

    async def end(self, deadline: float) -> bool:
        """Ask the process to drain; kill it after ``deadline`` seconds. Return whether it ended by itself."""
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
        """Read the remaining heartbeats."""
        await asyncio.gather(self._listener, return_exceptions=True)

    async def _listen(self) -> None:
        reader, writer = await asyncio.open_unix_connection(sock=self._channel, limit=_MAX_HEARTBEAT)
        self._writer = writer
        self.send(self._unsent)
        self._unsent = []
        try:
            while line := await reader.readline():
                self.heartbeat = self._decoder.decode(line)
                self.last_seen = asyncio.get_running_loop().time()
                self._on_heartbeat()
        except (OSError, ValueError) as error:  # killed in the middle of a line
            _log.debug("process %d: %s", self.pid, error)
        finally:
            writer.close()
