"""Reports from real servers: all connections of fleet and edge, and waiting nodes."""

from __future__ import annotations

import asyncio
import json
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from nats.aio.client import Client

from broker_auth.audit.reader import read_recent_decisions, rules_of
from broker_auth.natsio.client import round_trip
from broker_auth.operate.access import Access
from broker_auth.operate.logins import CANARY, AccessError, Login, connect
from broker_auth.operate.report import gathering
from broker_auth.operate.report.connections import Observer
from broker_auth.operate.report.gathering import Ask, State
from broker_auth.operate.report.selection import Selection, overlap
from broker_auth.operate.report.waiting import waiting_nodes
from broker_auth.sandbox.lifetime import dies_with_parent
from broker_auth.sandbox.service import ServiceProcess
from broker_auth.secret import Secret
from tests.deadlines import HANG_SECONDS
from tests.operate.deployment import MEMBER, PROVISIONER, EdgeDeployment

pytestmark = pytest.mark.e2e
NODES = ("node1.example.net", "node2.example.net", "node3.example.net")


@pytest.fixture(scope="module")
def deployment(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EdgeDeployment]:
    with EdgeDeployment(tmp_path_factory.mktemp("deployment")).running() as running:
        yield running


def as_provisioner(deployment: EdgeDeployment, **more: Any) -> Access:
    """Return the access of an operator with the provisioner's certificate."""
    files = {"certificate": deployment.directory / "provisioner.pem", "key": deployment.directory / "provisioner.key"}
    return deployment.access(**files, **more)


async def node(deployment: EdgeDeployment, name: str, token: str | None = None) -> Client:
    login = Login(what="a node", token=Secret(token or deployment.provisioning_token()), name=name)
    return await connect(deployment.url("edge"), login, deployment.access().tls(deployment.settings().brokers[1]))


@asynccontextmanager
async def connected(deployment: EdgeDeployment) -> AsyncIterator[list[Client]]:
    """Connect three waiting nodes, one provisioner, and one member of the fleet with a subscription."""
    fleet = deployment.settings().brokers[0]
    async with AsyncExitStack() as stack:
        clients = [await node(deployment, name) for name in NODES]
        clients.append(await as_provisioner(deployment).provisioner(fleet))
        clients.append(await deployment.access().fleet(fleet))
        for client in clients:
            stack.push_async_callback(client.close)
        await clients[-1].subscribe("choria.lifecycle.event.>")
        await round_trip(clients[-1])
        yield clients


async def test_break_glass_seeds_show_fleet_and_edge_completely(deployment: EdgeDeployment) -> None:
    async with connected(deployment), Observer(deployment.access(break_glass=deployment.break_glass_seeds)) as observer:
        report = await observer.report(Ask())
    assert report.missing == ()
    seen = {(item.server, item.account, item.identity) for item in Selection().apply(report.connections)}
    assert {("edge", "provisioning", name) for name in NODES} <= seen
    assert ("fleet", "provisioning", PROVISIONER) in seen
    assert ("fleet", "choria", MEMBER) in seen
    rules = {(item.server, item.account): item.rule for item in report.connections if item.rule}
    assert rules == {
        ("fleet", "AUTH"): "auth_user",
        ("edge", "AUTH"): "auth_user",
        ("fleet", "system"): "break_glass",
        ("edge", "system"): "break_glass",
    }


async def test_provisioner_sees_the_edge_over_the_leaf_link(deployment: EdgeDeployment) -> None:
    async with connected(deployment), Observer(as_provisioner(deployment)) as observer:
        report = await observer.report(Ask(account="provisioning"))
        again = await observer.report(Ask(account="provisioning"))
    assert report.missing == ()
    seen = {item.name: item for item in Selection(server="edge").apply(report.connections)}
    assert set(seen) == set(NODES)
    first = seen[NODES[0]]
    assert (first.account, first.identity, first.peer, first.kind) == ("provisioning", NODES[0], None, "Client")
    assert first.tls == "1.3"
    assert first.broker == "edge"
    kept = {item.name: item.cid for item in Selection(server="edge").apply(again.connections)}
    assert kept == {name: item.cid for name, item in seen.items()}


async def test_connections_of_several_pages_are_shown(
    deployment: EdgeDeployment, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gathering, "PAGE", 2)
    async with connected(deployment), Observer(deployment.access(break_glass=deployment.break_glass_seeds)) as observer:
        report = await observer.report(Ask(account="provisioning"))
    assert {item.name for item in Selection(server="edge").apply(report.connections)} == set(NODES)


async def test_inaccessible_broker_is_reported_as_missing(deployment: EdgeDeployment) -> None:
    """A fleet member's certificate is not a provisioner's, so the edge is inaccessible."""
    async with Observer(deployment.access()) as observer:
        report = await observer.report(Ask())
    assert len(report.missing) == 1
    assert report.missing[0].startswith("edge: invisible without --break-glass SEED of each zone; ")
    assert {item.server for item in report.connections} == {"fleet"}


