"""Permissions of admitted connections, tested by publishing and subscribing on a real server.

Each row is a subject and whether nats-server permits it. JetStream permissions are tested with real streams and
buckets. ``violates`` evaluates the server's answer.
"""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator
from functools import partial
from pathlib import Path

import pytest
import pytest_asyncio
from nats.aio.client import Client
from nats.errors import Error as NatsError
from nats.js.api import StreamConfig

from broker_auth.deploy.plan import Topology
from broker_auth.natsio.natspy import violates
from broker_auth.sandbox.client import Credentials, connect
from broker_auth.sandbox.identities import Identity
from broker_auth.sandbox.sandbox import Sandbox
from tests.deadlines import HANG_SECONDS

pytestmark = [pytest.mark.e2e, pytest.mark.asyncio(loop_scope="module")]

REFUSAL_SECONDS = 2  # nats-server does not answer a request that it refuses
SERVER = "server1.example.net"
CALLER = "up=alice"


def md5(text: str) -> str:
    return hashlib.md5(text.encode(), usedforsecurity=False).hexdigest()


def sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def sandbox(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Sandbox]:
    directory: Path = tmp_path_factory.mktemp("sandbox") / "sandbox"
    async with Sandbox(directory, Topology.SINGLE) as running:
        await running.apply_streams()
        admin = await connect(running.fleet_url, "admin", running.credentials("fleet"))
        streams = admin.jetstream()
        await streams.add_stream(StreamConfig(name="WORK", subjects=["work.>"], allow_direct=True))
        await streams.publish("work.one", b"1")
        await streams.create_key_value(bucket="SETTINGS")
        await admin.close()
        yield running


async def join(sandbox: Sandbox, identity: Identity, inbox: str = "_INBOX") -> Client:
    credentials = Credentials(ca=sandbox.ca, token=identity.token, seed=identity.seed)
    return await connect(sandbox.fleet_url, "probe", credentials, inbox=inbox)


async def passes(client: Client, verb: str, subject: str) -> bool:
    if verb == "pub":
        return not await violates(client, lambda: client.publish(subject, b""))
    return not await violates(client, lambda: client.subscribe(subject))


async def check(client: Client, rows: dict[str, bool]) -> None:
    try:
        seen = {row: await passes(client, *row.split(" ")) for row in rows}
    finally:
        await client.close()
    assert seen == rows


SERVER_ALWAYS = {
    "pub choria.lifecycle.event.startup.server": True,
    "pub choria.machine.transition": True,
    "pub choria.machine.watcher.x.y": True,
    "pub mcollective.reply.abc.1": True,
    "pub mcollective.broadcast.agent.registration": True,
    "pub choria.federation.mcollective.collective": True,
    "pub mcollective.broadcast.agent.rpcutil": False,
    "pub mcollective.node.server2.example.net": False,
    "pub other.reply.abc.1": False,
    "pub choria.federation.mcollective.federation": False,
    "pub $SYS.REQ.SERVER.PING": False,
    "sub mcollective.broadcast.agent.rpcutil": True,
    f"sub mcollective.node.{SERVER}": True,
    f"sub mcollective.reply.{md5(SERVER)}.1": True,
    f"sub mcollective.reply.{sha256(SERVER)}.1": True,
    "sub mcollective.node.server2.example.net": False,
    "sub mcollective.node.>": False,
    "sub mcollective.reply.>": False,
    f"sub mcollective.reply.{md5('server2.example.net')}.1": False,
    "sub other.broadcast.agent.rpcutil": False,
    "sub choria.lifecycle.>": False,
    "sub >": False,
}
SERVER_BY_FLAG = {
    "sub mcollective.broadcast.service.aaa": {"service_host"},
    "pub mcollective.submission.in.x": {"submission"},
    "pub mcollective.governor.DEPLOY": {"streams,governor"},
    "pub $JS.API.STREAM.INFO.WORK": {"streams", "streams,governor"},
    "pub $JS.API.CONSUMER.MSG.NEXT.WORK.c": {"streams", "streams,governor"},
    "pub $JS.ACK.WORK.c.1": {"streams", "streams,governor"},
    "sub choria.republish.x": {"streams", "streams,governor"},
    "pub $JS.API.STREAM.CREATE.MINE": set(),
    "pub $JS.API.STREAM.DELETE.WORK": set(),
    "pub $KV.SETTINGS.a": set(),
}


