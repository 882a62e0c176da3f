"""A NATS client that enforces TLS, and bounds the memory and time that a server can make it spend.

INFO comes before TLS, so a machine in the middle can claim that TLS is not needed. nats-py then sends its
CONNECT in clear, with the password or a signature of another server's nonce, regardless of the URL and the
TLS context (docs/nats-server.md, fact 22: INFO is sent before TLS).

A nats-server with ``handshake_first: true`` is silent until TLS is up. nats-py supports that only if configured.
This client detects it: if TLS is required and INFO does not arrive, it begins TLS. That is safe, because TLS first
is never weaker than INFO first. The result is cached for each address, and removed on failure, so that for a server
which was merely slow the other way is tried next time.
"""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from typing import Any, ClassVar, Final

from nats.aio.client import Client
from nats.errors import Error, ProtocolError

from broker_auth.cache import BoundedCache
from broker_auth.natsio.framing import FramedParser
from broker_auth.natsio.natspy import ExtendedClient

INFO_SECONDS: Final = 1.0  # nats-server sends INFO at once; with `handshake_first: auto` after 50 ms
_CLOSE_SECONDS: Final = 2.0
_WEBSOCKET: Final = ("ws", "wss")  # `wss` is TLS from the first byte; `ws` never is
_ADDRESSES: Final = 1024  # cached; a cluster can announce any number of addresses

_tls_first: BoundedCache[str, bool] = BoundedCache(_ADDRESSES)


class NoTLSError(Error):
    """The server, or a machine in the middle, does not offer TLS on a connection that requires it."""

    def __str__(self) -> str:
        return "the server offers no TLS, or a machine in the middle hides the offer; nothing was sent"


class HandshakeFirstError(Error):
    """A server was silent, and the TLS handshake failed too."""

    def __init__(self, reason: BaseException) -> None:
        super().__init__()
        self._reason = str(reason) or type(reason).__name__

    def __str__(self) -> str:
        return f"the server sent no INFO, and TLS without INFO (handshake_first) failed too: {self._reason}"


class SecuredClient(ExtendedClient):
    """A NATS client that sends nothing in clear if it has a TLS context or a ``tls://`` URL.

    Attributes:
        max_message_bytes: a larger message ends the connection.
        server_version: version of the connected nats-server, as it reports.
        account: account that the server assigned to this client; empty if not reported (before 2.12 or so).
    """

    max_message_bytes: ClassVar[int] = 8 * 1024 * 1024  # the maximum that nats-server recommends

    def __init__(self) -> None:
        super().__init__()
        self.server_version = ""
        self.account = ""
        self._ps = FramedParser(self)

    @property
    def unsent(self) -> int:
        """Bytes queued in this process because the server has not read earlier ones."""
        writer, buffered = self._writer(), 0
        if writer is not None:
            with contextlib.suppress(AttributeError):  # raised for a TLS connection that has ended (CPython 3.11)
                buffered = writer.transport.get_write_buffer_size()
        return int(self._pending_data_size) + buffered

    def abort(self) -> None:
        """Discard unsent data and end the connection immediately; nats-py would wait until all is sent."""
        self._pending = []
        self._pending_data_size = 0
        writer = self._writer()
        with contextlib.suppress(Exception):  # the connection is gone in any case
            if writer is not None:
                writer.transport.abort()
            elif self._transport:
                self._transport._ws._writer.transport.abort()  # type: ignore[attr-defined]  # aiohttp's

    async def _close(self, status: int, do_cbs: bool = True) -> None:
        """Close the connection within bounded time, in any state."""
        if self.unsent:
            self.abort()
        try:
            async with asyncio.timeout(_CLOSE_SECONDS):
                await super()._close(status, do_cbs)
        except TimeoutError:
            self.abort()

    def _writer(self) -> asyncio.StreamWriter | None:
        """Return the stream of a TCP or TLS connection; None before it is connected, and for WebSocket."""
        writer = getattr(self._transport, "_io_writer", None)
        return writer if isinstance(writer, asyncio.StreamWriter) else None

    async def begins_with_tls(self) -> bool:
        """Return whether TLS comes before INFO at this server: from the cache, or detected by its silence."""
        if not self._must_have_tls():
            return False
        known = _tls_first.get(self.address)
        if known:
            return True
        seconds = INFO_SECONDS if known is None else float(self.options["connect_timeout"])
        first = not await self.line_comes_within(seconds)
        _tls_first.put(self.address, first)
        return first

    def tls_first_failed(self, error: Exception) -> None:
        """Wait for INFO the next time, because the server may have been merely slow."""
        _tls_first.put(self.address, False)
        if not isinstance(error, ssl.SSLError) or error.reason == "WRONG_VERSION_NUMBER":
            raise HandshakeFirstError(error) from error

    def before_info(self, info: dict[str, Any], initial: bool) -> None:
        """Store the version and the account; refuse a connection that requires TLS if the server does not start it.

        Also refuse a maximum size that is not a number, because nats-py would compare it with that of each message.
        """
        if type(info.get("max_payload", 0)) is not int:
            raise ProtocolError
        account = info.get("remote_account", "" if initial else self.account)
        self.account = account if isinstance(account, str) else ""
        self.server_version = str(info.get("version", ""))[:32]
        if self.tls_first or not initial or not self._must_have_tls():
            return
        if info.get("tls_required") is not True or self._injected():
            raise NoTLSError

    def _must_have_tls(self) -> bool:
        scheme = self.scheme
        return scheme not in _WEBSOCKET and (scheme == "tls" or self.has_tls_context)

    def _injected(self) -> bool:
        """Return whether plaintext is buffered that nats-py would later treat as received through TLS.

        Plaintext after INFO is a STARTTLS injection. Raises an error if the buffer cannot be inspected.
        """
        return self.buffered()


async def round_trip(client: Client) -> None:
    """Wait until the server has processed everything sent so far.

    nats-py writes the PING of ``flush`` at once, ahead of commands that still wait for its flusher; the
    second PING comes after them.

    Raises:
        nats.errors.Error: the connection is closed or does not answer.
    """
    await client.flush()
    await client.flush()
