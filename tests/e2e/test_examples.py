"""Example configurations are valid, and the example node and provisioner communicate."""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
import shutil
import sys
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Final

import pytest

from broker_auth.deploy.init import initialize, write_zone_keys
from broker_auth.deploy.plan import Plan, Topology
from broker_auth.deploy.render import render
from broker_auth.deploy.workspace import Workspace
from broker_auth.files.writing import write_private
from broker_auth.natsio.client import round_trip
from broker_auth.sandbox.client import connect
from broker_auth.sandbox.lifetime import dies_with_parent
from broker_auth.sandbox.natsserver import check_configuration
from broker_auth.sandbox.sandbox import Sandbox
from broker_auth.settings.load import check
from tests.deadlines import HANG_SECONDS

pytestmark = pytest.mark.e2e

EXAMPLES: Final = Path(__file__).parents[2] / "examples"
HOSTS: Final = tuple(f"{name}.example.net" for name in ("nats", "nats1", "nats2", "nats3", "edge1", "edge2"))
PLACEHOLDER: Final = re.compile(r"<([a-z0-9/-]+\.public)>")


def install(topology: Topology, directory: Path) -> Path:
    """Install an example configuration with its files and filled in placeholders; return its path."""
    initialize(Plan(directory=directory, topology=topology, dev_pki=True, hosts=HOSTS))
    pki = directory / "pki"
    if topology is Topology.EDGE:  # init writes one edge, the example has two
        for edge in ("edge1", "edge2"):
            for end in (".pem", ".key"):
                shutil.copy(pki / f"edge{end}", pki / f"{edge}{end}")
                shutil.copy(pki / f"leaf{end}", pki / f"{edge}-leaf{end}")
            write_zone_keys(Workspace(directory, force=False), edge)
    configuration = directory / "broker.conf"
    text = (EXAMPLES / topology / "broker.conf").read_text()
    configuration.write_text(PLACEHOLDER.sub(lambda match: _public(directory, match[1]), text))
    return configuration


def _public(directory: Path, name: str) -> str:
    path = directory / "keys" / name if "/" in name else next(directory.glob(f"*/{name}"))
    return path.read_text().strip()


@pytest.mark.parametrize("topology", Topology)
def test_example_configuration_is_valid_and_its_servers_start(tmp_path: Path, topology: Topology) -> None:
    report = check(install(topology, tmp_path / "example"), {}, serving=True)
    assert (report.problems, report.warnings) == ((), ())
    assert report.settings
    for broker in report.settings.brokers:
        rendered = tmp_path / "example" / f"{broker.name}.conf"
        rendered.write_text(render(report.settings, broker).replace("/var/lib/nats", str(tmp_path / "store")))
        check_configuration(rendered)


@pytest.mark.parametrize("topology", Topology)
def test_configuration_with_a_placeholder_is_refused(tmp_path: Path, topology: Topology) -> None:
    configuration = install(topology, tmp_path / "example")
    shutil.copy(EXAMPLES / topology / "broker.conf", configuration)
    refused = {problem.key for problem in check(configuration, {}, serving=True).problems}
    left = [line for line in configuration.read_text().splitlines() if PLACEHOLDER.search(line)]
    assert left
    assert refused == {line.partition(" = ")[0] for line in left}


class Program:
    """A running example script."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.process = process
        self.seen: list[str] = []

    async def line(self, start: str) -> str:
        """Wait for a line that begins with ``start``; return the rest of it."""
        assert self.process.stdout
        async with asyncio.timeout(HANG_SECONDS):
            while line := (await self.process.stdout.readline()).decode():
                self.seen.append(line)
                if line.startswith(start):
                    return line.removeprefix(start).strip()
        pytest.fail(f"the program ended without {start!r}: {self.seen}")


@contextlib.asynccontextmanager
async def running(script: str, arguments: Sequence[object]) -> AsyncIterator[Program]:
    """Run an example like a user; stop it at the end of the block."""
    process = await asyncio.create_subprocess_exec(
        *dies_with_parent([sys.executable, str(EXAMPLES / script), *map(str, arguments)]),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    try:
        yield Program(process)
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()
        assert process.stdout
        await process.stdout.read()  # so that its pipe is closed before the loop


def provisioner_arguments(sandbox: Sandbox) -> list[object]:
    """Return the arguments for provisioner.py."""
    pki = sandbox.directory / "pki"
    password = sandbox.directory / "keys" / "client_password"
    return [sandbox.fleet_url, sandbox.ca, pki / "provisioner.pem", pki / "provisioner.key", password]


def node_arguments(sandbox: Sandbox, identity: str) -> list[object]:
    """Return the arguments for node.py."""
    token = sandbox.directory / "provisioning.jwt"
    if not token.exists():
        write_private(token, sandbox.node_issuer.node_token().encode() + b"\n")
    return [sandbox.node_url, token, sandbox.ca, identity]


async def check_communication(sandbox: Sandbox) -> None:
    """Check that nodes that connect before and after the provisioner answer it."""
    async with (
        running("node.py", node_arguments(sandbox, "node1.example.net")) as first,
        running("provisioner.py", provisioner_arguments(sandbox)) as provisioner,
    ):
        answer = json.loads(await provisioner.line("answer:"))
        assert answer == {"identity": "node1.example.net", "ready": True}
        assert await first.line("asked:") == "who are you?"
        async with asyncio.timeout(HANG_SECONDS):
            assert await first.process.wait() == 0
        async with running("node.py", node_arguments(sandbox, "node2.example.net")):
            assert json.loads(await provisioner.line("answer:"))["identity"] == "node2.example.net"


async def test_example_node_and_provisioner_communicate_through_the_edge(edge_sandbox: Sandbox) -> None:
    await check_communication(edge_sandbox)
    rules = {
        record.client or record.name: record.rule
        for record in edge_sandbox.audit_records()
        if record.decision == "admit"
    }
    assert rules == {
        "node1.example.net": "provisioning",
        "node2.example.net": "provisioning",
        "provisioner": "provisioner",
    }


async def test_example_node_and_provisioner_communicate_through_websocket(tmp_path: Path) -> None:
    async with Sandbox(tmp_path / "sandbox", Topology.WEBSOCKET) as sandbox:
        await check_communication(sandbox)


ROGUE: Final = (
    b"{}",
    b"not json",
    b'"a"',
    b'{"identity": ">"}',
    b'{"identity": "a\\r\\nPUB x 0"}',
    b'{"identity": "a..b"}',
)


async def test_example_provisioner_ignores_identities_invented_by_a_rogue_node(edge_sandbox: Sandbox) -> None:
    async with running("provisioner.py", provisioner_arguments(edge_sandbox)) as provisioner:
        async with running("node.py", node_arguments(edge_sandbox, "node1.example.net")):
            await provisioner.line("answer:")  # it has subscribed
        rogue = await connect(edge_sandbox.node_url, "rogue", edge_sandbox.credentials("node"))
        try:
            for event in ROGUE:
                await rogue.publish("choria.lifecycle.event.startup.provision_mode_server", event)
            await rogue.publish("choria.lifecycle.event.startup.provision_mode_server", b'{"identity": "nobody"}')
            await round_trip(rogue)
            assert await provisioner.line("silent:") == "nobody"
        finally:
            await rogue.close()
        assert sum(line.startswith("ignored:") for line in provisioner.seen) == len(ROGUE)
