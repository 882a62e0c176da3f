"""The HTTP endpoint serves three pages and survives misbehaving clients."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from dataclasses import replace

import pytest
from prometheus_client import CollectorRegistry

from broker_auth.daemon.health import Endpoint, Health, listen
from broker_auth.daemon.metrics import ServiceCollector
from broker_auth.daemon.state import ZoneState
from broker_auth.errors import OperationError


class RunningEndpoint:
    """A running endpoint with a settable health."""

    def __init__(self) -> None:
        self.health = Health(alive=True, ready=True, detail={"workers": 1})
        registry = CollectorRegistry()
        registry.register(ServiceCollector(lambda: [ZoneState(zone="fleet")], lambda: 0.0))
        self.endpoint = Endpoint(registry, lambda zone: self.health if zone in (None, "fleet") else None)
        self.listener = listen("127.0.0.1:0")
        self.port: int = self.listener.getsockname()[1]

    async def raw(self, request: bytes) -> bytes:
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        writer.write(request)
        answer = await reader.read()
        writer.close()
        return answer

    async def get(self, path: str, method: str = "GET", **headers: str) -> tuple[int, str, str]:
        """Return status, head and body."""
        lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
        answer = await self.raw(f"{method} {path} HTTP/1.1\r\nHost: x\r\n{lines}\r\n".encode())
        head, _, body = answer.decode().partition("\r\n\r\n")
        return int(head.split(" ")[1]), head, body


@pytest.fixture
async def endpoint() -> AsyncIterator[RunningEndpoint]:
    made = RunningEndpoint()
    task = asyncio.create_task(made.endpoint.serve(made.listener))
    yield made
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


@pytest.mark.parametrize(
    ("alive", "ready", "healthz", "readyz"),
    [(True, True, 200, 200), (True, False, 200, 503), (False, False, 503, 503)],
)
async def test_health_checks_answer_with_the_status(
    endpoint: RunningEndpoint, alive: bool, ready: bool, healthz: int, readyz: int
) -> None:
    endpoint.health = replace(endpoint.health, alive=alive, ready=ready)
    status, _, body = await endpoint.get("/healthz")
    assert status == healthz
    assert json.loads(body) == {"ok": alive, "workers": 1}
    assert (await endpoint.get("/readyz"))[0] == readyz


async def test_metrics_are_served_in_the_requested_format(endpoint: RunningEndpoint) -> None:
    _, head, body = await endpoint.get("/metrics")
    assert "Content-Type: text/plain" in head
    assert 'broker_auth_workers_wanted{zone="fleet"} 1.0' in body
    _, head, body = await endpoint.get("/metrics", Accept="application/openmetrics-text; version=1.0.0")
    assert "Content-Type: application/openmetrics-text" in head
    assert body.endswith("# EOF\n")


async def test_head_has_no_body(endpoint: RunningEndpoint) -> None:
    status, head, body = await endpoint.get("/healthz", "HEAD")
    assert (status, body) == (200, "")
    assert "Content-Length: 27" in head


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [("GET", "/", 404), ("GET", "/metrics/../etc", 404), ("POST", "/metrics", 405), ("GET", "/healthz?verbose=1", 200)],
)
async def test_unsupported_requests_are_refused(endpoint: RunningEndpoint, method: str, path: str, status: int) -> None:
    assert (await endpoint.get(path, method))[0] == status


@pytest.mark.parametrize("junk", [b"\r\n\r\n", b"\x00\xff\r\n\r\n", b"GET\r\n\r\n", b"x" * 100_000 + b"\r\n\r\n"])
async def test_malformed_request_does_not_stop_the_server(endpoint: RunningEndpoint, junk: bytes) -> None:
    with contextlib.suppress(ConnectionError):  # closed before everything was read
        await endpoint.raw(junk)
    assert (await endpoint.get("/healthz"))[0] == 200


async def test_silent_clients_do_not_block_others(endpoint: RunningEndpoint) -> None:
    silent = [await asyncio.open_connection("127.0.0.1", endpoint.port) for _ in range(5)]
    assert (await endpoint.get("/healthz"))[0] == 200
    for _, writer in silent:
        writer.close()


def test_address_in_use_raises() -> None:
    with listen("127.0.0.1:0") as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        with pytest.raises(OperationError, match=r"metrics\.listen: cannot listen on"):
            listen(address)


def test_ipv6_address_is_accepted() -> None:
    with listen("[::1]:0") as listener:
        assert listener.getsockname()[0] == "::1"
