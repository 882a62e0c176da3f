"""Isolation and limits of real servers with rendered configurations."""

from __future__ import annotations

import asyncio
import dataclasses
import json
import ssl
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import nats
import pytest
from nats.aio.client import Client
from nats.errors import NoRespondersError
from nats.js.api import KeyValueConfig

from broker_auth.deploy.limits import LEAF_LINK_SUBSCRIPTIONS, SPARE_LEAF_LINKS
from broker_auth.deploy.render import PROVISIONER_BUCKET, render
from broker_auth.natsio.account_connections import connections_subject, read_report
from broker_auth.natsio.client import round_trip
from broker_auth.natsio.subjects import CALLOUT_ACCOUNT
from broker_auth.policy.permissions import KICK_INBOX, SYSTEM
from broker_auth.sandbox.natsserver import NatsServer, free_port
from broker_auth.settings.model import AuditKind, AuditOutput, AuditSettings
from tests.deadlines import HANG_SECONDS
from tests.deploy.responder import SUBJECT, Responder, connect_nkey
from tests.deploy.shapes import Shape, Topology, build, with_server
from tests.nats_server.wire import Wire

pytestmark = pytest.mark.e2e


class Deployment:
    """The running servers of a shape, a responder, and clients."""

    def __init__(self, shape: Shape) -> None:
        self.shape = shape
        self.servers = {b.name: NatsServer(self._write(b.name)) for b in shape.settings.brokers}
        restricted = {shape.settings.accounts.system: SYSTEM}
        self.responder = Responder(shape.settings, lambda request: request["connect_opts"].get("user", ""), restricted)
        self._clients: list[Client] = []

    def _write(self, name: str) -> Path:
        path = self.shape.directory / f"{name}.conf"
        path.write_text(render(self.shape.settings, self.shape.broker(name)))
        return path

    def tls(self, name: str) -> ssl.SSLContext:
        """Return a client's TLS context: with a certificate for the fleet's listener, without one for the edge's."""
        member = self.shape.authority.client("member.example.net") if name == "fleet" else None
        return self.shape.tls(member)

    async def start(self) -> None:
        for server in self.servers.values():
            await server.__aenter__()
        if "edge" in self.servers:
            await asyncio.to_thread(self.servers["edge"].wait_for_log, "Leafnode connection created")
            await asyncio.to_thread(self.servers["fleet"].wait_for_log, "Leafnode connection created")
        for name in self.servers:
            await self.responder.serve(self.shape.url(name), self.tls(name), self.shape.zone(name))

    async def connect(self, name: str, account: str, /, **options: Any) -> Client:
        """Connect a client; the responder admits it to the account that it names as its user."""
        options = {"allow_reconnect": False, "error_cb": _quiet, "connect_timeout": 10, **options}
        client = await nats.connect(self.shape.url(name), tls=self.tls(name), user=account, password="x", **options)
        self._clients.append(client)
        return client

    async def stop(self) -> None:
        for client in self._clients:
            await client.close()
        await self.responder.close()
        for server in self.servers.values():
            await asyncio.to_thread(server.kill)  # a graceful stop would wait for answers that nothing sends


async def _quiet(_: Exception) -> None:
    """Ignore errors: tests assert on them."""


@pytest.fixture(params=[True, False], ids=["xkey", "plain"])
async def edge(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Deployment]:
    deployment = Deployment(build(tmp_path, "edge", xkey=request.param))
    try:
        await deployment.start()
        yield deployment
    finally:
        await deployment.stop()


@pytest.fixture
async def single(tmp_path: Path) -> AsyncIterator[Deployment]:
    deployment = Deployment(build(tmp_path, "websocket"))
    try:
        await deployment.start()
        yield deployment
    finally:
        await deployment.stop()


async def answered(client: Client, subject: str, payload: bytes = b"hello") -> bytes:
    return (await client.request(subject, payload, timeout=HANG_SECONDS)).data


async def echo(client: Client, subject: str) -> None:
    async def reply(message: Any) -> None:
        await message.respond(b"heard " + message.data)

    await client.subscribe(subject, cb=reply)
    await round_trip(client)


