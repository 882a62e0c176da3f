"""A NATS client that insists on TLS: nats-py alone lets the server decide, in clear.

INFO comes before TLS, so a machine between client and server can claim that none is needed. nats-py then
sends its CONNECT in clear, with the password or a signature of another server's nonce, whatever the URL
and the TLS context are (docs/nats-server.md, fact 22: INFO is sent before TLS).
"""

from __future__ import annotations

from typing import Any, Final

from nats.errors import Error

from broker_auth.natspy import ExtendedClient

_WEBSOCKET: Final = ("ws", "wss")  # `wss` is TLS from the first byte; `ws` never is


class NoTLSError(Error):
    """The server, or somebody before it, does not want TLS on a connection that must have it."""

    def __str__(self) -> str:
        return "the server offers no TLS, or somebody on the way to it hides that it does; nothing was sent"


class SecuredClient(ExtendedClient):
    """Sends nothing in clear once it was given a TLS context or a ``tls://`` URL."""

    def before_info(self, info: dict[str, Any], initial: bool) -> None:
        """Refuse a connection that must have TLS and is not about to get it."""
        if initial and self._must_have_tls() and (info.get("tls_required") is not True or self._injected()):
            raise NoTLSError

    def _must_have_tls(self) -> bool:
        scheme = self.scheme
        return scheme not in _WEBSOCKET and (scheme == "tls" or self.has_tls_context)

    def _injected(self) -> bool:
        """Return whether plaintext waits that nats-py would later treat as received through TLS.

        Nothing may follow INFO in clear; a STARTTLS injection does. Raises where that cannot be seen.
        """
        return self.buffered()
