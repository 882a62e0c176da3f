"""``/metrics``, ``/healthz`` and ``/readyz``: a small HTTP server in the supervisor's loop.

Serves GET and HEAD of a few paths, one request per connection, with limits on size, time and clients. Plain HTTP
without authentication: for loopback or a trusted network.
"""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import Callable
from dataclasses import dataclass
from http import HTTPStatus
from typing import Final

from prometheus_client import CollectorRegistry
from prometheus_client.exposition import choose_encoder

from broker_auth.errors import OperationError

_MAX_HEAD: Final = 8192  # bytes of a request
_SECONDS: Final = 5.0  # for a client to send its request and read the answer
_MAX_CLIENTS: Final = 32


@dataclass(frozen=True, slots=True)
class Health:
    """The state that both health checks report.

    Attributes:
        alive: a worker runs and has sent a heartbeat recently.
        ready: a worker is subscribed at every broker, and the service is not stopping.
        detail: further data in both answers.
    """

    alive: bool
    ready: bool
    detail: dict[str, object]


@dataclass(frozen=True, slots=True)
class _HttpAnswer:
    status: HTTPStatus
    body: bytes
    content_type: str = "text/plain; charset=utf-8"

    def encoded(self, *, with_body: bool) -> bytes:
        head = (
            f"HTTP/1.1 {self.status.value} {self.status.phrase}\r\nContent-Type: {self.content_type}\r\n"
            f"Content-Length: {len(self.body)}\r\nCache-Control: no-store\r\nConnection: close\r\n\r\n"
        )
        return head.encode("ascii") + (self.body if with_body else b"")


def listen(address: str) -> socket.socket:
    """Open a listening socket at ``host:port``.

    Not by asyncio, which would resolve the name in a thread: this process forks.

    Raises:
        OperationError: the address cannot be used.
    """
    host, _, port = address.rpartition(":")
    host = host.strip("[]")
    try:
        family = socket.getaddrinfo(host, int(port), type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0][0]
        return socket.create_server((host, int(port)), family=family, backlog=_MAX_CLIENTS)
    except OSError as error:
        reason = error.strerror or str(error)
        raise OperationError(
            f"plugin.broker_auth.metrics.listen: cannot listen on {address} ({reason}); choose another address"
        ) from error


class Endpoint:
    """An HTTP server on one listening socket."""

    def __init__(self, registry: CollectorRegistry, health: Callable[[str | None], Health | None]) -> None:
        """Serve nothing yet; ``health`` returns the state of a zone (None: the service), None for an unknown zone."""
        self._registry = registry
        self._health = health
        self._clients = 0

    async def serve(self, listener: socket.socket) -> None:
        """Serve until cancelled."""
        server = await asyncio.start_server(self._on_client, sock=listener, limit=_MAX_HEAD)
        async with server:
            await server.serve_forever()

    async def _on_client(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._clients += 1
        try:
            async with asyncio.timeout(_SECONDS):
                if self._clients <= _MAX_CLIENTS:
                    writer.write(await self._answered(reader))
                    await writer.drain()
        except (OSError, TimeoutError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
            pass  # affects this client only
        finally:
            self._clients -= 1
            writer.close()

    async def _answered(self, reader: asyncio.StreamReader) -> bytes:
        head = await reader.readuntil(b"\r\n\r\n")
        request, *lines = head.decode("latin-1").split("\r\n")
        method, _, rest = request.partition(" ")
        headers = {name.strip().lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
        if method not in ("GET", "HEAD"):
            return _HttpAnswer(HTTPStatus.METHOD_NOT_ALLOWED, b"only GET and HEAD\n").encoded(with_body=True)
        path = rest.partition(" ")[0].partition("?")[0]
        return self._page(path, headers.get("accept", "")).encoded(with_body=method == "GET")

    def _page(self, path: str, accept: str) -> _HttpAnswer:
        match path:
            case "/metrics":
                encoder, content_type = choose_encoder(accept)
                return _HttpAnswer(HTTPStatus.OK, encoder(self._registry), content_type)
            case "/healthz" | "/readyz":
                return self._checked(path, None)
        check, _, zone = path.rpartition("/")
        if check in ("/healthz", "/readyz") and zone:
            return self._checked(check, zone)
        return _HttpAnswer(HTTPStatus.NOT_FOUND, b"/metrics, /healthz, /readyz, /healthz/ZONE or /readyz/ZONE\n")

    def _checked(self, check: str, zone: str | None) -> _HttpAnswer:
        health = self._health(zone)
        if health is None:
            return _HttpAnswer(HTTPStatus.NOT_FOUND, b"this zone is not served here\n")
        return _check(health.alive if check == "/healthz" else health.ready, health.detail)


def _check(good: bool, detail: dict[str, object]) -> _HttpAnswer:
    status = HTTPStatus.OK if good else HTTPStatus.SERVICE_UNAVAILABLE
    return _HttpAnswer(status, json.dumps({"ok": good} | detail).encode() + b"\n", "application/json")
