"""Choria's streams on a real JetStream: they are created, kept and changed, and changes are shown first."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from nats.aio.client import Client

from broker_auth.errors import OperationError
from broker_auth.operate.logins import Login, connect
from broker_auth.operate.report.gathering import Ask, ask_system
from broker_auth.operate.streams.change import change_streams
from broker_auth.operate.streams.plan import Action, apply, cluster_peers, compare, current_config, plan, target_streams
from broker_auth.sandbox.natsserver import NatsServer, free_port
from broker_auth.secret import Secret
from broker_auth.settings.model import StreamSettings
from tests.deadlines import HANG_SECONDS
from tests.operate.deployment import EdgeDeployment

pytestmark = pytest.mark.e2e
EVENTS = ("CHORIA_EVENTS", "CHORIA_MACHINE", "CHORIA_STREAM_ADVISORIES")
BUCKETS = ("KV_CHORIA_LEADER_ELECTION", "KV_CHORIA_PROVISIONER_ELECTION")
NAMES = (*EVENTS, *BUCKETS)
STATIC = """\
server_name: {name}
listen: "127.0.0.1:-1"
jetstream {{ store_dir: "{store}" }}
accounts {{
  choria {{ jetstream: enabled, users: [ {{ user: fleet, password: x }} ] }}
  system {{ users: [ {{ user: system, password: x }} ] }}
}}
system_account: system
{more}
"""


def configuration(directory: Path, name: str = "one", more: str = "") -> Path:
    path = directory / f"{name}.conf"
    path.write_text(STATIC.format(name=name, store=directory / name, more=more))
    return path


async def enter(server: NatsServer, user: str) -> Client:
    return await connect(f"nats://127.0.0.1:{server.port()}", Login(what=user, user=user, password=Secret("x")), None)


@asynccontextmanager
async def entered(server: NatsServer, *users: str) -> AsyncIterator[list[Client]]:
    async with AsyncExitStack() as stack:
        clients = [await enter(server, user) for user in users]
        for client in clients:
            stack.push_async_callback(client.close)
        yield clients


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[NatsServer]:
    with NatsServer(configuration(tmp_path_factory.mktemp("js"))) as running:
        yield running


@pytest.fixture
async def fleet(server: NatsServer) -> AsyncIterator[Client]:
    """Yield a client of the fleet's account, which has no stream."""
    async with entered(server, "fleet") as (client,):
        streams = client.jetstream()
        for name in NAMES:
            if await current_config(client, name) is not None:
                await streams.delete_stream(name)
        yield client


async def actions(client: Client, settings: StreamSettings, peers: int = 1) -> dict[str, Action]:
    return {change.name: change.action for change in await plan(client, target_streams(settings, peers))}


async def test_streams_are_created_like_chorias_and_then_need_no_change(fleet: Client) -> None:
    settings = StreamSettings()
    assert await actions(fleet, settings) == dict.fromkeys(NAMES, Action.CREATE)
    await apply(fleet, await plan(fleet, target_streams(settings, 1)))
    assert await actions(fleet, settings) == dict.fromkeys(NAMES, Action.NOTHING)
    made = {name: await current_config(fleet, name) or {} for name in NAMES}
    day = 86_400 * 10**9
    assert {name: (item["subjects"], item["max_age"]) for name, item in made.items()} == {
        "CHORIA_EVENTS": (["choria.lifecycle.>"], day),
        "CHORIA_MACHINE": (["choria.machine.>"], day),
        "CHORIA_STREAM_ADVISORIES": (["$JS.EVENT.ADVISORY.>"], 7 * day),
        "KV_CHORIA_LEADER_ELECTION": (["$KV.CHORIA_LEADER_ELECTION.>"], 60 * 10**9),
        "KV_CHORIA_PROVISIONER_ELECTION": (["$KV.CHORIA_PROVISIONER_ELECTION.provisioner"], 10 * 10**9),
    }
    assert {item["storage"] for item in made.values()} == {"file"}
    assert [made[name].get("no_ack", False) for name in NAMES] == [True, True, True, False, False]
    assert [made[name]["max_bytes"] for name in NAMES] == [1024**3, 1024**3, 1024**3, -1, -1]
    assert [made[name]["max_msgs"] for name in NAMES] == [1_000_000, 1_000_000, 1_000_000, -1, -1]
    assert {made[name]["duplicate_window"] for name in (*EVENTS, BUCKETS[1])} == {10**8}
    fixed = ("max_msgs_per_subject", "max_msg_size", "discard", "deny_delete", "allow_rollup_hdrs", "allow_direct")
    assert [made[BUCKETS[0]][name] for name in fixed] == [1, 1024, "new", True, True, True]
    assert [made[BUCKETS[1]][name] for name in fixed] == [1, 1024, "new", True, False, True]
    assert made[BUCKETS[1]]["deny_purge"]