async def reachable(client: Client, subject: str) -> None:
    """Wait until the subscription has crossed the leaf link, for which there is no acknowledgement."""
    async with asyncio.timeout(HANG_SECONDS):
        while True:
            try:
                await client.request(subject, b"there?", timeout=1)
            except (NoRespondersError, TimeoutError):
                continue
            return


async def test_only_provisioning_crosses_the_leaf_link(edge: Deployment) -> None:
    node = await edge.connect("edge", "provisioning")
    provisioner = await edge.connect("fleet", "provisioning")
    member = await edge.connect("fleet", "choria")
    await echo(node, "provisioning.node.n1")
    await reachable(provisioner, "provisioning.node.n1")
    assert await answered(provisioner, "provisioning.node.n1") == b"heard hello"
    with pytest.raises(NoRespondersError):
        await member.request("provisioning.node.n1", b"", timeout=HANG_SECONDS)
    await echo(member, "choria.node.m1")
    with pytest.raises(NoRespondersError):
        await node.request("choria.node.m1", b"", timeout=HANG_SECONDS)


async def test_edge_has_no_fleet_account(edge: Deployment) -> None:
    with pytest.raises(nats.errors.Error, match="Authorization"):
        await edge.connect("edge", "choria")
    assert edge.responder.requests[-1]["connect_opts"]["user"] == "choria"


async def test_lifecycle_events_of_nodes_reach_a_stream_of_the_fleet(edge: Deployment) -> None:
    member = await edge.connect("fleet", "choria")
    stream = member.jetstream()
    await stream.add_stream(name="CHORIA_EVENTS", subjects=["choria.lifecycle.>"])
    messages = await stream.subscribe("choria.lifecycle.>", ordered_consumer=True)
    node = await edge.connect("edge", "provisioning")
    arrived = asyncio.create_task(messages.next_msg(timeout=HANG_SECONDS))
    while not arrived.done():  # until the subscription has crossed the leaf link
        await node.publish("choria.lifecycle.event.startup.other", b"not this")
        await node.publish("choria.lifecycle.event.startup.provision_mode_server", b"up")
        await asyncio.wait([arrived], timeout=0.1)
    assert (await arrived).data == b"up"
    state = (await stream.stream_info("CHORIA_EVENTS", subjects_filter=">")).state
    assert set(state.subjects or {}) == {"choria.lifecycle.event.startup.provision_mode_server"}


async def test_provisioners_share_one_leader_key_and_see_no_other_stream(edge: Deployment) -> None:
    member = await edge.connect("fleet", "choria")
    stream = member.jetstream()
    await stream.create_key_value(KeyValueConfig(bucket="CHORIA_LEADER_ELECTION", ttl=60))
    await stream.create_key_value(KeyValueConfig(bucket=PROVISIONER_BUCKET, ttl=60))
    await stream.add_stream(name="SECRET", subjects=["secret.>"])
    provisioner = await edge.connect("fleet", "provisioning")
    info = json.loads(await answered(provisioner, "choria.streams.STREAM.INFO.KV_CHORIA_LEADER_ELECTION", b""))
    assert info["config"]["name"] == f"KV_{PROVISIONER_BUCKET}"
    won = json.loads(await answered(provisioner, "$KV.CHORIA_LEADER_ELECTION.provisioner", b"p1"))
    assert won == {"stream": f"KV_{PROVISIONER_BUCKET}", "seq": 1}
    prefixed = "choria.streams.$KV.CHORIA_LEADER_ELECTION.provisioner"
    assert json.loads(await answered(provisioner, prefixed, b"p2"))["seq"] == 2
    for subject in ("choria.streams.STREAM.INFO.SECRET", "$KV.CHORIA_LEADER_ELECTION.other", "secret.x"):
        with pytest.raises(NoRespondersError):
            await provisioner.request(subject, b"", timeout=HANG_SECONDS)


