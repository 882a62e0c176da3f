"""Nodes that use up the connections of the provisioning account do not keep out provisioners."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from nats.aio.client import Client

from broker_auth.deploy.plan import Topology
from broker_auth.sandbox.client import ConnectRefusedError, connect
from broker_auth.sandbox.site import Site
from tests.deadlines import HANG_SECONDS

pytestmark = pytest.mark.e2e
LIMIT = 3
CHANGES: dict[str, str | None] = {
    "plugin.broker_auth.provisioning.limits.max_connections": str(LIMIT),
}


@pytest.mark.parametrize("topology", [Topology.WEBSOCKET, Topology.SINGLE])
async def test_one_token_fills_the_account_and_the_provisioner_gets_in(tmp_path: Path, topology: Topology) -> None:
    async with Site(tmp_path / "site", topology, changes=CHANGES) as site:
        token = site.credentials("node")

        async def node(name: str) -> Client:
            return await connect(site.node_url, name, token)

        nodes = [await node(f"node{number}") for number in range(LIMIT)]
        with pytest.raises(ConnectRefusedError):
            await node("one-more")
        denied = site.audit_record("one-more")
        assert denied is not None
        assert (denied.rule, denied.code) == ("provisioning", "provisioning_full")
        rush = await asyncio.gather(*(node(f"rush{number}") for number in range(20)), return_exceptions=True)
        assert all(isinstance(outcome, ConnectRefusedError) for outcome in rush)

        provisioner = await connect(site.fleet_url, "provisioner", site.credentials("provisioner"))
        fleet = await connect(site.fleet_url, "fleet", site.credentials("fleet"))
        for client in (*nodes[:2], provisioner):
            await client.close()
        later = await _admitted(site, "later")
        for client in (nodes[2], fleet, later):
            await client.close()


async def _admitted(site: Site, name: str) -> Client:
    """Connect a node, which is denied until the server has reported that others left."""
    async with asyncio.timeout(HANG_SECONDS):
        while True:
            try:
                return await connect(site.node_url, name, site.credentials("node"))
            except ConnectRefusedError:
                continue
