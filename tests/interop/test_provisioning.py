"""Complete provisioning by Choria's programs, in every mode and topology, including failures during it.

A node without a configuration waits, a provisioner finds it, has a certificate or token made and hands over the
configuration, the node restarts as a member of the fleet, and a client of the fleet finds and asks it. The results are
in ``docs/moving-from-choria.md#what-was-tried``.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from broker_auth.deploy.plan import Topology
from broker_auth.sandbox.sandbox import Sandbox
from tests.interop.choria_program import Choria
from tests.interop.provisioning import ACCESS_TOKEN, Fleet, Shape, until
from tests.interop.tried import Programs, name, servers

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(900)]

SHAPES = [
    Shape(issuer=False, topology=Topology.EDGE),
    Shape(issuer=False, topology=Topology.WEBSOCKET),
    Shape(issuer=True, topology=Topology.EDGE),
    Shape(issuer=True, topology=Topology.WEBSOCKET),
    Shape(issuer=True, topology=Topology.SINGLE),
]
MIXED = [  # skipped without a nats-server that can (tests/mixed.py)
    pytest.param(Shape(issuer=issuer, topology=Topology.MIXED), marks=pytest.mark.mixed_server)
    for issuer in (False, True)
]
what = pytest.mark.what  # a column of the table in the documentation
shapes = pytest.mark.parametrize("shape", [*SHAPES, *MIXED], ids=str)
# Failures do not depend on server and mode: test the last server with one shape of each topology.
TROUBLED = [SHAPES[0], SHAPES[1], SHAPES[4], MIXED[0]]


def troubled(test: Callable[..., Any]) -> Callable[..., Any]:
    """Run a test with the last of the servers, in one shape of each topology."""
    last = pytest.mark.parametrize("programs", servers()[-1:] or [None], indirect=True, ids=name)
    decorated: Callable[..., Any] = last(pytest.mark.parametrize("shape", TROUBLED, ids=str)(test))
    return decorated


LIFETIME = 10.0  # seconds; default lifetime of a leader that has stopped


@pytest_asyncio.fixture
async def fleet(shape: Shape, programs: Programs, tmp_path: Path) -> AsyncIterator[Fleet]:
    """Yield a running deployment of ``init --dev-pki`` with its streams, and a node to be provisioned."""
    async with Sandbox(tmp_path / "sandbox", shape.topology, issuer=shape.issuer) as sandbox:
        await sandbox.apply_streams()
        for name in ("node", "client"):
            (tmp_path / name).mkdir()
        node = Choria(programs.server, tmp_path / "node")
        made = Fleet(sandbox, shape, Choria(programs.client, tmp_path / "client"), node, programs.provisioner)
        made.new_node()
        yield made


@what("provisioned, and again")
@shapes
async def test_node_is_provisioned_and_reprovisioned(fleet: Fleet) -> None:
    member = "server" if fleet.shape.issuer else "verified_tls"
    async with fleet.running_node():
        async with fleet.provisioner("one") as first:
            identity = await fleet.joined()
        assert fleet.admissions() == ["provisioning", member]
        configuration = fleet.node_configuration
        # Use another provisioner, because each ignores a node for one or two minutes after provisioning it.
        async with fleet.provisioner("two") as second:
            answer = await fleet.request("choria_provision", "reprovision", f"token={ACCESS_TOKEN}", "-I", identity)
            assert [reply["statuscode"] for reply in answer["replies"]] == [0]
            await until(lambda: fleet.admissions() == ["provisioning", member] * 2)
            assert await fleet.joined() == identity
    assert fleet.node_configuration != configuration
    for log in (fleet.node_log, first.log, second.log):
        assert "permissions violation" not in log.read_text(errors="replace").lower()


@what("leader {end}")
@troubled
@pytest.mark.parametrize("end", ["killed", "stopped"])
async def test_another_provisioner_takes_over(fleet: Fleet, end: str) -> None:
    async with fleet.provisioner("one") as first, fleet.provisioner("two") as second:
        await until(lambda: first.leads or second.leads)
        leader, other = (first, second) if first.leads else (second, first)
        ended = time.monotonic()
        leader.process.kill() if end == "killed" else leader.process.terminate()
        await leader.process.wait()
        await until(lambda: other.leads)
        assert time.monotonic() - ended > LIFETIME - 2
        async with fleet.running_node():
            await fleet.joined()


@what("fleet restarted")
@troubled
async def test_provisioning_continues_after_a_fleet_restart(fleet: Fleet) -> None:
    async with fleet.provisioner() as provisioner:
        await until(lambda: provisioner.leads)
        for server in fleet.sandbox.servers.values():
            await asyncio.to_thread(server.restart)
        await until(lambda: provisioner.reconnected)  # otherwise it misses the event and finds the node a minute later
        async with fleet.running_node():
            identity = await fleet.joined()
            for server in fleet.sandbox.servers.values():
                await asyncio.to_thread(server.restart)
            assert await fleet.joined() == identity


@what("service down")
@troubled
async def test_node_that_started_during_an_outage_is_provisioned(fleet: Fleet) -> None:
    async with fleet.provisioner() as provisioner:
        await until(lambda: provisioner.leads)
        await fleet.sandbox.service.stop()
        async with fleet.running_node():
            await until(lambda: "Initial connection to the Broker failed" in fleet.node_log.read_text(errors="replace"))
            await fleet.sandbox.service.start()
            await fleet.joined()
