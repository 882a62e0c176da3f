"""Running sites, one for each shape of deployment, shared by the tests of a module."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from broker_auth.deploy.plan import Topology
from broker_auth.sandbox.site import Site

WITHOUT_XKEY: dict[str, str | None] = {"plugin.broker_auth.xkey_seed_file": None}

SHAPES = [
    pytest.param((Topology.EDGE, True), id="edge-xkey"),
    pytest.param((Topology.EDGE, False), id="edge-plain"),
    pytest.param((Topology.WEBSOCKET, True), id="websocket-xkey"),
    pytest.param((Topology.WEBSOCKET, False), id="websocket-plain"),
    pytest.param((Topology.SINGLE, True), id="single-xkey"),
    pytest.param((Topology.SINGLE, False), id="single-plain"),
]


@pytest.fixture(autouse=True)
def _quiet_asyncio() -> None:
    """asyncio warns of what nats-py does when TLS refuses a client, which is what is tried here."""
    logging.getLogger("asyncio").setLevel(logging.ERROR)


@pytest_asyncio.fixture(scope="module", loop_scope="module", params=SHAPES)
async def any_site(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Site]:
    """A running site of each topology, xkey on and off."""
    topology, xkey = request.param
    directory = tmp_path_factory.mktemp("site") / "site"
    async with Site(directory, topology, changes={} if xkey else WITHOUT_XKEY) as site:
        await site.apply_streams()
        yield site


@pytest_asyncio.fixture
async def edge_site(tmp_path: Path) -> AsyncIterator[Site]:
    """A site of the edge topology for one test alone."""
    async with Site(tmp_path / "site") as site:
        yield site


@pytest_asyncio.fixture
async def single_site(tmp_path: Path) -> AsyncIterator[Site]:
    """A site of the single topology for one test alone."""
    async with Site(tmp_path / "site", Topology.SINGLE) as site:
        yield site