async def test_buckets_work_with_key_value_clients(fleet: Client) -> None:
    await apply(fleet, await plan(fleet, target_streams(StreamSettings(), 1)))
    for name in BUCKETS:
        bucket = await fleet.jetstream().key_value(name.removeprefix("KV_"))
        assert await bucket.create("provisioner", b"one") > 0
        assert (await bucket.get("provisioner")).value == b"one"


async def test_only_differences_are_changed(fleet: Client) -> None:
    settings = StreamSettings()
    await apply(fleet, await plan(fleet, target_streams(settings, 1)))
    tuned = await current_config(fleet, "CHORIA_MACHINE") or {}
    await fleet.jetstream().update_stream(
        name="CHORIA_MACHINE",
        subjects=tuned["subjects"],
        max_bytes=1_000_000,
        max_msgs=5000,
        max_age=86_400,
        no_ack=True,
        duplicate_window=0.1,
    )
    shorter = replace(settings, machine_retention=60.0, leader_election_ttl=5.0, provisioner_election_ttl=4.0)
    changes = {change.name: change for change in await plan(fleet, target_streams(shorter, 1))}
    assert [name for name, change in changes.items() if change.action is Action.UPDATE] == [EVENTS[1], *BUCKETS]
    (only,) = changes["CHORIA_MACHINE"].differences
    assert (only.field, only.now, only.target) == ("max_age", 86_400 * 10**9, 60 * 10**9)
    await apply(fleet, list(changes.values()))
    assert set((await actions(fleet, shorter)).values()) == {Action.NOTHING}
    machine = await current_config(fleet, "CHORIA_MACHINE") or {}
    assert (machine["max_age"], machine["max_bytes"], machine["max_msgs"]) == (60 * 10**9, 1_000_000, 5000)


async def test_streams_of_an_earlier_release_get_missing_bounds(fleet: Client) -> None:
    """Release 0.1.0 had no bound on messages, two minutes of message ids in memory, no bucket for provisioners."""
    for item in target_streams(StreamSettings(), 1)[:-1]:
        config = {
            key: value for key, value in (item.config or {}).items() if key not in ("max_msgs", "duplicate_window")
        }
        await apply(fleet, [replace(compare(item, None), config=config)])
    changes = {change.name: change for change in await plan(fleet, target_streams(StreamSettings(), 1))}
    assert {name: change.action for name, change in changes.items()} == {
        **dict.fromkeys(EVENTS, Action.UPDATE),
        BUCKETS[0]: Action.NOTHING,
        BUCKETS[1]: Action.CREATE,
    }
    assert {difference.field for difference in changes["CHORIA_EVENTS"].differences} == {"max_msgs", "duplicate_window"}
    await apply(fleet, list(changes.values()))
    assert set((await actions(fleet, StreamSettings())).values()) == {Action.NOTHING}


async def test_stream_with_retention_zero_is_unwanted_but_not_deleted(fleet: Client) -> None:
    without = StreamSettings(machine_retention=0.0)
    assert (await actions(fleet, without))["CHORIA_MACHINE"] is Action.NOTHING
    await apply(fleet, await plan(fleet, target_streams(StreamSettings(), 1)))
    assert (await actions(fleet, without))["CHORIA_MACHINE"] is Action.UNWANTED
    await apply(fleet, await plan(fleet, target_streams(without, 1)))
    assert await current_config(fleet, "CHORIA_MACHINE") is not None


async def test_refusal_by_jetstream_is_reported(fleet: Client) -> None:
    with pytest.raises(OperationError, match=r"CHORIA_EVENTS.*replicas"):
        await apply(fleet, await plan(fleet, target_streams(StreamSettings(event_replicas=3), 1)))


