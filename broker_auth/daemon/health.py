"""``/metrics``, ``/healthz`` and ``/readyz``: a small HTTP server in the supervisor's loop.

GET and HEAD of a few paths, one request a connection, everything bounded. Plain HTTP, no
authentication: meant for loopback or a trusted network.
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
_SECONDS: Final = 5.0  # a client has for its request, and for taking the answer
_MAX_CLIENTS: Final = 32


@dataclass(frozen=True, slots=True)
class Health:
    """What the two checks answer.

    Attributes:
        alive: a worker runs and has been heard lately.
        ready: every broker can ask a worker, and the service is not stopping.
        detail: shown with both.
    """

    alive: bool
    ready: bool
    detail: dict[str, object]


@dataclass(frozen=True, slots=True)
class _Answer:
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
    """A listening socket at ``host:port``.

    Opened here and not by asyncio, which would look the name up in a thread: this process forks.

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
            f"plugin.broker_auth.metrics.listen: {address} cannot be listened on ({reason}); choose another"
        ) from error


class Endpoint:
    """Serves one listening socket."""

    def __init__(self, registry: CollectorRegistry, health: Callable[[str | None], Health | None]) -> None:
        """``health`` returns that of the service, or of the zone it is given; None for an unknown zone."""
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
            pass  # the client's trouble, and only its own
        finally:
            self._clients -= 1
            writer.close()

    async def _answered(self, reader: asyncio.StreamReader) -> bytes:
        head = await reader.readuntil(b"\r\n\r\n")
        request, *lines = head.decode("latin-1").split("\r\n")
        method, _, rest = request.partition(" ")
        headers = {name.strip().lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
        if method not in ("GET", "HEAD"):
            return _Answer(HTTPStatus.METHOD_NOT_ALLOWED, b"only GET and HEAD\n").encoded(with_body=True)
        path = rest.partition(" ")[0].partition("?")[0]
        return self._page(path, headers.get("accept", "")).encoded(with_body=method == "GET")

    def _page(self, path: str, accept: str) -> _Answer:
        match path:
            case "/metrics":
                encoder, content_type = choose_encoder(accept)
                return _Answer(HTTPStatus.OK, encoder(self._registry), content_type)
            case "/healthz" | "/readyz":
                return self._checked(path, None)
        check, _, zone = path.rpartition("/")
        if check in ("/healthz", "/readyz") and zone:
            return self._checked(check, zone)
        return _Answer(HTTPStatus.NOT_FOUND, b"/metrics, /healthz, /readyz, /healthz/ZONE or /readyz/ZONE\n")

    def _checked(self, check: str, zone: str | None) -> _Answer:
        health = self._health(zone)
        if health is None:
            return _Answer(HTTPStatus.NOT_FOUND, b"this zone is not served here\n")
        return _check(health.alive if check == "/healthz" else health.ready, health.detail)


def _check(good: bool, detail: dict[str, object]) -> _Answer:
    status = HTTPStatus.OK if good else HTTPStatus.SERVICE_UNAVAILABLE
    return _Answer(status, json.dumps({"ok": good} | detail).encode() + b"\n", "application/json")
