"""From factory to fleet: how a node becomes a member, by the programs of ``examples/onboarding``."""

from __future__ import annotations

import asyncio
import json
from contextlib import AsyncExitStack
from types import TracebackType
from typing import Final

from broker_auth.audit.record import AuditRecord
from broker_auth.demo.observation import Observation
from broker_auth.deploy.plan import Topology
from broker_auth.sandbox.client import connect
from broker_auth.sandbox.devices import EVENT, Factory, ask
from broker_auth.sandbox.sandbox import Sandbox

NODE: Final = "node3.example.net"
WAITING: Final = "node4.example.net"
STRANGER: Final = "stranger.example.net"
_AGAIN_SECONDS: Final = 0.05


class LastMile:
    """A provisioner that runs, and a node that becomes a member. An async context manager: both are stopped."""

    def __init__(self, deployment: Sandbox) -> None:
        """Make the node; nothing is started yet."""
        self._deployment = deployment
        self._factory = Factory(deployment, deployment.directory / "onboarding")
        self._factory.make(NODE)
        self._provisioner, self._node = self._factory.start_provisioner(), self._factory.start_node(NODE)
        self._stack = AsyncExitStack()

    async def __aenter__(self) -> LastMile:
        """Start the provisioner, which is ready in its own time."""
        await self._stack.enter_async_context(self._provisioner)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Stop both."""
        await self._stack.aclose()

    async def show(self) -> list[Observation]:
        """Let a stranger announce itself, then a node that is expected."""
        single = self._deployment.topology is Topology.SINGLE
        await self._provisioner.line("provisioner:")
        refused = await self._stranger()
        await self._stack.enter_async_context(self._node)
        await self._node.line("waiting:")
        waits = self._deployment.audit_record(NODE)
        provisioned = await self._provisioner.line("provisioned:")
        await self._node.line("member:")
        if self._deployment.settings.fleet_is_static:  # its servers record nothing: asking it shows where it is
            asked = await ask(self._deployment, NODE)
            back = f"in {self._deployment.settings.accounts.fleet}" if asked == "yes" else "not in the fleet"
        else:
            back = _account(self._deployment.audit_record(NODE, after=waits))
            asked = await ask(self._deployment, NODE)
        rows = [
            (
                "an unknown node announces itself to the provisioner",
                "not in the inventory",
                refused,
            ),
            ("a node waits with its provisioning token", "in provisioning", _account(waits)),
            (f"the provisioner gives it a {'token' if single else 'certificate'}", NODE, provisioned),
            ("it comes back with that", "in choria", back),
            ("a member of the fleet asks it by its name", "yes", asked),
        ]
        return [Observation(what=what, expected=expected, happened=happened) for what, expected, happened in rows]

    async def leave_a_node_waiting(self) -> None:
        """Start a node that the provisioner does not expect, and return once it waits."""
        self._factory.make(WAITING, expected=False)
        node = await self._stack.enter_async_context(self._factory.start_node(WAITING))
        await node.line("waiting:")

    async def _stranger(self) -> str:
        """Publish announcements of a node that the provisioner does not expect, until it refuses them."""
        client = await connect(self._deployment.node_url, STRANGER, self._deployment.credentials("node"))
        refusal = asyncio.create_task(self._provisioner.line(f"refused: {STRANGER}:"))
        try:
            while not refusal.done():  # the provisioner's subscription crosses the leaf link in its own time
                await client.publish(EVENT, json.dumps({"identity": STRANGER}).encode())
                await client.flush()
                await asyncio.wait([refusal], timeout=_AGAIN_SECONDS)
            return await refusal
        finally:
            refusal.cancel()
            await client.close()


def _account(record: AuditRecord | None) -> str:
    if record is None:
        return "no decision"
    return f"in {record.account}" if record.decision == "admit" else f"denied: {record.code}"