async def test_leaf_with_another_certificate_is_refused_without_a_callout(edge: Deployment, tmp_path: Path) -> None:
    """Facts 5 and 22: otherwise any fleet certificate would be accepted from a leaf node."""
    before = len(edge.responder.requests)
    member = edge.shape.authority.client("member.example.net").write(tmp_path, "impostor")
    rogue = with_server(
        edge.shape,
        "edge",
        name="rogue",
        listen=f"127.0.0.1:{free_port()}",
        leaf_tls=dataclasses.replace(edge.shape.broker("edge").server.leaf_tls, certificate=member[0], key=member[1]),
    )
    config = tmp_path / "rogue.conf"
    config.write_text(render(rogue.settings, rogue.broker("edge")))
    async with NatsServer(config) as server:
        await asyncio.to_thread(server.wait_for_log, "Leafnode Error 'Authorization Violation'")
    assert len(edge.responder.requests) == before


async def test_service_user_has_no_unneeded_permission(edge: Deployment) -> None:
    """Fact 4."""
    errors: asyncio.Queue[str] = asyncio.Queue()

    async def note(error: Exception) -> None:
        errors.put_nowait(str(error))

    seed = edge.shape.zone("fleet").nkey_seed
    assert seed
    service = await connect_nkey(edge.shape.url("fleet"), edge.tls("fleet"), seed.reveal())
    service._error_cb = note
    conns = "$SYS.ACCOUNT.provisioning.SERVER.CONNS"  # permitted only where nodes and provisioners share a listener
    for subject, queue in ((SUBJECT, ""), (SUBJECT, "other"), (">", ""), ("choria.>", ""), (conns, "")):
        await service.subscribe(subject, queue=queue)
        refused = await asyncio.wait_for(errors.get(), 10)
        assert "permissions violation for subscription" in refused.lower(), (subject, queue)
    for subject in ("choria.node.m1", "$SRV.PING", "anything"):
        await service.publish(subject, b"")
        assert "permissions violation for publish" in (await asyncio.wait_for(errors.get(), 10)).lower()
    failures = await service.subscribe("$SYS.ACCOUNT.CLIENT.AUTH.ERR")
    await service.subscribe("$SRV.PING")
    await round_trip(service)
    with pytest.raises(nats.errors.Error):
        await edge.connect("fleet", "no-such-account")
    assert b"no-such-account" in (await failures.next_msg(timeout=HANG_SECONDS)).data
    assert errors.empty()
    await service.close()


@pytest.mark.parametrize("topology", ["websocket", "single"])
async def test_service_receives_connection_counts_and_nothing_else(topology: Topology, tmp_path: Path) -> None:
    """Facts 30 and 4: no user of the callout account can publish connection counts."""
    deployment = Deployment(build(tmp_path, topology))
    try:
        await deployment.start()
        errors: asyncio.Queue[str] = asyncio.Queue()

        async def note(error: Exception) -> None:
            errors.put_nowait(str(error))

        seed = deployment.shape.zone("fleet").nkey_seed
        assert seed
        service = await connect_nkey(deployment.shape.url("fleet"), deployment.tls("fleet"), seed.reveal())
        service._error_cb = note
        for account in ("choria", "system", "*"):
            await service.subscribe(f"$SYS.ACCOUNT.{account}.SERVER.CONNS")
            assert "permissions violation for subscription" in (await asyncio.wait_for(errors.get(), 10)).lower()
        await service.publish("$SYS.ACCOUNT.provisioning.SERVER.CONNS", b"")
        assert "permissions violation for publish" in (await asyncio.wait_for(errors.get(), 10)).lower()
        subscriptions = [
            await service.subscribe(connections_subject(name)) for name in ("provisioning", CALLOUT_ACCOUNT)
        ]
        await round_trip(service)
        await deployment.connect("fleet", "provisioning")
        another = await connect_nkey(deployment.shape.url("fleet"), deployment.tls("fleet"), seed.reveal())
        reports = [
            read_report((await subscription.next_msg(timeout=HANG_SECONDS)).data) for subscription in subscriptions
        ]
        assert [report and (report.server.name, report.account, report.connections) for report in reports] == [
            ("fleet-1", "provisioning", 1),
            ("fleet-1", CALLOUT_ACCOUNT, 3),
        ]
        for client in (service, another):
            await client.close()
    finally:
        await deployment.stop()


