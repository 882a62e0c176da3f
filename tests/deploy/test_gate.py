"""The rendered leaf link of a gate on real servers, and attacks with the keys of a gate."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import nats
import pytest
from nats.aio.client import Client
from nats.errors import NoRespondersError

from broker_auth.deploy.limits import SPARE_LEAF_LINKS
from broker_auth.deploy.natsbinary import check_configuration
from broker_auth.deploy.pki import Pair
from broker_auth.deploy.render import render
from broker_auth.natsio.client import round_trip
from broker_auth.policy.permissions import GATE_LINK
from broker_auth.sandbox.natsserver import NatsServer, free_port
from broker_auth.settings.keys.broker import CIPHER_SUITE_NAMES, CURVE_NAMES
from tests.deadlines import HANG_SECONDS
from tests.deploy.shapes import BRANCH_NAME, GATE_NAME, build, with_gate, with_server
from tests.deploy.test_topology import Deployment, answered, echo, reachable
from tests.nats_server.wire import Wire

pytestmark = pytest.mark.e2e

# Each is outside of what any token earns by its flags.
FORBIDDEN = (
    "acme.private",
    "$JS.API.STREAM.CREATE.THEFT",
    "$JS.API.STREAM.DELETE.EVENTS",
    "$JS.API.STREAM.PURGE.EVENTS",
    "$JS.API.STREAM.UPDATE.EVENTS",
    "$SYS.REQ.SERVER.PING",
    "$SYS.REQ.USER.AUTH",
    "broker-auth.audit",
    "mcollective.registration.x",
)
ALLOWED = ("mcollective.node.m1", "mcollective.broadcast.agent.rpcutil", "mcollective.reply.0.1", "choria.lifecycle.x")
INBOX = b"mcollective.reply.abc"  # as Choria's clients have it: replies to others do not cross the link
UNHEARD = (
    "acme.private",
    "$JS.API.STREAM.INFO.EVENTS",
    "choria.lifecycle.other",
    "$KV.X.y",
    "mcollective.submission.in.x",
)


@pytest.fixture
async def gate(tmp_path: Path) -> AsyncIterator[Deployment]:
    deployment = Deployment(with_gate(build(tmp_path)))
    try:
        await deployment.start()
        await asyncio.to_thread(deployment.servers["gate"].wait_for_log, "Leafnode connection created")
        yield deployment
    finally:
        await deployment.stop()


def stolen(gate: Deployment, name: str = GATE_NAME) -> ssl.SSLContext:
    """Return the TLS context of an attacker with the link certificate of this name."""
    return gate.shape.tls(_pair(gate, name), "thief")


def _pair(gate: Deployment, name: str) -> Pair:
    return gate.shape.authority.client(name)


class Thief:
    """An attacker that speaks the leaf node protocol with a gate's certificate."""

    def __init__(self, wire: Wire) -> None:
        self._wire = wire

    @classmethod
    async def link(cls, gate: Deployment, **options: Any) -> Thief:
        """Connect to the fleet's leaf listener."""
        wire = await Wire.open(gate.servers["fleet"].port("leaf"), stolen(gate))
        await wire.connect(name="thief", lang="", headers=True, **options)
        thief = cls(wire)
        assert await thief.first("PONG", "-ERR") == "PONG"
        return thief

    async def first(self, *starts: str) -> str:
        """Return the first line that starts with one of these."""
        while not (line := await self._wire.line()).startswith(starts):
            assert line, "the link was closed"
        return line

    async def publish(self, subject: str) -> None:
        """Send a message to the fleet's account."""
        await self._wire.send(f"LMSG {subject} 5\r\nstole\r\n")

    async def subscribe(self, subject: str) -> None:
        """Ask for messages of the fleet's account."""
        await self._wire.send(f"LS+ {subject}\r\n")

    async def heard_until(self, last: str) -> list[str]:
        """Return the subjects of messages up to that of ``last``."""
        received: list[str] = []
        while not received or received[-1] != last:
            received.append((await self.first("LMSG ")).split(" ")[1])
        return received

    async def is_linked(self) -> bool:
        """Wait until the server has processed everything that was sent; return whether it left the link open."""
        await self._wire.send("PING\r\n")
        while line := await self._wire.line():
            if line.startswith("PONG"):
                return True
        return False

    async def close(self) -> None:
        """Close the connection."""
        await self._wire.close()


async def listening(client: Client, subject: str = ">") -> list[str]:
    received: list[str] = []

    async def note(message: Any) -> None:
        received.append(message.subject)

    await client.subscribe(subject, cb=note)
    await round_trip(client)
    return received