@pytest.mark.parametrize("flags", ["", "service_host", "submission", "streams", "streams,governor"])
async def test_server(sandbox: Sandbox, flags: str) -> None:
    rows = SERVER_ALWAYS | {row: flags in with_flags for row, with_flags in SERVER_BY_FLAG.items()}
    permissions = [flag for flag in flags.split(",") if flag]
    await check(await join(sandbox, sandbox.issuer.server(SERVER, *permissions)), rows)


async def test_server_of_several_collectives(sandbox: Sandbox) -> None:
    identity = sandbox.issuer.server(SERVER, collectives=("one", "two"))
    rows = {
        "sub one.broadcast.agent.x": True,
        "sub two.broadcast.agent.x": True,
        "sub three.broadcast.agent.x": False,
        f"sub two.node.{SERVER}": True,
        "pub two.reply.x.y": True,
        "pub three.reply.x.y": False,
    }
    await check(await join(sandbox, identity), rows)


CLIENT_ALWAYS = {
    "pub $SYS.REQ.USER.INFO": True,
    f"sub mcollective.reply.{md5(CALLER)}.1": True,
    f"sub other.reply.{sha256(CALLER)}.1": True,
}
FLEET = {"fleet_management", "signed_fleet_management"}
STREAMS = {"streams_user", "streams_admin"}
CLIENT_BY_FLAG: dict[str, set[str]] = {
    "pub mcollective.broadcast.agent.rpcutil": FLEET,
    "pub mcollective.broadcast.service.aaa": FLEET,
    "pub mcollective.node.server1.example.net": FLEET,
    "pub choria.federation.mcollective.federation": FLEET,
    "sub choria.lifecycle.event.startup.server": {"events_viewer"},
    "sub choria.machine.transition": {"events_viewer"},
    "sub choria.machine.watcher.x": {"events_viewer"},
    "sub choria.lifecycle.other": set(),
    "pub $JS.API.STREAM.INFO.KV_CHORIA_LEADER_ELECTION": {"election_user", *STREAMS},
    "pub $KV.CHORIA_LEADER_ELECTION.mine": {"election_user", "streams_user"},
    "pub $JS.API.STREAM.INFO.WORK": STREAMS,
    "pub $JS.API.STREAM.CREATE.MINE": {"streams_admin"},
    "pub $JS.API.STREAM.DELETE.WORK2": {"streams_admin"},
    "sub $JS.EVENT.ADVISORY.x": {"streams_admin"},
    "sub choria.republish.x": {"streams_user"},
    "pub $KV.SETTINGS.a": {"streams_user"},
    "pub $O.STORE.C.x": {"streams_user"},
    "pub mcollective.governor.DEPLOY": set(),
    f"sub mcollective.reply.{md5('up=bob')}.1": set(),
    "sub mcollective.reply.>": set(),
    "sub mcollective.broadcast.agent.rpcutil": set(),
    "sub mcollective.node.server1.example.net": set(),
    "pub mcollective.reply.x.y": set(),
    "pub choria.lifecycle.event.startup.server": set(),
    "pub $SYS.REQ.SERVER.PING": set(),
    "sub >": set(),
    "pub provisioning.node.n": FLEET,  # by `*.node.>`, in the fleet's account, where no node receives it
    "pub provisioning.reply.n.1": set(),
}
FLAGS = [
    "",
    "streams_admin",
    "streams_user",
    "events_viewer",
    "election_user",
    "system_user",
    "governor",
    "fleet_management",
    "signed_fleet_management",
    "service",
    "authentication_delegator",
    "provisioner",
]


@pytest.mark.parametrize("flag", FLAGS)
async def test_client_by_flag(sandbox: Sandbox, flag: str) -> None:
    rows = CLIENT_ALWAYS | {row: flag in flags for row, flags in CLIENT_BY_FLAG.items()}
    await check(await join(sandbox, sandbox.issuer.client(CALLER, *filter(None, [flag]))), rows)


