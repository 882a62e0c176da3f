"""A client that speaks the NATS protocol by hand: it shows what client libraries hide."""

from __future__ import annotations

import asyncio
import contextlib
import json
import ssl
from typing import Any, Self

from tests.deadlines import HANG_SECONDS


class Wire:
    """One connection to a client port, from INFO on.

    Attributes:
        info: the server's INFO, which it sends before TLS.
    """

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, info: dict[str, Any]) -> None:
        self.info = info
        self._reader = reader
        self._writer = writer

    @classmethod
    async def open(cls, port: int, tls: ssl.SSLContext | None = None) -> Self:
        """Connect and read INFO, then TLS."""
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
        """What the server showed in TLS, DER."""
        shown: bytes = self._writer.get_extra_info("ssl_object").getpeercert(binary_form=True)
        return shown

    async def connect(self, **options: Any) -> None:
        """Send CONNECT with these options only, and the PING whose answer tells that it was accepted."""
        said = {"verbose": False, "pedantic": False, "lang": "wire", "version": "1", "protocol": 1, **options}
        await self.send(f"CONNECT {json.dumps(said)}\r\nPING\r\n")

    async def send(self, text: str) -> None:
        """Send protocol text as it is."""
        self._writer.write(text.encode())
        with contextlib.suppress(ConnectionError):  # refused already: what it said is still to be read
            await self._writer.drain()

    async def line(self) -> str:
        """The next line; empty once the server has closed the connection."""
        async with asyncio.timeout(HANG_SECONDS):
            try:
                return (await self._reader.readline()).decode().rstrip("\r\n")
            except (ConnectionError, ssl.SSLError):
                return ""

    async def verdict(self) -> str:
        """``PONG`` if the connection was let in, the server's error if not, empty if it just closed."""
        while (line := await self.line()).startswith(("PING", "INFO", "+OK")):
            pass
        return line

    async def login(self, **options: Any) -> str:
        """CONNECT with these options; what came of it, as :meth:`verdict` says."""
        await self.connect(**options)
        return await self.verdict()

    async def close(self) -> None:
        """Close it, whatever state it is in."""
        self._writer.close()
        with contextlib.suppress(OSError, ssl.SSLError):
            await self._writer.wait_closed()