async def test_members_at_a_gate_and_in_the_fleet_reach_each_other(gate: Deployment) -> None:
    outside = await gate.connect("gate", "choria", inbox_prefix=INBOX)
    member = await gate.connect("fleet", "choria", inbox_prefix=INBOX)
    await echo(member, "mcollective.node.m1")
    await reachable(outside, "mcollective.node.m1")
    assert await answered(outside, "mcollective.node.m1") == b"heard hello"
    await echo(outside, "mcollective.broadcast.agent.rpcutil")
    await reachable(member, "mcollective.broadcast.agent.rpcutil")
    assert await answered(member, "mcollective.broadcast.agent.rpcutil") == b"heard hello"

    streams = member.jetstream()
    await streams.add_stream(name="EVENTS", subjects=["choria.lifecycle.>"])
    await reachable(outside, "choria.lifecycle.event.startup.x")  # the stream acknowledges
    assert b'"name":"EVENTS"' in await answered(outside, "$JS.API.STREAM.INFO.EVENTS", b"")
    with pytest.raises((TimeoutError, NoRespondersError)):
        await outside.request("$JS.API.STREAM.DELETE.EVENTS", b"", timeout=1)
    assert (await streams.stream_info("EVENTS")).state.messages


async def test_edge_keeps_its_account_beside_a_gate(gate: Deployment) -> None:
    node = await gate.connect("edge", "provisioning")
    provisioner = await gate.connect("fleet", "provisioning")
    await echo(node, "provisioning.node.n1")
    await reachable(provisioner, "provisioning.node.n1")
    member = await gate.connect("fleet", "choria")
    with pytest.raises(NoRespondersError):
        await member.request("provisioning.node.n1", b"", timeout=HANG_SECONDS)


@pytest.mark.parametrize("hub", [False, True], ids=["as a leaf node", "as a hub"])
async def test_stolen_gate_publishes_only_what_tokens_may(gate: Deployment, hub: bool) -> None:
    """The fleet's server closes the link at a violation, so each subject is tried over a new one."""
    fleet, provisioner = await gate.connect("fleet", "choria"), await gate.connect("fleet", "provisioning")
    received, provisioning = await listening(fleet), await listening(provisioner)
    for subject in (*FORBIDDEN, *ALLOWED):
        thief = await Thief.link(gate, is_hub=hub, remote_account="provisioning")
        await thief.publish(subject)
        assert await thief.is_linked() or subject in FORBIDDEN
        await thief.close()
    await round_trip(fleet)
    await round_trip(provisioner)
    assert [subject for subject in received if subject in FORBIDDEN] == []
    assert [subject for subject in received if subject in ALLOWED] == list(ALLOWED)
    assert provisioning == []


@pytest.mark.parametrize("hub", [False, True], ids=["as a leaf node", "as a hub"])
async def test_stolen_gate_hears_only_what_tokens_may(gate: Deployment, hub: bool) -> None:
    fleet, provisioner = await gate.connect("fleet", "choria"), await gate.connect("fleet", "provisioning")
    thief = await Thief.link(gate, is_hub=hub, remote_account="provisioning")
    for subject in (">", "*.>", "acme.>", "provisioning.>", "$SYS.>", "$JS.>"):
        await thief.subscribe(subject)
    assert await thief.is_linked()
    for subject in UNHEARD:
        await fleet.publish(subject, b"secret")
    for subject in ("provisioning.node.n1", "choria.lifecycle.event.alive.x"):
        await provisioner.publish(subject, b"secret")
    await round_trip(provisioner)
    await fleet.publish("mcollective.node.last", b"")
    await fleet.flush()
    received = await thief.heard_until("mcollective.node.last")
    assert all(GATE_LINK.sub.allows(subject) for subject in received), received
    assert not {*UNHEARD, "provisioning.node.n1"} & set(received)
    await thief.close()


async def test_member_at_a_gate_cannot_end_the_link(gate: Deployment) -> None:
    """The gate knows the permissions of its link, and sends nothing that would close it."""
    outside = await gate.connect("gate", "choria", inbox_prefix=INBOX)
    member = await gate.connect("fleet", "choria", inbox_prefix=INBOX)
    await listening(member)
    for subject in FORBIDDEN:
        if not subject.startswith("$SYS.REQ.USER"):
            await outside.publish(subject, b"")
            await outside.subscribe(subject)
    await round_trip(outside)
    await echo(member, "mcollective.node.m1")
    await reachable(outside, "mcollective.node.m1")
    assert not [line for line in gate.servers["fleet"].log() if "Violation" in line]


