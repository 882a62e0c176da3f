"""A NATS client that insists on TLS: nats-py alone lets the server decide, in clear.

INFO comes before TLS, so a machine between client and server can claim that none is needed. nats-py then
sends its CONNECT in clear, with the password or a signature of another server's nonce, whatever the URL
and the TLS context are (docs/nats-server.md, fact 22: INFO is sent before TLS).

A nats-server with ``handshake_first: true`` is silent until TLS is up. nats-py can do that, but has to be told.
This client finds out: where TLS is wanted and no INFO comes, it begins TLS. That gives nothing away, for TLS
first is never weaker than INFO first. What was found is remembered for each address, and forgotten when it fails,
so that a server which was merely slow is met in the other way the next time.
"""

from __future__ import annotations

import ssl
from typing import Any, Final

from nats.errors import Error

from broker_auth.cache import BoundedCache
from broker_auth.natspy import ExtendedClient

INFO_SECONDS: Final = 1.0  # nats-server sends INFO at once; with `handshake_first: auto` after 50 ms
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


class SecuredClient(ExtendedClient):
    """Sends nothing in clear once it was given a TLS context or a ``tls://`` URL."""

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
        """Refuse a connection that must have TLS and is not about to get it."""
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