async def test_callout_account_does_not_cross_the_leaf_link(edge: Deployment) -> None:
    """Clients at the edge are decided over the service's connection to the edge only."""
    await edge.responder.connections[1].close()
    before = len(edge.responder.requests)
    with pytest.raises((nats.errors.Error, TimeoutError)):
        await edge.connect("edge", "provisioning", connect_timeout=1)
    assert len(edge.responder.requests) == before


@pytest.mark.parametrize("name", ["fleet", "edge"])
async def test_break_glass_user_logs_in_when_no_service_runs(edge: Deployment, name: str) -> None:
    await edge.responder.close()
    seed = edge.shape.break_glass[edge.shape.broker(name).zone]
    operator = await connect_nkey(edge.shape.url(name), edge.tls(name), seed)
    reply = json.loads(await answered(operator, "$SYS.REQ.SERVER.PING.IDZ", b""))
    assert reply["name"] == f"{name}-1"
    await operator.close()


@pytest.mark.parametrize("name", ["fleet", "edge"])
async def test_break_glass_user_controls_servers_but_not_streams(edge: Deployment, name: str) -> None:
    """Fact 27: an unrestricted user of the system account would reach the streams of every account."""
    errors: asyncio.Queue[str] = asyncio.Queue()

    async def note(error: Exception) -> None:
        errors.put_nowait(str(error).lower())

    operator = await connect_nkey(
        edge.shape.url(name), edge.tls(name), edge.shape.break_glass[edge.shape.broker(name).zone]
    )
    operator._error_cb = note
    for subject in (">", "$JS.>", "$NRG.>", "$SYS.>", "_R_.>"):
        await operator.subscribe(subject)
        assert "permissions violation for subscription" in await asyncio.wait_for(errors.get(), 10), subject
    for api in ("STREAM.PURGE.S", "STREAM.MSG.GET.S", "STREAM.DELETE.S", "ACCOUNT.PURGE.choria", "CONSUMER.CREATE.S"):
        await operator.publish(f"$JS.API.{api}", b"", headers={"Nats-Request-Info": '{"acc": "choria"}'})
        assert "permissions violation for publish" in await asyncio.wait_for(errors.get(), 10), api
    await operator.subscribe("$SYS.ACCOUNT.*.CONNECT")
    node = await edge.connect(name, "provisioning", name="to be ended")
    gone = asyncio.Event()

    async def closed() -> None:
        gone.set()

    node._closed_cb = closed
    reply = json.loads(await answered(operator, "$SYS.REQ.SERVER.PING.CONNZ", b'{"acc": "provisioning"}'))
    (cid,) = [row["cid"] for row in reply["data"]["connections"] if row.get("name") == "to be ended"]
    await answered(operator, f"$SYS.REQ.SERVER.{reply['server']['id']}.KICK", json.dumps({"cid": cid}).encode())
    await asyncio.wait_for(gone.wait(), 10)
    assert errors.empty()
    await operator.close()


