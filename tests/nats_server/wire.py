"""A minimal NATS client that exposes the protocol lines that client libraries hide."""

from __future__ import annotations

import asyncio
import contextlib
import json
import ssl
from typing import Any, Self

from tests.deadlines import HANG_SECONDS


class Wire:
    """A connection to a client port, after INFO.

    Attributes:
        info: the server's INFO, received before the TLS handshake.
    """

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, info: dict[str, Any]) -> None:
        self.info = info
        self._reader = reader
        self._writer = writer

    @classmethod
    async def open(cls, port: int, tls: ssl.SSLContext | None = None) -> Self:
        """Connect, read INFO, and start TLS if requested."""
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        async with asyncio.timeout(HANG_SECONDS):
            line = await reader.readline()
        wire = cls(reader, writer, json.loads(line.removeprefix(b"INFO ")))
        if tls is not None:
            try:
                await writer.start_tls(tls, server_hostname="127.0.0.1")
            except BaseException:
                writer.close()
                raise
        return wire

    @property
    def certificate(self) -> bytes:
        """The server's certificate in DER."""
        certificate: bytes = self._writer.get_extra_info("ssl_object").getpeercert(binary_form=True)
        return certificate

    async def connect(self, **options: Any) -> None:
        """Send CONNECT with these options, and a PING: its PONG means that the connection was accepted."""
        connect = {"verbose": False, "pedantic": False, "lang": "wire", "version": "1", "protocol": 1, **options}
        await self.send(f"CONNECT {json.dumps(connect)}\r\nPING\r\n")

    async def send(self, text: str) -> None:
        """Send protocol text unchanged."""
        self._writer.write(text.encode())
        with contextlib.suppress(ConnectionError):  # already refused; the error can still be read
            await self._writer.drain()

    async def line(self) -> str:
        """Return the next line; empty after the server has closed the connection."""
        async with asyncio.timeout(HANG_SECONDS):
            try:
                return (await self._reader.readline()).decode().rstrip("\r\n")
            except (ConnectionError, ssl.SSLError):
                return ""

    async def verdict(self) -> str:
        """Return ``PONG`` if the connection was accepted, else the server's error, or empty if it only closed."""
        while (line := await self.line()).startswith(("PING", "INFO", "+OK")):
            pass
        return line

    async def login(self, **options: Any) -> str:
        """Send CONNECT with these options; return the result as :meth:`verdict` does."""
        await self.connect(**options)
        return await self.verdict()

    async def close(self) -> None:
        """Close the connection in any state."""
        self._writer.close()
        with contextlib.suppress(OSError, ssl.SSLError):
            await self._writer.wait_closed()