async def test_account_without_jetstream_is_reported(server: NatsServer) -> None:
    async with entered(server, "system") as (client,):
        with pytest.raises(OperationError, match="JetStream"):
            await plan(client, target_streams(StreamSettings(), 1))


@pytest.mark.parametrize(
    ("asked", "peers", "expected"), [(-1, 1, 1), (-1, 2, 2), (-1, 3, 3), (-1, 5, 3), (5, 5, 5), (1, 3, 1)]
)
def test_replicas(asked: int, peers: int, expected: int) -> None:
    (events, *_) = target_streams(StreamSettings(event_replicas=asked), peers)
    assert events.config
    assert events.config["num_replicas"] == expected


def test_omitted_field_means_false() -> None:
    (*_, bucket) = target_streams(StreamSettings(), 1)
    assert bucket.config
    now = {**bucket.config, "deny_delete": False}
    assert [item.field for item in compare(bucket, now).differences] == ["deny_delete"]


async def test_cluster_of_three_has_three_replicas(tmp_path: Path) -> None:
    ports = [free_port() for _ in range(3)]
    routes = ", ".join(f'"nats-route://127.0.0.1:{port}"' for port in ports)
    cluster = 'cluster {{ name: fleet, listen: "127.0.0.1:{port}", routes: [ {routes} ] }}'
    async with AsyncExitStack() as stack:
        servers = [
            NatsServer(configuration(tmp_path, f"s{number}", cluster.format(port=port, routes=routes)))
            for number, port in enumerate(ports)
        ]
        await asyncio.gather(*(stack.enter_async_context(server) for server in servers))
        fleet, system = await stack.enter_async_context(entered(servers[0], "fleet", "system"))
        async with asyncio.timeout(HANG_SECONDS):
            while True:  # until the group has elected its leader
                try:
                    peers = await cluster_peers(system)
                    target = target_streams(StreamSettings(), peers)
                    await apply(fleet, await plan(fleet, target))
                except OperationError:
                    continue
                break
        assert peers == 3
        assert {(await current_config(fleet, name) or {})["num_replicas"] for name in NAMES} == {3}
        result = await ask_system(system, Ask())
        assert ({answer.server.name for answer in result.answers}, result.missing) == ({"s0", "s1", "s2"}, [])


async def test_command_uses_the_configured_certificate(tmp_path: Path) -> None:
    deployment = EdgeDeployment(tmp_path)
    with deployment.running():
        access = deployment.access()
        shown = await change_streams(access, dry_run=True)
        assert {change.action for change in shown} == {Action.CREATE}
        assert await change_streams(access, dry_run=True) == shown
        assert await change_streams(access, dry_run=False) == shown
        assert {change.action for change in await change_streams(access, dry_run=False)} == {Action.NOTHING}
        deployment.write_config("plugin.choria.network.stream.event_retention = 2d")
        first, second, third = [await asyncio.to_thread(cli, deployment, *more) for more in (["--dry-run"], [], [])]
        assert [done.returncode for done in (first, second, third)] == [0, 0, 0]
        assert first.stdout == second.stdout.replace('"dry_run": false', '"dry_run": true')
        changed = {row["name"]: row for row in json.loads(second.stdout)["streams"]}
        assert changed["CHORIA_EVENTS"]["changes"] == {"max_age": {"from": 86_400 * 10**9, "to": 172_800 * 10**9}}
        assert {row["action"] for row in json.loads(third.stdout)["streams"]} == {"nothing"}


def cli(deployment: EdgeDeployment, *more: str) -> subprocess.CompletedProcess[str]:
    command = [
        sys.executable,
        "-m",
        "broker_auth",
        "streams",
        "apply",
        "--json",
        "--config",
        str(deployment.config),
        *more,
    ]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


async def test_error_without_a_service_is_one_line(tmp_path: Path) -> None:
    deployment = EdgeDeployment(tmp_path)
    with deployment.running(service=False):
        done: Any = await asyncio.to_thread(cli, deployment)
    assert done.returncode == 1
    assert done.stderr.startswith("Error: ")
    assert done.stderr.count("\n") == 1
    assert "cannot log in to broker fleet" in done.stderr
    assert json.loads(done.stdout) == {"errors": [done.stderr.strip().removeprefix("Error: ")]}