@pytest.mark.parametrize("streams", ["streams_user", "streams_admin"])
async def test_client_with_governor_and_streams(sandbox: Sandbox, streams: str) -> None:
    rows = {"pub mcollective.governor.DEPLOY": True, "pub choria.lifecycle.event.governor.x": True}
    await check(await join(sandbox, sandbox.issuer.client(CALLER, "governor", streams)), rows)


async def test_org_admin_may_do_everything_in_the_fleet_account(sandbox: Sandbox) -> None:
    rows = {"sub >": True, "pub mcollective.node.x": True, "pub $JS.API.STREAM.NAMES": True}
    await check(await join(sandbox, sandbox.issuer.client(CALLER, "org_admin")), rows)


async def test_node(sandbox: Sandbox) -> None:
    client = await connect(sandbox.node_url, "node7.example.net", sandbox.credentials("node"))
    rows = {
        "pub choria.lifecycle.event.startup.provision_mode_server": True,
        "pub choria.lifecycle.event.alive.provision_mode_server": True,
        "pub choria.lifecycle.event.provisioned.provision_mode_server": True,
        "pub choria.lifecycle.event.upgraded.provision_mode_server": True,
        "pub choria.lifecycle.event.shutdown.provision_mode_server": True,
        "pub choria.lifecycle.event.startup.server": False,
        "pub choria.lifecycle.event.other.provision_mode_server": False,
        "pub choria.lifecycle.event.startup.provision_mode_server.x": False,
        "pub provisioning.reply.x.y": True,
        "pub provisioning.registration.node7": True,
        "sub provisioning.broadcast.agent.discovery": True,
        "sub provisioning.broadcast.agent.rpcutil": True,
        "sub provisioning.broadcast.agent.choria_util": True,
        "sub provisioning.broadcast.agent.choria_provision": True,
        "sub provisioning.node.node7.example.net": True,
        "sub provisioning.node.node8.example.net": False,
        "sub provisioning.node.>": False,
        "sub provisioning.node.*.example.net": False,
        "sub provisioning.reply.>": False,
        "sub choria.lifecycle.>": False,
        "sub _INBOX.x": False,
        "sub >": False,
        "pub provisioning.node.node8.example.net": False,
        "pub provisioning.broadcast.agent.choria_provision": False,
        "pub $JS.API.INFO": False,
        "pub $SYS.REQ.ACCOUNT.PING.CONNZ": False,
        "pub $SYS.REQ.USER.INFO": False,
        "pub choria.streams.STREAM.INFO.KV_CHORIA_LEADER_ELECTION": False,
        "pub $KV.CHORIA_LEADER_ELECTION.provisioner": False,
        "pub mcollective.broadcast.agent.rpcutil": False,
    }
    await check(client, rows)


async def test_node_cannot_join_a_queue_group(sandbox: Sandbox) -> None:
    """Each queue group is another subscription on an edge's leaf link, and their number is unlimited."""
    client = await connect(sandbox.node_url, "node7.example.net", sandbox.credentials("node"))
    for queue in ("q", "q.x", "provisioning.node.node7.example.net"):
        for subject in ("provisioning.node.node7.example.net", "provisioning.broadcast.agent.rpcutil"):
            joining = partial(client.subscribe, subject, queue=queue)
            assert await violates(client, joining), (subject, queue)
    assert await passes(client, "sub", "provisioning.node.node7.example.net")
    await client.close()