async def test_selection_filters_and_sorts(deployment: EdgeDeployment) -> None:
    async with connected(deployment) as clients, Observer(as_provisioner(deployment)) as observer:
        for _ in range(3):
            await clients[1].publish("choria.lifecycle.event.startup", b"x" * 500)
        await round_trip(clients[1])
        report = await observer.report(Ask(subjects=True))

    def names(**options: Any) -> list[str]:
        return [item.name for item in Selection(**options).apply(report.connections)]

    on_edge: dict[str, Any] = {"account": "provisioning", "server": "edge"}
    assert names(**on_edge, sort="name") == list(NODES)
    assert names(**on_edge, sort="name", reverse=True) == list(reversed(NODES))
    assert names(**on_edge, sort="in-bytes", limit=1) == [NODES[1]]
    assert names(**on_edge, sort="in-bytes", reverse=True)[-1] == NODES[1]
    assert names(identity="node?.example.net", sort="name") == list(NODES)
    assert names(name=NODES[2]) == [NODES[2]]
    assert names(text="NODE2") == [NODES[1]]
    assert names(host="10.0.0.0/8") == []
    assert set(names(host="127.0.0.1")) >= set(NODES)
    subscribers = Selection(subject="choria.lifecycle.event.startup").apply(report.connections)
    assert [item.identity for item in subscribers] == [MEMBER]
    leafs = [item.cid for item in report.connections if item.kind == "Leafnode" and item.server == "fleet"]
    shown = Selection(kinds=frozenset({"Leafnode"}), server="fleet").apply(report.connections)
    assert [item.cid for item in shown] == leafs  # nats-server 2.10 lists none


async def test_closed_connections_can_be_listed(deployment: EdgeDeployment) -> None:
    gone = await node(deployment, "short-lived.example.net")
    await gone.close()
    access = deployment.access(break_glass=deployment.break_glass_seeds)
    async with Observer(access) as observer, asyncio.timeout(HANG_SECONDS):
        while True:  # nats-server lists a closed connection later
            report = await observer.report(Ask(state=State.CLOSED))
            if closed := Selection(name="short-lived.example.net").apply(report.connections):
                break
    assert closed[0].stopped
    assert closed[0].reason == "Client Closed"


def write_audit(service: ServiceProcess, path: Path) -> Path:
    """Write the audit records in the service's log to a file, and return it."""
    records = [line.partition(": {")[2] for line in service.log() if "broker_auth.audit: {" in line]
    path.write_text("".join(f"{{{record}\n" for record in records))
    return path


async def test_waiting_nodes_have_attempts_and_last_denial(deployment: EdgeDeployment, tmp_path: Path) -> None:
    assert deployment.service
    with pytest.raises(AccessError):
        await node(deployment, NODES[0], token="e30.e30.e30")
    with pytest.raises(AccessError):
        await node(deployment, "refused.example.net", token="e30.e30.e30")
    mark = deployment.service.mark()
    async with connected(deployment), Observer(as_provisioner(deployment)) as observer:
        deployment.service.wait_for_log(f'"name":"{MEMBER}"', since=mark)  # the last one to connect
        audit = write_audit(deployment.service, tmp_path / "audit.json")
        records = read_recent_decisions(audit)
        report = await observer.report(Ask(), rules_of(records))
        now = max(record.time for record in records)
        nodes = {item.name: item for item in waiting_nodes(report.connections, records, now, account="provisioning")}
        bare = waiting_nodes(report.connections, [], now, account="provisioning")
    assert {name for name, item in nodes.items() if item.connected} == set(NODES)
    assert {item.name for item in bare} == set(NODES)
    refused = nodes["refused.example.net"]
    assert (refused.connected, refused.attempts) == (False, 1)
    assert refused.last_denial
    assert refused.last_denial.code == "token_header"
    first = nodes[NODES[0]]
    assert first.last_denial
    assert first.attempts > 1
    assert first.since < now
    rules = {
        item.name: item.rule for item in Selection(server="edge", account="provisioning").apply(report.connections)
    }
    assert set(rules.values()) == {"provisioning"}


@pytest.mark.parametrize(
    ("one", "other", "expected"),
    [
        ("a.b", "a.b", True),
        ("a.b", "a.c", False),
        ("a.*", "a.b", True),
        ("a.>", "a.b.c", True),
        ("a.>", "a", False),
        ("a.b", "a.b.c", False),
        ("*.b", "a.*", True),
        (">", "x", True),
    ],
)
def test_subjects_overlap(one: str, other: str, expected: bool) -> None:
    assert overlap(one, other) is expected
    assert overlap(other, one) is expected


