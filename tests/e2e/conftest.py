"""Running sandboxes of each topology, shared by the tests of a module."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from broker_auth.deploy.plan import Topology
from broker_auth.sandbox.sandbox import Sandbox
from broker_auth.settings.model import FleetAuth

WITHOUT_XKEY: dict[str, str | None] = {"plugin.broker_auth.xkey_seed_file": None}

SHAPES = [
    pytest.param((Topology.EDGE, True, FleetAuth.CALLOUT), id="edge-xkey"),
    pytest.param((Topology.EDGE, False, FleetAuth.CALLOUT), id="edge-plain"),
    pytest.param((Topology.EDGE, True, FleetAuth.STATIC), id="edge-static"),
    pytest.param((Topology.WEBSOCKET, True, FleetAuth.CALLOUT), id="websocket-xkey"),
    pytest.param((Topology.WEBSOCKET, False, FleetAuth.CALLOUT), id="websocket-plain"),
    pytest.param((Topology.SINGLE, True, FleetAuth.CALLOUT), id="single-xkey"),
    pytest.param((Topology.SINGLE, False, FleetAuth.CALLOUT), id="single-plain"),
    pytest.param((Topology.MIXED, True, FleetAuth.CALLOUT), id="mixed-xkey", marks=pytest.mark.mixed_server),
]


@pytest.fixture(autouse=True)
def _quiet_asyncio() -> None:
    """Suppress asyncio's warnings about nats-py when TLS refuses a client, which is expected here."""
    logging.getLogger("asyncio").setLevel(logging.ERROR)


@pytest_asyncio.fixture(scope="module", loop_scope="module", params=SHAPES)
async def any_sandbox(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Sandbox]:
    """Yield a running sandbox of each topology, with and without xkey, and of a static fleet."""
    topology, xkey, auth = request.param
    directory = tmp_path_factory.mktemp("sandbox") / "sandbox"
    async with Sandbox(directory, topology, changes={} if xkey else WITHOUT_XKEY, fleet_auth=auth) as sandbox:
        await sandbox.apply_streams()
        yield sandbox


@pytest_asyncio.fixture
async def edge_sandbox(tmp_path: Path) -> AsyncIterator[Sandbox]:
    """Yield a running sandbox of the edge topology for a single test."""
    async with Sandbox(tmp_path / "sandbox") as sandbox:
        yield sandbox


@pytest_asyncio.fixture
async def single_sandbox(tmp_path: Path) -> AsyncIterator[Sandbox]:
    """Yield a running sandbox of the single topology for a single test."""
    async with Sandbox(tmp_path / "sandbox", Topology.SINGLE) as sandbox:
        yield sandbox
