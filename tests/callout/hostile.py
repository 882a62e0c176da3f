"""A broker under an attacker's control: it speaks enough NATS for subscriptions, then does what a test needs."""

from __future__ import annotations

import asyncio
import contextlib
import json
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, Final

from broker_auth.natsio.subjects import PEERS_SUBJECT

INFO: Final = {"server_id": "N", "version": "2.15.1", "proto": 1, "headers": True, "max_payload": 1048576}
PEERS: Final = PEERS_SUBJECT.encode()
REQUEST: Final = b"$SYS.REQ.USER.AUTH"


class HostileBroker:
    """A listener that uses one connection: the newest, after its TLS handshake if there is TLS.

    Attributes:
        connections: number of connections so far.
        answers: payloads published to it, in order.
        subscribed: set when the newest connection has subscribed to requests.
    """

    def __init__(self, port: int, *, tls: ssl.SSLContext | None = None, **info: Any) -> None:
        self.port = port
        self._tls = tls
        self.connections = 0
        self.answers: asyncio.Queue[tuple[str, bytes]] = asyncio.Queue()
        self.subscribed = asyncio.Event()
        self.reading = True
        self._info = INFO | info | ({"tls_required": True} if tls else {})
        self._sids: dict[bytes, bytes] = {}
        self._writer: asyncio.StreamWriter | None = None
        self._writers: list[asyncio.StreamWriter] = []
        self._tasks: set[asyncio.Task[None]] = set()

    @asynccontextmanager
    async def listening(self) -> AsyncIterator[HostileBroker]:
        server = await asyncio.start_server(self._meet, "127.0.0.1", self.port, limit=1024 * 1024)
        try:
            yield self
        finally:
            server.close()
            for task in self._tasks:
                task.cancel()
            for writer in self._writers:
                writer.transport.abort()
            await asyncio.gather(*self._tasks, return_exceptions=True)
            await asyncio.gather(*(writer.wait_closed() for writer in self._writers), return_exceptions=True)

    def stop_reading(self) -> None:
        """Stop reading the newest connection, so that its data piles up."""
        self.reading = False
        assert self._writer is not None
        self._writer.transport.pause_reading()  # type: ignore[attr-defined]  # a socket's transport has it

    def announce(self, **info: Any) -> None:
        """Send other content in the INFO of later connections."""
        self._info |= info

    def end(self) -> None:
        """End the newest connection."""
        assert self._writer is not None
        self._writer.transport.abort()

    def send(self, data: bytes) -> None:
        """Send raw bytes on the newest connection."""
        assert self._writer is not None
        self._writer.write(data)

    def ask(self, data: bytes, reply: str, subject: bytes = REQUEST, header: bytes = b"") -> None:
        """Send a message to the subscriber of a subject, with one header line or none.

        Raises:
            KeyError: the newest connection has not subscribed to it yet.
        """
        verb, sizes = b"MSG", b"%d" % len(data)
        if header:
            lines = b"NATS/1.0\r\n" + header + b"\r\n\r\n"
            verb, sizes, data = b"HMSG", b"%d %d" % (len(lines), len(lines) + len(data)), lines + data
        self.send(b"%b %b %b %b %b\r\n" % (verb, subject, self._sids[subject], reply.encode(), sizes) + data + b"\r\n")

    async def flush(self) -> None:
        """Return once what was sent has left this process."""
        assert self._writer is not None
        await self._writer.drain()

    async def _meet(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        self.connections += 1
        self._writers.append(writer)
        self.subscribed.clear()
        writer.write(b"INFO " + json.dumps(self._info).encode() + b"\r\n")
        # Cancelled at the end; asyncio would report that as an error of this connection (CPython 3.11).
        with contextlib.suppress(OSError, asyncio.IncompleteReadError, asyncio.CancelledError):
            if self._tls is not None:
                await writer.start_tls(self._tls)
            self._writer, self._sids, self.reading = writer, {}, True
            await self._talk(reader, writer)
        writer.close()

    async def _talk(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while line := await reader.readline():
            words = line.split()
            match words[0]:
                case b"PING":
                    writer.write(b"PONG\r\n")
                case b"SUB":
                    self._sids[words[1]] = words[-1]
                    if words[1] == REQUEST:
                        self.subscribed.set()
                case b"PUB":
                    payload = await reader.readexactly(int(words[-1]) + 2)
                    if words[1] != PEERS:  # messages between workers are not answers
                        self.answers.put_nowait((words[1].decode(), payload[:-2]))