async def test_stolen_gate_gets_no_more_links_than_there_are_gates_and_some_to_spare(gate: Deployment) -> None:
    wires = [await Wire.open(gate.servers["fleet"].port("leaf"), stolen(gate)) for _ in range(SPARE_LEAF_LINKS + 2)]
    for number, wire in enumerate(wires):
        await wire.connect(name=f"thief {number}", lang="")
    reported = [await Thief(wire).first("PONG", "-ERR") for wire in wires]
    # One gate, which has its link, and one branch network.
    refused = "-ERR 'maximum account active connections exceeded'"
    assert sorted(reported) == [refused, *["PONG"] * (SPARE_LEAF_LINKS + 1)]
    for wire in wires:
        await wire.close()


async def test_names_of_links_open_nothing_but_the_leaf_listener(gate: Deployment) -> None:
    for user in (GATE_NAME, BRANCH_NAME):
        with pytest.raises(nats.errors.Error, match="Authorization"):
            await nats.connect(
                gate.shape.url("fleet"), tls=gate.tls("fleet"), user=user, password="", allow_reconnect=False
            )
    assert not [
        item for item in gate.responder.requests if item["connect_opts"].get("user") in (GATE_NAME, BRANCH_NAME)
    ]


async def test_other_leaf_node_is_asked_about_as_such(gate: Deployment) -> None:
    wire = await Wire.open(gate.servers["fleet"].port("leaf"), stolen(gate, "other.example.net"))
    await wire.connect(name="other", lang="")
    assert (await Thief(wire).first("PONG", "-ERR")).startswith("-ERR 'Authorization")
    assert gate.responder.requests[-1]["client_info"]["kind"] == "Leafnode"
    await wire.close()


async def test_gate_has_no_provisioning_account(gate: Deployment) -> None:
    with pytest.raises(nats.errors.Error, match="Authorization"):
        await gate.connect("gate", "provisioning")
    lines = gate.shape.directory.joinpath("gate.conf").read_text().splitlines()
    assert not [line for line in lines if '"provisioning"' in line and not line.lstrip().startswith("#")]


@pytest.mark.parametrize("gates", [True, False], ids=["beside a gate", "alone"])
async def test_branch_network_is_in_the_fleets_account(gates: bool, tmp_path: Path) -> None:
    shape = with_gate(build(tmp_path)) if gates else with_server(build(tmp_path), "fleet", leaf_branches=(BRANCH_NAME,))
    deployment = Deployment(shape)
    certificate, key = _pair(deployment, BRANCH_NAME).write(tmp_path, "branch")
    leaf = shape.broker("fleet").server.leaf_listen
    config = tmp_path / "branch.conf"
    config.write_text(
        f'listen: "127.0.0.1:{free_port()}"\n'
        f'leafnodes {{ remotes: [ {{ url: "tls://{leaf}", tls {{ cert_file: "{certificate}", key_file: "{key}", '
        f'ca_file: "{tmp_path / "ca.pem"}" }} }} ] }}\n'
    )
    try:
        await deployment.start()
        async with NatsServer(config) as branch:
            await asyncio.to_thread(branch.wait_for_log, "Leafnode connection created")
            inside = await nats.connect(f"nats://127.0.0.1:{branch.port()}")
            member = await deployment.connect("fleet", "choria")
            await echo(inside, "acme.private")
            await reachable(member, "acme.private")
            assert await answered(member, "acme.private") == b"heard hello"
            await inside.close()
    finally:
        await deployment.stop()


@pytest.mark.parametrize("role", ["fleet", "edge", "gate"])
def test_nats_server_accepts_every_cipher_suite_and_curve(tmp_path: Path, role: str) -> None:
    shape = with_gate(build(tmp_path, cluster=True))
    shape = with_server(shape, "fleet", websocket_listen=f"127.0.0.1:{free_port()}")
    chosen = {"cipher_suites": CIPHER_SUITE_NAMES, "curves": CURVE_NAMES}
    shape = with_server(shape, role, client_advertise="nats.example.net:4222", max_connections=100, **chosen)
    text = render(shape.settings, shape.broker(role))
    # Of the listener, and of the leaf link; the fleet has a WebSocket listener and routes, too.
    assert text.count("cipher_suites:") == text.count("curve_preferences:") == (4 if role == "fleet" else 2)
    assert 'client_advertise: "nats.example.net:4222"' in text
    assert "\nmax_connections: 100\n" in text
    config = tmp_path / "chosen.conf"
    config.write_text(text)
    check_configuration(config)


@pytest.mark.parametrize("cluster", [False, True], ids=["alone", "cluster"])
@pytest.mark.parametrize("xkey", [False, True], ids=["plain", "xkey"])
def test_nats_server_accepts_every_rendering(tmp_path: Path, xkey: bool, cluster: bool) -> None:
    shape = with_gate(build(tmp_path, xkey=xkey, cluster=cluster), xkey=xkey)
    for broker in shape.settings.brokers:
        config = tmp_path / f"{broker.name}.conf"
        config.write_text(render(shape.settings, broker))
        check_configuration(config)
