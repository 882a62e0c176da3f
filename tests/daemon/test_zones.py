"""A service with a fleet and an edge: each zone by processes of its own, and what a stolen edge cannot do."""

from __future__ import annotations

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
from broker_auth.sandbox.site import Site
from tests.callout.deployment import eventually
from tests.deadlines import HANG_SECONDS

pytestmark = [pytest.mark.e2e, pytest.mark.asyncio(loop_scope="module")]
ZONES = ("fleet", "edge")


class Served:
    """A deployment with an edge, and its metrics endpoint."""

    def __init__(self, directory: Path) -> None:
        self.metrics = f"127.0.0.1:{free_port()}"
        changes = {"plugin.broker_auth.metrics.listen": self.metrics}
        self.site = Site(directory, Topology.EDGE, changes=changes)

    def page(self, path: str) -> tuple[int, dict[str, object]]:
        try:
            with urllib.request.urlopen(f"http://{self.metrics}{path}", timeout=HANG_SECONDS) as answer:
                return answer.status, json.loads(answer.read())
        except urllib.error.HTTPError as error:
            with error:
                return error.code, {} if error.code == 404 else json.loads(error.read())

    def processes(self) -> dict[str, list[int]]:
        """By zone: its supervisor, then its workers."""
        found = {}
        for pid in children(self.site.service.pid):
            workers = children(pid)
            held = memory(pid)
            zone = next(name for name in ZONES if seed(self.site, name, "service") in held)
            found[zone] = [pid, *workers]
        return found


def children(pid: int) -> list[int]:
    return [int(item) for item in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def seed(site: Site, zone: str, what: str) -> bytes:
    return (site.directory / ZoneFiles(zone).directory / f"{what}.seed").read_bytes().strip()


def memory(pid: int) -> bytes:
    """Everything that a process could read of itself."""
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
    async with served.site:
        yield served


async def test_no_process_of_a_zone_holds_a_key_of_another(running: Served) -> None:
    """By construction: the process that starts both zones reads no key, and each zone's reads its own."""
    site = running.site
    keys = {
        zone: [
            form
            for what, kind in (("service", NkeyKind.USER), ("issuer", NkeyKind.ACCOUNT), ("xkey", NkeyKind.CURVE))
            for form in (seed(site, zone, what), decode_seed(seed(site, zone, what).decode(), kind))
        ]
        for zone in ZONES
    }
    everything = [key for zone in ZONES for key in keys[zone]]
    main = memory(site.service.pid)
    assert not [key for key in everything if key in main]
    processes = running.processes()
    assert set(processes) == set(ZONES)
    for zone, pids in processes.items():
        (other,) = set(ZONES) - {zone}
        assert len(pids) == 2
        for pid in pids:
            held = memory(pid)
            assert seed(site, zone, "issuer") in held  # the search finds what is there
            assert not [key for key in keys[other] if key in held], (zone, pid)
    password = (site.directory / "keys" / "client_password").read_bytes().strip()
    assert password in memory(processes["fleet"][1])
    assert password not in memory(processes["edge"][1])
    assert password not in main


async def test_an_edge_that_is_down_does_not_make_the_fleet_unready(running: Served) -> None:
    edge = running.site.servers["edge"]
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


async def test_an_edge_cannot_veto_or_delay_a_reload_of_the_fleet(running: Served) -> None:
    """Its server knows another service: the edge's new workers never get in, and the fleet's take over at once."""
    site = running.site
    path = site.directory / ZoneFiles("edge").service_seed
    before, workers = path.read_text(), running.processes()
    try:
        path.write_text(generate_seed(NkeyKind.USER))
        since = len(site.service.log)
        site.service.signal(signal.SIGHUP)
        await site.service.wait_for_log("(zone fleet)", since)
        # A new worker of the edge is waited for for 15 s.
        assert not [line for line in site.service.log[since:] if "(zone edge)" in line]
        refused = await site.service.wait_for_log("not reloaded (zone edge)", since)
        assert "workers do not get subscribed at edge" in refused
    finally:
        path.write_text(before)
    assert workers["edge"][1] in children(workers["edge"][0])
    assert children(workers["fleet"][0]) != workers["fleet"][1:]
    await (await connect(site.node_url, "waiting.example.net", site.credentials("node"))).close()
    await (await connect(site.fleet_url, "member", site.credentials("fleet"))).close()


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSTOP])
async def test_the_fleet_gets_in_while_every_process_of_the_edge_is_dead_or_stopped(
    running: Served, number: signal.Signals
) -> None:
    pids = running.processes()["edge"]
    since = len(running.site.service.log)
    for pid in pids:
        os.kill(pid, number)
    for attempt in range(5):
        await (await connect(running.site.fleet_url, f"m{attempt}", running.site.credentials("fleet"))).close()
    if number is signal.SIGSTOP:
        for pid in pids:
            os.kill(pid, signal.SIGCONT)
    await running.site.service.wait_for_log("broker edge: subscribed at", since if number is signal.SIGKILL else 0)
    await eventually(lambda: running.page("/readyz/edge")[0] == 200)
    await (await connect(running.site.node_url, "waiting.example.net", running.site.credentials("node"))).close()


async def test_a_zone_that_is_gone_ends_and_later_reloads_reach_the_others(running: Served) -> None:
    """What the runbook asks for when an edge was stolen: without it, the leaked signer could not be withdrawn."""
    site = running.site
    config, before = site.deployment.configuration, site.deployment.configuration.read_text()
    edge = running.processes()["edge"]
    lines = [line for line in before.splitlines() if "broker.edge." not in line and "zone.edge." not in line]
    try:
        config.write_text("\n".join(lines).replace("brokers = fleet, edge", "brokers = fleet"))
        for _ in range(2):
            since = len(site.service.log)
            site.service.signal(signal.SIGHUP)
            await site.service.wait_for_log("(zone fleet)", since)
            await eventually(lambda: not any(Path(f"/proc/{pid}").exists() for pid in edge))
        assert running.page("/readyz/edge")[0] == 404
    finally:
        config.write_text(before)
    since = len(site.service.log)
    site.service.signal(signal.SIGHUP)
    await site.service.wait_for_log("broker edge: subscribed", since)
    await (await connect(site.node_url, "waiting.example.net", site.credentials("node"))).close()


async def test_each_zone_has_an_audit_file_of_its_own(running: Served) -> None:
    site = running.site
    for url, name in ((site.fleet_url, "stranger-1"), (site.node_url, "stranger-2")):
        with pytest.raises(ConnectRefusedError):
            await connect(url, name, replace(site.credentials("provisioner"), password="wrong"))
        assert site.audit_record(name), "is written a moment after the answer"
    fleet, edge = (path.read_text() for path in site.deployment.settings.audit_files)
    assert "stranger-1" in fleet
    assert "stranger-1" not in edge
    assert "stranger-2" in edge
    assert "stranger-2" not in fleet