async def test_kick_user_lists_and_ends_connections_and_does_nothing_else(edge: Deployment) -> None:
    for name in ("fleet", "edge"):
        errors: asyncio.Queue[str] = asyncio.Queue()

        async def note(error: Exception, errors: asyncio.Queue[str] = errors) -> None:
            errors.put_nowait(str(error).lower())

        await edge.responder.close()  # as while no service runs
        seed = edge.shape.kick[edge.shape.broker(name).zone]
        kicker = await connect_nkey(edge.shape.url(name), edge.tls(name), seed, inbox=KICK_INBOX)
        kicker._error_cb = note
        server = json.loads(await answered(kicker, "$SYS.REQ.SERVER.PING", b""))["server"]["id"]
        for subject in (">", "$SYS.>", "_INBOX.>", "_INBOX.kick", "*.reply.x", "$JS.>", f"$SYS.SERVER.{server}.>"):
            await kicker.subscribe(subject)
            assert "permissions violation for subscription" in await asyncio.wait_for(errors.get(), 10), subject
        requests = [f"{server}.{what}" for what in ("RELOAD", "LDM", "VARZ", "SUBSZ", "JSZ", "ACCOUNTZ", "PROFILEZ")]
        requests += ["PING.VARZ", "PING.JSZ", "PING.IDZ"]
        subjects = [f"$SYS.REQ.SERVER.{request}" for request in requests]
        subjects += ["$SYS.REQ.ACCOUNT.choria.CONNZ", "$SYS.REQ.ACCOUNT.choria.SUBSZ", "$SYS.REQ.USER.INFO"]
        subjects += ["$JS.API.SERVER.REMOVE", "$JS.API.META.LEADER.STEPDOWN", "$JS.API.INFO", "choria.x", "x"]
        for subject in subjects:
            await kicker.publish(subject, b"")
            assert "permissions violation for publish" in await asyncio.wait_for(errors.get(), 10), subject
        listed = json.loads(await answered(kicker, "$SYS.REQ.SERVER.PING.CONNZ", b'{"auth": true}'))
        own = next(row for row in listed["data"]["connections"] if row["cid"] == kicker.client_id)
        assert (own["account"], own["authorized_user"]) == ("system", edge.shape.zone(name).kick_nkey)
        assert errors.empty()
        ended = asyncio.Event()

        async def closed(ended: asyncio.Event = ended) -> None:
            ended.set()

        kicker._closed_cb = closed
        subject, inbox = f"$SYS.REQ.SERVER.{server}.KICK", kicker.new_inbox()  # without an inbox it is ignored
        await kicker.publish(subject, json.dumps({"cid": kicker.client_id}).encode(), reply=inbox)
        await asyncio.wait_for(ended.wait(), HANG_SECONDS)


async def test_compromised_edge_cannot_exceed_its_subscription_limit(edge: Deployment) -> None:
    """Without a limit a million subscriptions took 750 MB of the fleet's server."""
    shape, fleet = edge.shape, edge.servers["fleet"]
    await asyncio.to_thread(edge.servers["edge"].kill)
    stolen = ssl.create_default_context(cafile=str(shape.directory / "ca.pem"))
    leaf = shape.broker("edge").server.leaf_tls
    assert leaf.certificate
    stolen.load_cert_chain(leaf.certificate, leaf.key)
    bound = 2 * shape.settings.provisioning.max_connections + 4 * LEAF_LINK_SUBSCRIPTIONS
    links = [await Wire.open(fleet.port("leaf"), stolen) for _ in range(SPARE_LEAF_LINKS + 2)]  # one edge is configured
    for number, link in enumerate(links):
        await link.connect(
            name=f"thief {number}", lang=""
        )  # leaf nodes send no language; clients do, and are refused here
    answers = [await first(link, "PONG", "-ERR") for link in links]
    assert sorted(answers) == ["-ERR 'Authorization Violation'", *["PONG"] * (SPARE_LEAF_LINKS + 1)]
    thief = links[answers.index("PONG")]
    await thief.send("".join(f"LS+ s.{index}\r\n" for index in range(bound + 50)))
    assert (await first(thief, "-ERR")).lower() == "-err 'maximum subscriptions exceeded'"
    operator = await connect_nkey(shape.url("fleet"), edge.tls("fleet"), shape.break_glass[shape.broker("fleet").zone])
    reply = json.loads(await answered(operator, "$SYS.REQ.SERVER.PING.LEAFZ", b""))
    counts = [row["subscriptions"] for row in reply["data"]["leafs"]]
    assert (len(counts), max(counts)) == (SPARE_LEAF_LINKS + 1, bound)
    await operator.close()
    for link in links:
        await link.close()


async def first(link: Wire, *starts: str) -> str:
    """Return the first line that starts with one of these, skipping other messages of the hub."""
    while not (line := await link.line()).startswith(starts):
        assert line, "the link was closed"
    return line


