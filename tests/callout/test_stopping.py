"""The service stops soon, and says why it waited, while a real broker is gone or frozen."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from broker_auth.sandbox.natsserver import NatsServer
from tests.callout.deployment import FleetDeployment

pytestmark = pytest.mark.e2e


@pytest.fixture(scope="module")
def deployment(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FleetDeployment]:
    deployment = FleetDeployment(tmp_path_factory.mktemp("stopping"), ("east", "west"))
    deployment.write_config("plugin.broker_auth.audit.output = nats:broker-auth.audit")
    deployment.render_again()
    with deployment.running():
        yield deployment


def frozen(server: NatsServer) -> Callable[[], None]:
    """Stop a server from running, while its connections stay open; return a function that undoes it."""
    os.kill(server.pid, signal.SIGSTOP)
    return lambda: os.kill(server.pid, signal.SIGCONT)


def gone(server: NatsServer) -> Callable[[], None]:
    server.stop()
    return server.start


@pytest.mark.parametrize(
    ("trouble", "reason"),
    [
        (frozen, "broker east: not drained: it has sent nothing for 1.5 s, frozen or unreachable"),
        (gone, "broker east: not connected while stopping"),
    ],
)
async def test_stops_without_waiting_for_a_broker(
    deployment: FleetDeployment, trouble: Callable[[NatsServer], Callable[[], None]], reason: str
) -> None:
    with deployment.service("--workers", "1", name=trouble.__name__) as service:
        client = await deployment.connect("east")  # leaves an audit record to publish
        await client.close()
        undo = trouble(deployment.servers["east"])
        try:
            if trouble is gone:
                await service.logged("broker east: disconnected")
            service.signal(signal.SIGTERM)
            assert await asyncio.to_thread(service.wait) == 0
        finally:
            undo()
    log = await asyncio.to_thread(Path(service.log_file).read_text)
    assert reason in log
    assert "broker west: not" not in log
    assert "did not drain" not in log
    assert "stopped; every request of a reachable broker is answered" in log
