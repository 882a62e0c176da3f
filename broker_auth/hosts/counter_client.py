"""A worker's connection to the counter of its host; see :mod:`.counter_wire`."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import os
import socket
from pathlib import Path
from typing import Final

import msgspec

from broker_auth.hosts.counter_wire import MAX_LINE, CountAnswer, CountRequest, peer_of
from broker_auth.policy.counting import Counted, NodeClaim

SECONDS: Final = 0.9  # for a claim; clients give up 2 s after they connected (fact 10)
_RETRY_SECONDS: Final = 0.05  # the process is replaced on a reload
_MAX_UNREAD: Final = 4 * 1024 * 1024  # bytes of requests that the counter has not read


class CounterClient:
    """A client of the counter: connects when it is needed, and again when the counter was replaced."""

    def __init__(self, path: Path) -> None:
        """Connect to nothing yet; ``path`` is that of the socket."""
        self._path = path
        self._ids = itertools.count()
        self._waiting: dict[int, asyncio.Future[Counted]] = {}
        self._writer: asyncio.StreamWriter | None = None
        self._reading: asyncio.Task[None] | None = None
        self._connecting = asyncio.Lock()
        self._retry_at = 0.0

    async def count(self, claim: NodeClaim) -> Counted:
        """Return whether a node is counted; UNKNOWN if the counter does not say so within :data:`SECONDS`."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(SECONDS):
                while True:
                    try:
                        return await self._ask(claim)
                    except OSError:  # to ask again is harmless: a node is counted once
                        await asyncio.sleep(_RETRY_SECONDS)
        return Counted.UNKNOWN

    async def close(self) -> None:
        """Close the connection; claims that wait remain unknown."""
        if self._reading is not None:
            self._reading.cancel()
            await asyncio.gather(self._reading, return_exceptions=True)

    async def _ask(self, claim: NodeClaim) -> Counted:
        """Ask once.

        Raises:
            OSError: the counter cannot be reached, or its connection has ended.
        """
        writer = await self._connected()
        if writer.transport.get_write_buffer_size() > _MAX_UNREAD:
            return Counted.UNKNOWN
        number = next(self._ids)
        request = msgspec.json.encode(CountRequest(id=number, token=claim.token, node=claim.node))
        if len(request) > MAX_LINE:  # the counter would close the connection, on which others wait too
            return Counted.UNKNOWN
        result: asyncio.Future[Counted] = asyncio.get_running_loop().create_future()
        self._waiting[number] = result
        try:
            with contextlib.suppress(RuntimeError):  # of uvloop, if the connection has ended; the reader notices too
                writer.write(request + b"\n")
            return await result
        finally:
            del self._waiting[number]

    async def _connected(self) -> asyncio.StreamWriter:
        """Return the connection; make a new one if it has ended.

        Raises:
            OSError: nobody listens.
        """
        async with self._connecting:
            if self._writer is None:
                now = asyncio.get_running_loop().time()
                if now < self._retry_at:  # the claims that wait together try together
                    raise ConnectionRefusedError(f"{self._path} did not answer just now")
                self._retry_at = now + _RETRY_SECONDS
                reader, self._writer = await asyncio.open_unix_connection(sock=_connect(self._path), limit=MAX_LINE)
                self._reading = asyncio.create_task(self._read(reader, self._writer))
            return self._writer

    async def _read(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Take answers until the connection ends; then all who wait ask again."""
        decoder = msgspec.json.Decoder(CountAnswer)
        try:
            while line := await reader.readline():
                answer = decoder.decode(line)
                waiting = self._waiting.get(answer.id)
                if waiting is not None and not waiting.done():
                    waiting.set_result(answer.counted)
        except (OSError, ValueError):
            pass  # the counter was killed
        finally:
            self._writer = None
            for waiting in self._waiting.values():
                if not waiting.done():
                    waiting.set_exception(ConnectionResetError())
            writer.transport.abort()


def _connect(path: Path) -> socket.socket:
    """Return a connection to the counter, which a user of this host made who may see tokens.

    Raises:
        OSError: nobody listens, or another user does.
    """
    end = socket.socket(socket.AF_UNIX)
    try:
        end.setblocking(False)
        end.connect(str(path))
        peer = peer_of(end)
        if peer is not None and peer.user != os.geteuid():
            raise PermissionError(f"{path} is of another user")
    except OSError:
        end.close()
        raise
    return end