async def test_subscriptions_of_all_clients_cross_the_leaf_link(edge: Deployment) -> None:
    """The limit on subscriptions applies to the leaf link too and must not block either direction."""
    limit = edge.shape.settings.provisioning.max_subscriptions
    node = await edge.connect("edge", "provisioning")
    provisioner = await edge.connect("fleet", "provisioning")
    for index in range(limit):
        await echo(node, f"from.edge.{index}")
        await echo(provisioner, f"from.fleet.{index}")
        await reachable(provisioner, f"from.edge.{index}")
        await reachable(node, f"from.fleet.{index}")


@pytest.mark.parametrize(("topology", "name"), [("edge", "edge"), ("single", "fleet"), ("websocket", "fleet")])
async def test_account_limits_apply_to_nodes(topology: Topology, name: str, tmp_path: Path) -> None:
    """Fact 16: limits in callout answers are ignored, so the account's limits must apply."""
    deployment = Deployment(build(tmp_path, topology))
    try:
        await deployment.start()
        limits = deployment.shape.settings.provisioning
        server = deployment.servers[name]

        async def logs(what: str, mark: int) -> None:
            await asyncio.to_thread(server.wait_for_log, what, since=mark)

        nodes = [await deployment.connect(name, "provisioning") for _ in range(limits.max_connections)]
        if topology == "edge":
            with pytest.raises(nats.errors.Error, match="maximum account active connections"):
                await deployment.connect(name, "provisioning")
        else:
            await deployment.connect(
                name, "provisioning"
            )  # connections beyond the limit are reserved for provisioners, which the service enforces
        allowed = (
            max(limits.max_subscriptions, LEAF_LINK_SUBSCRIPTIONS) if topology == "edge" else limits.max_subscriptions
        )
        for index in range(allowed):
            await nodes[0].subscribe(f"provisioning.node.{index}")
        await round_trip(nodes[0])
        mark = server.mark()
        await nodes[0].subscribe("provisioning.node.one-more")
        await logs("maximum subscriptions exceeded", mark)
        mark = server.mark()
        nodes[1]._max_payload = 1 << 20  # a client that ignores the server's max_payload
        await nodes[1].publish("provisioning.registration.x", b"x" * (limits.max_payload + 1))
        await logs("maximum payload", mark)
    finally:
        await deployment.stop()


async def test_websocket_listener_requests_no_certificate_and_uses_the_callout(single: Deployment) -> None:
    port = single.servers["fleet"].port("websocket")
    client = await nats.connect(
        f"wss://127.0.0.1:{port}",
        tls=single.shape.tls(),
        user="provisioning",
        password="x",
        allow_reconnect=False,
        error_cb=_quiet,
    )
    asked = single.responder.requests[-1]
    assert asked["client_info"]["type"] == "websocket"
    assert not asked["client_tls"].get("verified_chains")
    await client.close()


async def test_client_listener_requires_a_certificate(single: Deployment) -> None:
    before = len(single.responder.requests)
    with pytest.raises((nats.errors.Error, OSError)):
        await nats.connect(
            single.shape.url("fleet"),
            tls=single.shape.tls(),
            user="provisioning",
            password="x",
            allow_reconnect=False,
            error_cb=_quiet,
        )
    assert len(single.responder.requests) == before


