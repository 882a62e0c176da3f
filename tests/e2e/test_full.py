"""Nodes that use all connections of the provisioning account do not lock out provisioners."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from nats.aio.client import Client

from broker_auth.deploy.plan import Topology
from broker_auth.sandbox.client import ConnectRefusedError, connect
from broker_auth.sandbox.sandbox import Sandbox
from tests.deadlines import HANG_SECONDS
from tests.mixed import MIXED

pytestmark = pytest.mark.e2e
LIMIT = 3
CHANGES: dict[str, str | None] = {
    "plugin.broker_auth.provisioning.limits.max_connections": str(LIMIT),
}


@pytest.mark.parametrize("topology", [Topology.WEBSOCKET, Topology.SINGLE, MIXED])
async def test_provisioner_is_admitted_while_one_token_fills_the_account(tmp_path: Path, topology: Topology) -> None:
    async with Sandbox(tmp_path / "sandbox", topology, changes=CHANGES) as sandbox:
        token = sandbox.credentials("node")

        async def node(name: str) -> Client:
            return await connect(sandbox.node_url, name, token)

        nodes = [await node(f"node{number}") for number in range(LIMIT)]
        with pytest.raises(ConnectRefusedError):
            await node("one-more")
        denied = sandbox.audit_record("one-more")
        assert denied is not None
        assert (denied.rule, denied.code) == ("provisioning", "provisioning_full")
        rush = await asyncio.gather(*(node(f"rush{number}") for number in range(20)), return_exceptions=True)
        assert all(isinstance(outcome, ConnectRefusedError) for outcome in rush)

        provisioner = await connect(sandbox.fleet_url, "provisioner", sandbox.credentials("provisioner"))
        fleet = await connect(sandbox.fleet_url, "fleet", sandbox.credentials("fleet"))
        for client in (*nodes[:2], provisioner):
            await client.close()
        later = await _admitted(sandbox, "later")
        for client in (nodes[2], fleet, later):
            await client.close()


async def _admitted(sandbox: Sandbox, name: str) -> Client:
    """Connect a node; retry until the server has reported that others have disconnected."""
    async with asyncio.timeout(HANG_SECONDS):
        while True:
            try:
                return await connect(sandbox.node_url, name, sandbox.credentials("node"))
            except ConnectRefusedError:
                continue
