"""A service with a fleet and an edge: zones run in separate processes and do not affect each other."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import urllib.error
import urllib.request
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest
import pytest_asyncio

from broker_auth.deploy.brokerconf import ZoneFiles
from broker_auth.deploy.plan import Topology
from broker_auth.natsio.nkey import NkeyKind, decode_seed, generate_seed
from broker_auth.sandbox.client import ConnectRefusedError, connect
from broker_auth.sandbox.natsserver import free_port
from broker_auth.sandbox.sandbox import Sandbox
from tests.callout.deployment import eventually
from tests.deadlines import HANG_SECONDS

pytestmark = [pytest.mark.e2e, pytest.mark.asyncio(loop_scope="module")]
ZONES = ("fleet", "edge")


class Served:
    """A deployment with an edge, and its metrics endpoint."""

    def __init__(self, directory: Path) -> None:
        self.metrics = f"127.0.0.1:{free_port()}"
        changes = {"plugin.broker_auth.metrics.listen": self.metrics}
        self.sandbox = Sandbox(directory, Topology.EDGE, changes=changes)

    def page(self, path: str) -> tuple[int, dict[str, object]]:
        try:
            with urllib.request.urlopen(f"http://{self.metrics}{path}", timeout=HANG_SECONDS) as answer:
                return answer.status, json.loads(answer.read())
        except urllib.error.HTTPError as error:
            with error:
                return error.code, {} if error.code == 404 else json.loads(error.read())

    def processes(self) -> dict[str, list[int]]:
        """Return the supervisor and the workers of each zone."""
        by_zone = {}
        for pid in children(self.sandbox.service.pid):
            workers = children(pid)
            held = memory(pid)
            zone = next(name for name in ZONES if seed(self.sandbox, name, "service") in held)
            by_zone[zone] = [pid, *workers]
        return by_zone


def children(pid: int) -> list[int]:
    return [int(item) for item in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def seed(sandbox: Sandbox, zone: str, what: str) -> bytes:
    return (sandbox.directory / ZoneFiles(zone).directory / f"{what}.seed").read_bytes().strip()


def memory(pid: int) -> bytes:
    """Return the writable memory of a process."""
    parts = []
    with Path(f"/proc/{pid}/maps").open() as maps, Path(f"/proc/{pid}/mem").open("rb", buffering=0) as mem:
        for line in maps:
            span, access, *_ = line.split()
            start, end = (int(part, 16) for part in span.split("-"))
            if access.startswith("rw") and end - start < 256 * 1024 * 1024:
                try:
                    mem.seek(start)
                    parts.append(mem.read(end - start))
                except (OSError, ValueError):
                    continue
    return b"".join(parts)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def running(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Served]:
    served = Served(tmp_path_factory.mktemp("zones"))
    async with served.sandbox:
        yield served


async def test_process_of_a_zone_has_no_key_of_another_zone(running: Served) -> None:
    """The main process reads no keys, and the process of a zone only those of its zone."""
    sandbox = running.sandbox
    keys = {
        zone: [
            form
            for what, kind in (
                ("service", NkeyKind.USER),
                ("issuer", NkeyKind.ACCOUNT),
                ("xkey", NkeyKind.CURVE),
            )
            for form in (seed(sandbox, zone, what), decode_seed(seed(sandbox, zone, what).decode(), kind))
        ]
        for zone in ZONES
    }
    everything = [key for zone in ZONES for key in keys[zone]]
    main = memory(sandbox.service.pid)
    assert not [key for key in everything if key in main]
    processes = running.processes()
    assert set(processes) == set(ZONES)
    for zone, pids in processes.items():
        (other,) = set(ZONES) - {zone}
        assert len(pids) == 2
        for pid in pids:
            held = memory(pid)
            assert seed(sandbox, zone, "issuer") in held  # proves that the search works
            assert not [key for key in keys[other] if key in held], (zone, pid)
    password = (sandbox.directory / "keys" / "client_password").read_bytes().strip()
    assert password in memory(processes["fleet"][1])
    assert password not in memory(processes["edge"][1])
    assert password not in main


async def test_edge_outage_does_not_make_the_fleet_unready(running: Served) -> None:
    edge = running.sandbox.servers["edge"]
    assert running.page("/readyz")[0] == running.page("/readyz/edge")[0] == 200
    await edge.__aexit__(None, None, None)
    try:
        await eventually(lambda: running.page("/readyz/edge")[0] == 503)
        status, body = running.page("/readyz")
        assert (status, body["zone"]) == (200, "fleet")
        assert body["zones"] == {"fleet": {"alive": True, "ready": True}, "edge": {"alive": True, "ready": False}}
        assert running.page("/readyz/nowhere")[0] == 404
    finally:
        await edge.__aenter__()
    await eventually(lambda: running.page("/readyz/edge")[0] == 200)


async def test_edge_cannot_block_or_delay_a_reload_of_the_fleet(running: Served) -> None:
    """The edge's server does not know the new key, so its new workers cannot log in; the fleet's take over at once."""
    sandbox = running.sandbox
    path = sandbox.directory / ZoneFiles("edge").service_seed
    before, workers = path.read_text(), running.processes()
    try:
        path.write_text(generate_seed(NkeyKind.USER))
        since = sandbox.service.mark()
        sandbox.service.signal(signal.SIGHUP)
        await sandbox.service.logged(r"\(zone fleet\)", since=since)
        # The edge's new workers have 15 s, and have not timed out yet.
        assert not [line for line in sandbox.service.log(since) if "(zone edge)" in line]
        refused = await sandbox.service.logged(r"not reloaded \(zone edge\)", since=since)
        assert "workers cannot subscribe at edge" in refused
    finally:
        path.write_text(before)
    assert workers["edge"][1] in children(workers["edge"][0])
    assert children(workers["fleet"][0]) != workers["fleet"][1:]
    await (await connect(sandbox.node_url, "waiting.example.net", sandbox.credentials("node"))).close()
    await (await connect(sandbox.fleet_url, "member", sandbox.credentials("fleet"))).close()


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSTOP])
async def test_fleet_logs_in_while_every_process_of_the_edge_is_dead_or_suspended(
    running: Served, number: signal.Signals
) -> None:
    pids = running.processes()["edge"]
    since = running.sandbox.service.mark()
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):  # a worker ends with its supervisor
            os.kill(pid, number)
    for attempt in range(5):
        await (await connect(running.sandbox.fleet_url, f"m{attempt}", running.sandbox.credentials("fleet"))).close()
    if number is signal.SIGSTOP:
        for pid in pids:
            os.kill(pid, signal.SIGCONT)
    await running.sandbox.service.logged("broker edge: subscribed at", since=since if number is signal.SIGKILL else 0)
    await eventually(lambda: running.page("/readyz/edge")[0] == 200)
    await (await connect(running.sandbox.node_url, "waiting.example.net", running.sandbox.credentials("node"))).close()


async def test_removed_zone_ends_and_later_reloads_reach_the_others(running: Served) -> None:
    """The runbook needs this after an edge was compromised, to withdraw the leaked signer."""
    sandbox = running.sandbox
    config, before = sandbox.deployment.configuration, sandbox.deployment.configuration.read_text()
    edge = running.processes()["edge"]
    lines = [line for line in before.splitlines() if "broker.edge." not in line and "zone.edge." not in line]
    try:
        config.write_text("\n".join(lines).replace("brokers = fleet, edge", "brokers = fleet"))
        for _ in range(2):
            since = sandbox.service.mark()
            sandbox.service.signal(signal.SIGHUP)
            await sandbox.service.logged(r"\(zone fleet\)", since=since)
            await eventually(lambda: not any(Path(f"/proc/{pid}").exists() for pid in edge))
        assert running.page("/readyz/edge")[0] == 404
    finally:
        config.write_text(before)
    since = sandbox.service.mark()
    sandbox.service.signal(signal.SIGHUP)
    await sandbox.service.logged("broker edge: subscribed", since=since)
    await (await connect(sandbox.node_url, "waiting.example.net", sandbox.credentials("node"))).close()


async def test_each_zone_has_a_separate_audit_file(running: Served) -> None:
    sandbox = running.sandbox
    for url, name in ((sandbox.fleet_url, "stranger-1"), (sandbox.node_url, "stranger-2")):
        with pytest.raises(ConnectRefusedError):
            await connect(url, name, replace(sandbox.credentials("provisioner"), password="wrong"))
        assert sandbox.audit_record(name), "is written a moment after the answer"
    fleet, edge = (path.read_text() for path in sandbox.deployment.settings.audit_files)
    assert "stranger-1" in fleet
    assert "stranger-1" not in edge
    assert "stranger-2" in edge
    assert "stranger-2" not in fleet
