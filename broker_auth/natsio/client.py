"""A NATS client that insists on TLS, and that no server can make grow or wait: nats-py alone does neither.

INFO comes before TLS, so a machine between client and server can claim that none is needed. nats-py then
sends its CONNECT in clear, with the password or a signature of another server's nonce, whatever the URL
and the TLS context are (docs/nats-server.md, fact 22: INFO is sent before TLS).

A nats-server with ``handshake_first: true`` is silent until TLS is up. nats-py can do that, but has to be told.
This client finds out: where TLS is wanted and no INFO comes, it begins TLS. That gives nothing away, for TLS
first is never weaker than INFO first. What was found is remembered for each address, and forgotten when it fails,
so that a server which was merely slow is met in the other way the next time.
"""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from typing import Any, ClassVar, Final

from nats.aio.client import Client
from nats.errors import Error, ProtocolError
from nats.protocol.parser import AWAITING_MSG_PAYLOAD, Parser

from broker_auth.cache import BoundedCache
from broker_auth.natsio.natspy import ExtendedClient

INFO_SECONDS: Final = 1.0  # nats-server sends INFO at once; with `handshake_first: auto` after 50 ms
_MAX_LINE_BYTES: Final = 256 * 1024  # the longest is INFO, a few KB; nats-py looks at all of it at each read
_CLOSE_SECONDS: Final = 2.0
_WEBSOCKET: Final = ("ws", "wss")  # `wss` is TLS from the first byte; `ws` never is
_ADDRESSES: Final = 1024  # remembered; a cluster can name any number

_tls_first: BoundedCache[str, bool] = BoundedCache(_ADDRESSES)


class NoTLSError(Error):
    """The server, or somebody before it, does not want TLS on a connection that must have it."""

    def __str__(self) -> str:
        return "the server offers no TLS, or somebody on the way to it hides that it does; nothing was sent"


class HandshakeFirstError(Error):
    """A server was silent, and TLS could not be begun with it either."""

    def __init__(self, reason: BaseException) -> None:
        super().__init__()
        self._reason = str(reason) or type(reason).__name__

    def __str__(self) -> str:
        return f"the server sent no INFO, and began no TLS (handshake_first) either: {self._reason}"


class BoundedParser(Parser):
    """Ends the connection to a server that sends more at once than any server has to.

    One in strange hands could otherwise make this process run out of memory.
    """

    def __init__(self, client: SecuredClient) -> None:
        super().__init__(client)
        self._max_message = client.max_message_bytes

    async def parse(self, data: bytes = b"") -> None:
        await super().parse(data)
        in_message = self.state == AWAITING_MSG_PAYLOAD
        if self.needed > self._max_message if in_message else len(self.buf) > _MAX_LINE_BYTES:
            self.reset()
            raise ProtocolError


class SecuredClient(ExtendedClient):
    """Sends nothing in clear once it was given a TLS context or a ``tls://`` URL.

    Attributes:
        max_message_bytes: a larger message ends the connection.
        server_version: of the nats-server it is connected with, as that says.
        account: which account the server put this client in; empty where it does not say (before 2.12 or so).
    """

    max_message_bytes: ClassVar[int] = 8 * 1024 * 1024  # what nats-server thinks the most reasonable

    def __init__(self) -> None:
        super().__init__()
        self.server_version = ""
        self.account = ""
        self._ps = BoundedParser(self)

    @property
    def unsent(self) -> int:
        """Bytes that wait in this process for the server to read others."""
        writer, buffered = self._writer(), 0
        if writer is not None:
            with contextlib.suppress(AttributeError):  # of a TLS connection that has ended (CPython 3.11)
                buffered = writer.transport.get_write_buffer_size()
        return int(self._pending_data_size) + buffered

    def abort(self) -> None:
        """Discard what is unsent and end the connection at once; nats-py would wait until all is sent."""
        self._pending = []
        self._pending_data_size = 0
        writer = self._writer()
        with contextlib.suppress(Exception):  # whatever is wrong with it, it is gone
            if writer is not None:
                writer.transport.abort()
            elif self._transport:
                self._transport._ws._writer.transport.abort()  # type: ignore[attr-defined]  # aiohttp's

    async def _close(self, status: int, do_cbs: bool = True) -> None:
        """Close the connection, whatever state it is in, within bounded time."""
        if self.unsent:
            self.abort()
        try:
            async with asyncio.timeout(_CLOSE_SECONDS):
                await super()._close(status, do_cbs)
        except TimeoutError:
            self.abort()

    def _writer(self) -> asyncio.StreamWriter | None:
        """Return the stream of a TCP or TLS connection; None before there is one, and for WebSocket."""
        writer = getattr(self._transport, "_io_writer", None)
        return writer if isinstance(writer, asyncio.StreamWriter) else None

    async def begins_with_tls(self) -> bool:
        """Return whether TLS comes before INFO at this server: known from before, or told by its silence."""
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
        """Wait for INFO the next time: perhaps the server was only slow."""
        _tls_first.put(self.address, False)
        if not isinstance(error, ssl.SSLError) or error.reason == "WRONG_VERSION_NUMBER":
            raise HandshakeFirstError(error) from error

    def before_info(self, info: dict[str, Any], initial: bool) -> None:
        """Learn the version and the account; refuse a connection that must have TLS and is not about to get it."""
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
        """Return whether plaintext waits that nats-py would later treat as received through TLS.

        Nothing may follow INFO in clear; a STARTTLS injection does. Raises where that cannot be seen.
        """
        return self.buffered()


async def round_trip(client: Client) -> None:
    """Return once the server has processed everything said so far.

    nats-py writes the PING of ``flush`` at once, ahead of commands that still wait for its flusher; the
    second PING comes after them.

    Raises:
        nats.errors.Error: the connection is closed or does not answer.
    """
    await client.flush()
    await client.flush()