async def test_nodes_of_one_edge_do_not_displace_provisioners_at_another(edge: Deployment, tmp_path: Path) -> None:
    """A hub propagates the subscriptions of each edge to all others, where they count towards the limit."""
    port = free_port()
    second = with_server(edge.shape, "edge", name="edge-2", listen=f"127.0.0.1:{port}")
    config = tmp_path / "second.conf"
    config.write_text(render(second.settings, second.broker("edge")))
    async with NatsServer(config) as server:
        await asyncio.to_thread(server.wait_for_log, "Leafnode connection created")
        url = f"tls://127.0.0.1:{port}"
        await edge.responder.serve(url, edge.tls("edge"), edge.shape.zone("edge"))
        nodes = [await edge.connect("edge", "provisioning") for _ in range(2)]
        for number, node in enumerate(nodes):
            for index in range(LEAF_LINK_SUBSCRIPTIONS * 3 // 4):
                await node.subscribe(f"provisioning.node.n{number}.{index}")
            await round_trip(node)
        provisioner = await edge.connect("fleet", "provisioning")
        await reached(provisioner, f"provisioning.node.n1.{LEAF_LINK_SUBSCRIPTIONS * 3 // 4 - 1}")
        await echo(provisioner, "provisioning.registration.late")
        node = await nats.connect(
            url, tls=edge.tls("edge"), user="provisioning", password="x", allow_reconnect=False, error_cb=_quiet
        )
        await reachable(node, "provisioning.registration.late")
        await node.close()


async def reached(client: Client, subject: str) -> None:
    """Wait until the subject has a subscriber, whether it answers or not."""
    async with asyncio.timeout(HANG_SECONDS):
        while True:
            try:
                await client.request(subject, b"there?", timeout=0.5)
            except NoRespondersError:
                continue
            except TimeoutError:
                return


async def test_service_publishes_audit_records_and_nothing_else(tmp_path: Path) -> None:
    shape = build(tmp_path)
    outputs = (AuditOutput(kind=AuditKind.NATS, subject="audit.broker-auth"),)
    settings = dataclasses.replace(shape.settings, audit=AuditSettings(outputs=outputs))
    deployment = Deployment(dataclasses.replace(shape, settings=settings))
    try:
        await deployment.start()
        member = await deployment.connect("fleet", "choria")
        subscriptions = await member.subscribe(">")
        await round_trip(member)
        service = deployment.responder.connections[0]
        await service.publish("audit.other", b"no")
        await service.publish("audit.broker-auth", b"record")
        await round_trip(service)
        message = await subscriptions.next_msg(timeout=HANG_SECONDS)
        assert (message.subject, message.data) == ("audit.broker-auth", b"record")
        edge_text = render(settings, shape.broker("edge"))
        assert "audit.broker-auth" not in edge_text
    finally:
        await deployment.stop()


SECOND = """\
server_name: second
listen: "127.0.0.1:-1"
accounts {{
  system {{ users: [ {{ user: system, password: x }} ] }}
}}
system_account: system
cluster {{
  name: fleet
  listen: "127.0.0.1:-1"
  routes: [ "{route}" ]
  tls {{
    cert_file: "{certificate}"
    key_file: "{key}"
    ca_file: "{ca}"
    verify: true
  }}
}}
"""


@pytest.mark.parametrize("who", ["server", "member"])
async def test_cluster_accepts_its_servers_and_no_other_fleet_member(tmp_path: Path, who: str) -> None:
    shape = build(tmp_path, "edge", cluster=True)
    first = tmp_path / "fleet.conf"
    first.write_text(render(shape.settings, shape.broker("fleet")))
    server = shape.broker("fleet").server
    pair = {"server": shape.authority.server(), "member": shape.authority.client("member.example.net")}[who]
    certificate, key = pair.write(tmp_path, "second")
    (route,) = server.cluster_routes
    second = tmp_path / "second.conf"
    second.write_text(SECOND.format(route=route, certificate=certificate, key=key, ca=server.tls.ca))
    with NatsServer(first) as running, NatsServer(second) as joining:
        client = await nats.connect(f"nats://127.0.0.1:{joining.port()}", user="system", password="x")
        try:
            if who == "member":
                await asyncio.to_thread(joining.wait_for_log, "Route Error 'Authorization Violation'")
                await asyncio.to_thread(running.wait_for_log, "rid:.* - authentication error")
            expected = {"second"} if who == "member" else {"second", "fleet-1"}
            async with asyncio.timeout(HANG_SECONDS):
                while (reached_servers := await _servers(client)) < expected:
                    pass
        finally:
            await client.close()
    assert reached_servers == expected


async def _servers(system: Client) -> set[str]:
    """Return every server that answers in the system account, until one second passes without an answer."""
    answers = await system.subscribe("answers")
    await system.publish("$SYS.REQ.SERVER.PING.IDZ", reply="answers")
    names = set()
    try:
        while True:
            names.add(json.loads((await answers.next_msg(1)).data)["name"])
    except nats.errors.TimeoutError:
        await answers.unsubscribe()
        return names