def cli(deployment: EdgeDeployment, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "broker_auth", *arguments, "--config", str(deployment.config)]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


def seeds(deployment: EdgeDeployment) -> tuple[str, ...]:
    """Return the options for logins to the system accounts of both zones."""
    paths = [deployment.directory / name for name in ("break-glass.seed", "edge-break-glass.seed")]
    return tuple(option for path in paths for option in ("--break-glass", str(path)))


def test_command_prints_the_documented_fields(deployment: EdgeDeployment) -> None:
    done = cli(deployment, "report", "conns", "--json", "--account", "AUTH", *seeds(deployment))
    assert (done.returncode, done.stderr) == (0, "")
    rows = json.loads(done.stdout)
    assert {row["server"] for row in rows} == {"fleet", "edge"}
    promised = {"server", "account", "name", "identity", "ip", "port", "tls", "connected", "rule"}
    assert all(promised <= set(row) for row in rows)
    table = cli(deployment, "report", "conns", "--account", "AUTH", "--wide", *seeds(deployment))
    assert table.returncode == 0
    assert "2 connections on 2 servers" in table.stdout
    assert "auth_user" in table.stdout


def test_own_connections_are_left_out_of_text_and_marked_in_json(deployment: EdgeDeployment) -> None:
    done = cli(deployment, "report", "conns", "--json", "--account", "system", *seeds(deployment))
    assert [(row["rule"], row["own"]) for row in json.loads(done.stdout)] == [("break_glass", True)] * 2
    text = cli(deployment, "report", "conns", *seeds(deployment))
    header, *rows = [line.split("\t") for line in text.stdout.splitlines()]
    assert {row[header.index("Account")] for row in rows} == {"AUTH"}


def test_accounts_that_cannot_be_seen_are_named_in_one_line(deployment: EdgeDeployment) -> None:
    pair = [
        f"--{name}={deployment.directory / f'provisioner.{end}'}"
        for name, end in (("certificate", "pem"), ("key", "key"))
    ]
    done = cli(deployment, "report", "conns", "--account", "AUTH", *pair)
    assert done.returncode == 0
    assert done.stderr.startswith("Note: of edge only the provisioning account is visible; --break-glass")
    assert cli(deployment, "report", "conns", "--account", "provisioning", *pair).stderr == ""


def test_missing_broker_is_an_error_and_the_rest_is_printed(deployment: EdgeDeployment) -> None:
    done = cli(deployment, "report", "conns", "--json")
    assert done.returncode == 1
    assert done.stderr.startswith("Error: edge: invisible without --break-glass")
    assert {row["server"] for row in json.loads(done.stdout)} == {"fleet"}


async def test_rules_and_denials_come_from_the_configured_audit_file(deployment: EdgeDeployment) -> None:
    with pytest.raises(AccessError):
        await node(deployment, "denied.example.net", token="e30.e30.e30")
    with pytest.raises(AccessError):
        await node(deployment, f"{CANARY}-0123", token="e30.e30.e30")
    pair = (
        "--certificate",
        str(deployment.directory / "provisioner.pem"),
        "--key",
        str(deployment.directory / "provisioner.key"),
    )
    async with connected(deployment):
        waiting, conns = (
            await asyncio.to_thread(cli, deployment, "report", "waiting", "--json", *pair),
            await asyncio.to_thread(cli, deployment, "report", "conns", "--json", "--rule", "provisioning", *pair),
        )
    assert (waiting.returncode, conns.returncode) == (0, 0), waiting.stderr + conns.stderr
    nodes = {item["name"]: item for item in json.loads(waiting.stdout)}
    assert {name for name, item in nodes.items() if item["connected"]} == set(NODES)
    assert nodes["denied.example.net"]["last_denial"]["code"] == "token_header"
    assert nodes["denied.example.net"]["attempts"] == 1
    assert not any(name.startswith(CANARY) for name in nodes)
    assert {row["name"] for row in json.loads(conns.stdout)} == set(NODES)


def test_watch_refreshes_until_interrupted(deployment: EdgeDeployment) -> None:
    command = [sys.executable, "-m", "broker_auth", "report", "conns", "--config", str(deployment.config)]
    command += [*seeds(deployment), "--watch", "--interval", "100ms"]
    with subprocess.Popen(
        dies_with_parent(command), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout
        assert process.stderr
        drawn = 0
        for line in process.stdout:
            drawn += line.startswith("Server\tAccount\t")
            if drawn == 3:
                break
        process.send_signal(signal.SIGINT)
        assert process.wait(15) == 0
        assert process.stderr.read() == ""


def test_watch_with_json_is_a_usage_error(deployment: EdgeDeployment) -> None:
    done = cli(deployment, "report", "waiting", "--watch", "--json")
    assert done.returncode == 2
    assert json.loads(done.stdout) == {"errors": ["--watch and --json cannot be combined"]}
