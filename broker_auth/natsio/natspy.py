"""All uses of nats-py's private parts, in one place, and a check that these parts exist.

nats-py has no public interface to inspect INFO before it is processed, to add options to CONNECT, or to end a
connection without the TLS closing handshake. A release that renames one of these parts must stop the program with
one line, never weaken it: a check that cannot inspect its subject refuses the connection.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from functools import cache
from importlib.metadata import version
from typing import Any, Final

from nats.aio.client import Client
from nats.aio.subscription import Subscription
from nats.aio.transport import TcpTransport
from nats.errors import Error
from nats.protocol.parser import Parser

from broker_auth.errors import OperationError

PRIVATE: Final[dict[str, frozenset[str]]] = {
    "Client": frozenset(
        {
            "_close",
            "_connect_command",
            "_current_server",
            "_error_cb",
            "_process_connect_init",
            "_flush_queue",
            "_max_payload",
            "_pending",
            "_pending_data_size",
            "_pongs",
            "_process_err",
            "_process_info",
            "_process_msg",
            "_process_pong",
            "_process_op_err",
            "_ps",
            "_read_loop",
            "_send_unsubscribe",
            "_server_info",
            "_transport",
        }
    ),
    "TcpTransport": frozenset({"_bare_io_reader", "_bare_io_writer", "_io_reader", "_io_writer"}),
    "Parser": frozenset({"buf", "needed", "parse", "reset", "state"}),
    "Subscription": frozenset({"_id"}),
    "StreamReader": frozenset({"_buffer"}),
}
"""The undocumented attributes and methods in use, by class."""


class ChangedError(Error):
    """A part of nats-py that a connection depends on is missing."""

    def __str__(self) -> str:
        return f"nats-py {version('nats-py')} is not compatible with this version of broker-auth; nothing was sent"


class _PeekingTransport(TcpTransport):
    """A transport that can wait for the first line and keep it until it is read."""

    def __init__(self, connected: TcpTransport) -> None:
        """Take over a connection from nats-py."""
        super().__init__()  # type: ignore[no-untyped-call]
        self.__dict__.update(connected.__dict__)
        self._line: bytes | None = None

    async def line_comes_within(self, seconds: float) -> bool:
        """Wait for the first line; return True also if the connection ends, which reading the line will report."""
        try:
            async with asyncio.timeout(seconds):
                self._line = await super().readline()  # type: ignore[no-untyped-call]
        except TimeoutError:
            return False
        return True

    async def readline(self) -> bytes:
        if self._line is not None:
            line, self._line = self._line, None
            return line
        received: bytes = await super().readline()  # type: ignore[no-untyped-call]
        return received


class ExtendedClient(Client):
    """nats-py's client with additional hooks.

    Attributes:
        has_tls_context: whether it has a TLS context.
        tls_first: whether TLS came before INFO on this connection.
    """

    def __init__(self) -> None:
        """Check nats-py, without connecting.

        Raises:
            OperationError: a part of nats-py is missing (:func:`check`).
        """
        check()
        super().__init__()
        self.has_tls_context = False
        self.tls_first = False

    async def connect(self, servers: str | list[str], **options: Any) -> None:  # type: ignore[override]
        """Connect as nats-py does, with keyword options only."""
        self.has_tls_context = options.get("tls") is not None
        await super().connect(servers, **options)

    def before_info(self, info: dict[str, Any], initial: bool) -> None:
        """Handle an INFO before nats-py does; raise :class:`nats.errors.Error` to give up the connection.

        Args:
            info: the content of INFO. The first one comes in clear.
            initial: whether it is the first INFO of this connection.
        """

    async def begins_with_tls(self) -> bool:
        """Return whether to begin TLS before INFO; called on each new connection."""
        return False

    def tls_first_failed(self, error: Exception) -> None:
        """Handle a failure of TLS before INFO; may raise another error instead."""

    async def line_comes_within(self, seconds: float) -> bool:
        """Return whether the server sends a line on a new TCP connection in time; always True on a WebSocket."""
        if not isinstance(self._transport, TcpTransport):
            return True
        self._transport = transport = _PeekingTransport(self._transport)
        return await transport.line_comes_within(seconds)

    def connect_options(self) -> dict[str, Any]:
        """Return options of CONNECT that are added to those of nats-py, or replace them."""
        return {}

    @property
    def scheme(self) -> str:
        """The scheme of this connection's URL. Raises :class:`ChangedError` if it cannot be read."""
        try:
            return str(self._current_server.uri.scheme)  # type: ignore[union-attr]
        except AttributeError as error:
            raise ChangedError from error

    @property
    def address(self) -> str:
        """The host and port of this connection. Raises :class:`ChangedError` if they cannot be read."""
        try:
            return str(self._current_server.uri.netloc)  # type: ignore[union-attr]
        except AttributeError as error:
            raise ChangedError from error

    @property
    def nonce(self) -> str:
        """The nonce in the server's INFO; empty if absent."""
        return str(self._server_info.get("nonce") or "")

    @property
    def server_id(self) -> str:
        """The id in the server's INFO; empty if absent."""
        return str(self._server_info.get("server_id") or "")

    @property
    def certificate(self) -> bytes | None:
        """The server's certificate (DER) on this TCP connection; None without TLS, on a WebSocket or unconnected."""
        writer = getattr(self._transport, "_io_writer", None)
        tls = None if writer is None else writer.get_extra_info("ssl_object")
        data: bytes | None = None if tls is None else tls.getpeercert(binary_form=True)
        return data

    def buffered(self) -> bool:
        """Return whether received bytes of this TCP connection are buffered, not yet read by nats-py.

        Raises:
            ChangedError: the buffer cannot be inspected.
        """
        try:
            return bool(self._transport._io_reader._buffer)  # type: ignore[union-attr]
        except AttributeError as error:
            raise ChangedError from error

    def abort(self) -> None:
        """End the connection without the TLS closing handshake, which a server does not answer while it is deciding."""
        writer = getattr(self._transport, "_io_writer", None)  # None before it is connected, and for WebSocket
        if writer is not None:
            writer.transport.abort()

    async def _process_connect_init(self) -> None:
        server = self._current_server
        if server is not None and server.tls_name is None and (server.uri.hostname or "").endswith("."):
            server.tls_name = str(server.uri.hostname).rstrip(".")  # names in certificates have no final dot
        self.tls_first = await self.begins_with_tls()
        self.options["tls_handshake_first"] = self.tls_first
        try:
            await super()._process_connect_init()
        except (OSError, TimeoutError, asyncio.IncompleteReadError) as error:
            if self.tls_first:
                self.tls_first_failed(error)
            raise

    async def _process_info(self, info: dict[str, Any], initial_connection: bool = False) -> None:
        self.before_info(info, initial_connection)
        await super()._process_info(info, initial_connection)

    def _connect_command(self) -> bytes:
        command = super()._connect_command()
        if options := self.connect_options():
            verb, _, written = command.partition(b" ")
            command = verb + b" " + json.dumps(json.loads(written) | options).encode() + b"\r\n"
        return command


