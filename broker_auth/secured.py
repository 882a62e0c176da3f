"""A NATS client that insists on TLS: nats-py alone lets the server decide, in clear.

INFO comes before TLS, so whoever stands between client and server can say that none is needed. nats-py
then sends its CONNECT in clear, with the password or a signature of somebody else's nonce, whatever
the URL and the TLS context say (NATS_FACTS 22: INFO is sent before TLS).
"""

from __future__ import annotations

from typing import Any, Final

from nats.aio.client import Client
from nats.errors import Error

_WEBSOCKET: Final = ("ws", "wss")  # `wss` is TLS from the first byte; `ws` never is


class NoTLSError(Error):
    """The server, or somebody before it, does not want TLS on a connection that must have it."""

    def __str__(self) -> str:
        return "the server offers no TLS, or somebody on the way to it hides that it does; nothing was sent"


class SecuredClient(Client):
    """Sends nothing in clear once it was given a TLS context or a ``tls://`` URL."""

    async def _process_info(self, info: dict[str, Any], initial_connection: bool = False) -> None:
        offered = info.get("tls_required") is True and not self._said_more_in_clear()
        if initial_connection and self._must_have_tls() and not offered:
            raise NoTLSError
        await super()._process_info(info, initial_connection)

    def _must_have_tls(self) -> bool:
        server = self._current_server
        assert server is not None  # INFO comes from one
        scheme = server.uri.scheme
        return scheme not in _WEBSOCKET and (scheme == "tls" or self.options.get("tls") is not None)

    def _said_more_in_clear(self) -> bool:
        """Whether bytes already wait that nats-py would take for the other end's, sent through TLS."""
        reader = getattr(self._transport, "_io_reader", None)
        return bool(getattr(reader, "_buffer", b""))