async def test_system_user_controls_servers_but_not_streams(sandbox: Sandbox) -> None:
    client = await connect(sandbox.fleet_url, "operator", sandbox.credentials("system"))
    rows = {
        "pub $SYS.REQ.SERVER.PING.CONNZ": True,
        "pub $SYS.REQ.SERVER.PING.JSZ": True,
        "pub $SYS.REQ.ACCOUNT.choria.INFO": True,
        "pub $JS.API.META.LEADER.STEPDOWN": True,
        "pub $JS.API.SERVER.REMOVE": True,
        "sub $SYS.ACCOUNT.*.CONNECT": True,
        "sub $SYS.SERVER.*.STATSZ": True,
        "sub _INBOX.x": True,
        "sub mcollective.reply.x.y": True,
        "sub >": False,
        "sub $JS.>": False,
        "sub $JS.EVENT.ADVISORY.>": False,
        "sub $NRG.>": False,
        "sub $SYS.REQ.>": False,
        "pub $JS.API.STREAM.PURGE.CHORIA_EVENTS": False,
        "pub $JS.API.STREAM.MSG.GET.CHORIA_EVENTS": False,
        "pub $JS.API.ACCOUNT.PURGE.choria": False,
        "pub $SYS.ACCOUNT.choria.CONNECT": False,
    }
    await check(client, rows)


async def test_provisioner_may_do_everything_in_its_account(sandbox: Sandbox) -> None:
    client = await connect(sandbox.fleet_url, "provisioner", sandbox.credentials("provisioner"))
    rows = {"sub >": True, "pub provisioning.node.node7": True, "pub choria.lifecycle.x": True}
    await check(client, rows)


async def test_streams_user_uses_streams_and_buckets_but_cannot_create_them(sandbox: Sandbox) -> None:
    inbox = f"mcollective.reply.{md5(CALLER)}"
    client = await join(sandbox, sandbox.issuer.client(CALLER, "streams_user"), inbox)
    streams = client.jetstream(timeout=HANG_SECONDS)
    assert (await streams.stream_info("WORK")).state.messages == 1
    subscription = await streams.pull_subscribe("work.>", stream="WORK", durable="d1")
    [message] = await subscription.fetch(1, timeout=HANG_SECONDS)
    await message.ack()
    bucket = await streams.key_value("SETTINGS")
    await bucket.put("colour", b"green")
    assert (await bucket.get("colour")).value == b"green"
    unanswered = client.jetstream(timeout=REFUSAL_SECONDS)
    with pytest.raises((NatsError, TimeoutError)):
        await unanswered.add_stream(name="MINE", subjects=["mine.>"])
    with pytest.raises((NatsError, TimeoutError)):
        await unanswered.delete_stream("WORK")
    await client.close()


async def test_streams_admin_creates_streams(sandbox: Sandbox) -> None:
    client = await join(sandbox, sandbox.issuer.client(CALLER, "streams_admin"), f"mcollective.reply.{md5(CALLER)}")
    streams = client.jetstream(timeout=HANG_SECONDS)
    assert (await streams.add_stream(name="MINE", subjects=["mine.>"])).config.name == "MINE"
    assert await streams.delete_stream("MINE")
    await client.close()


async def test_server_with_streams_reads_but_cannot_write_buckets(sandbox: Sandbox) -> None:
    client = await join(sandbox, sandbox.issuer.server(SERVER, "streams"), f"mcollective.reply.{md5(SERVER)}")
    streams = client.jetstream(timeout=HANG_SECONDS)
    bucket = await streams.key_value("SETTINGS")
    assert bucket is not None
    assert (await streams.get_msg("WORK", seq=1, direct=True)).data == b"1"
    subscription = await streams.pull_subscribe("work.>", stream="WORK", durable="d2")
    [message] = await subscription.fetch(1, timeout=HANG_SECONDS)
    assert message.data == b"1"
    with pytest.raises((NatsError, TimeoutError)):
        await client.jetstream(timeout=REFUSAL_SECONDS).publish("$KV.SETTINGS.colour", b"red")
    await client.close()


async def test_election_user_writes_only_its_bucket(sandbox: Sandbox) -> None:
    client = await join(sandbox, sandbox.issuer.client(CALLER, "election_user"), f"mcollective.reply.{md5(CALLER)}")
    streams = client.jetstream(timeout=HANG_SECONDS)
    election = await streams.key_value("CHORIA_LEADER_ELECTION")
    assert await election.create("task", b"me")
    with pytest.raises((NatsError, TimeoutError)):
        await client.jetstream(timeout=REFUSAL_SECONDS).key_value("SETTINGS")
    await client.close()