async def unsubscribe(client: Client, subscription: Subscription) -> None:
    """Send UNSUB but still deliver received messages, unlike ``Subscription.unsubscribe``."""
    await client._send_unsubscribe(subscription._id)


async def violates(client: Client, action: Callable[[], Awaitable[object]]) -> bool:
    """Perform an action and return whether the server reports a permissions violation, which it does before PONG."""
    violations: list[str] = []
    before = client._error_cb

    async def hear(error: Exception) -> None:
        if "permissions violation" in str(error).lower():
            violations.append(str(error))

    client._error_cb = hear
    try:
        await action()
        for _ in range(2):  # the first PONG may belong to an earlier PING
            await client.flush()
    except Error:
        return bool(violations)
    finally:
        client._error_cb = before
    return bool(violations)


@cache
def check() -> None:
    """Check that every private part of nats-py in use exists.

    Raises:
        OperationError: a part is missing.
    """
    missing = sorted(
        f"{kind}.{name}" for kind, made in _made().items() for name in PRIVATE[kind] if not hasattr(made, name)
    )
    if missing:
        raise OperationError(
            f"nats-py {version('nats-py')} lacks {', '.join(missing)}, which this version of broker-auth needs; "
            "install the nats-py that it was released with: pip install 'nats-py>=2.15,<3'"
        )


def _made() -> dict[str, object]:
    """Return an object of each class in :data:`PRIVATE`, because most attributes are set in constructors."""
    client = Client()
    loop = asyncio.new_event_loop()
    try:
        reader = asyncio.StreamReader(loop=loop)
    finally:
        loop.close()
    return {
        "Client": client,
        "TcpTransport": TcpTransport(),  # type: ignore[no-untyped-call]
        "Parser": Parser(client),
        "Subscription": Subscription(client, 1),
        "StreamReader": reader,
    }
