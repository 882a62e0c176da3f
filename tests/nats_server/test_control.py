"""Facts 20 to 22 and 26: connection reports, commands of the system account, and INFO."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import nats.errors
import pytest
from nats.aio.client import Client

from broker_auth.sandbox.natsserver import NatsServer, free_port
from tests.deadlines import HANG_SECONDS
from tests.nats_server.site import Site, echo, reachable
from tests.nats_server.wire import Wire

pytestmark = pytest.mark.e2e
ROW = {"cid", "kind", "type", "ip", "port", "start", "rtt", "name", "lang", "version", "account", "authorized_user"}


async def ask(client: Client, subject: str, **question: Any) -> dict[str, Any]:
    reply: dict[str, Any] = json.loads(
        (await client.request(subject, json.dumps(question).encode(), timeout=HANG_SECONDS)).data
    )
    return reply


async def linked(sandbox: Site) -> tuple[NatsServer, NatsServer]:
    """Start a hub and an edge that share only the clients' account."""
    port = free_port()
    users = "users: [ { user: edge, password: x, account: APP } ]"
    hub = await sandbox.serve(
        name="hub", extra=f'leafnodes {{ listen: "127.0.0.1:{port}", authorization {{ {users} }} }}'
    )
    edge = await sandbox.start(sandbox.leaf(port))
    for server in (hub, edge):
        await sandbox.responder(server, lambda request: sandbox.signer.admit(request, name="given"))
    await echo(await sandbox.client(edge, name="node"), "across")
    await reachable(await sandbox.client(hub, name="asker"), "across")
    return hub, edge


async def test_fact_20_system_account_reports_only_servers_that_share_it(sandbox: Site) -> None:
    hub, edge = await linked(sandbox)
    operator = await sandbox.operate(hub)
    reply = await ask(operator, "$SYS.REQ.SERVER.PING.CONNZ", acc="APP", auth=True)
    assert reply["server"]["name"] == "hub"
    rows = {row["kind"]: row for row in reply["data"]["connections"]}
    assert set(rows) == {"Client", "Leafnode"}
    assert set(rows["Client"]) >= ROW
    assert rows["Client"]["name"] == "asker"
    assert rows["Client"]["authorized_user"] == "given"
    edge_operator = await sandbox.operate(edge)
    answer = await ask(edge_operator, "$SYS.REQ.SERVER.PING.CONNZ", acc="APP", auth=True)
    assert answer["server"]["name"] == "edge"
    with pytest.raises(nats.errors.NoRespondersError):
        await ask(operator, f"$SYS.REQ.SERVER.{answer['server']['id']}.CONNZ")


async def test_fact_20_report_includes_tls(sandbox: Site) -> None:
    server = await sandbox.serve(tls="open")
    await sandbox.responder(server, tls=sandbox.tls())
    assert await (await sandbox.wire(server, sandbox.tls())).login() == "PONG"
    reply = await ask(await sandbox.operate(server, sandbox.tls()), "$SYS.REQ.SERVER.PING.CONNZ", acc="APP", auth=True)
    (row,) = reply["data"]["connections"]
    assert row["tls_version"] == "1.3"
    assert row["tls_cipher_suite"].startswith("TLS_")


async def test_fact_20_a_report_shows_the_name_and_the_certificate_of_a_session_and_no_tag(sandbox: Site) -> None:
    server = await sandbox.serve(tls="verify")
    user = {"tags": ["token:SECRET-ID"]}
    await sandbox.responder(
        server, lambda request: sandbox.signer.admit(request, name="given", user=user), tls=sandbox.member()
    )
    assert await (await sandbox.wire(server, sandbox.member())).login() == "PONG"
    reply = await ask(
        await sandbox.operate(server, sandbox.member()), "$SYS.REQ.SERVER.PING.CONNZ", acc="APP", auth=True
    )
    (row,) = reply["data"]["connections"]
    assert row["authorized_user"] == "given"
    assert len(row["tls_peer_certs"][0]["cert_sha256"]) == 64
    assert "token:" not in json.dumps(row)
    assert "SECRET-ID" not in json.dumps(row)
    assert "jwt" not in row


async def test_fact_20_unrestricted_client_sees_connections_of_its_account_on_all_servers(sandbox: Site) -> None:
    hub, _ = await linked(sandbox)
    client = await sandbox.client(hub, name="curious")
    inbox = await client.subscribe("reports")
    seen: dict[str, dict[str, Any]] = {}
    async with asyncio.timeout(HANG_SECONDS):
        while set(seen) != {"hub", "edge"}:
            await client.publish("$SYS.REQ.ACCOUNT.PING.CONNZ", b"{}", reply="reports")
            reply = json.loads((await inbox.next_msg(timeout=HANG_SECONDS)).data)
            seen[reply["server"]["name"]] = reply["data"]
    rows = [row for data in seen.values() for row in data["connections"]]
    assert {row["name"] for row in rows if row["kind"] == "Client"} == {"asker", "curious", "node"}
    assert {row.get("account", "APP") for row in rows} == {"APP"}


async def test_fact_21_system_account_can_close_a_connection(sandbox: Site) -> None:
    server = await sandbox.serve()
    await sandbox.responder(server)
    victim, other = await sandbox.wire(server), await sandbox.wire(server)
    assert await victim.login() == await other.login() == "PONG"
    operator = await sandbox.operate(server)
    server_id = victim.info["server_id"]
    await ask(operator, f"$SYS.REQ.SERVER.{server_id}.KICK", cid=victim.info["client_id"])
    assert await victim.verdict() == ""
    await other.send("PING\r\n")
    assert await other.verdict() == "PONG"
    assert await (await sandbox.wire(server)).login() == "PONG"  # the decision did not change


async def test_fact_21_a_connection_that_is_gone_is_an_error(sandbox: Site) -> None:
    server = await sandbox.serve()
    await sandbox.responder(server)
    wire = await sandbox.wire(server)
    operator = await sandbox.operate(server)
    answer = await ask(operator, f"$SYS.REQ.SERVER.{wire.info['server_id']}.KICK", cid=99_999)
    assert answer["error"]["description"] == "no such client or leafnode id"


@pytest.mark.parametrize("advertise", [True, False])
async def test_fact_22_info_lists_cluster_addresses_unless_disabled(sandbox: Site, advertise: bool) -> None:
    routes = [free_port(), free_port()]
    servers = []
    for index, port in enumerate(routes):
        rest = "" if advertise else "no_advertise: true"
        url = f"nats-route://127.0.0.1:{routes[1 - index]}"
        cluster = f'cluster {{ name: c, listen: "127.0.0.1:{port}", routes: [ "{url}" ], {rest} }}'
        servers.append(await sandbox.serve(name=f"s{index}", tls="verify", extra=cluster))
    operator = await sandbox.operate(servers[0], sandbox.member())
    other = (await _info(servers[1]))["server_id"]
    assert await reachable(operator, f"$SYS.REQ.SERVER.{other}.IDZ")  # the cluster is complete
    urls: list[str] = []
    async with asyncio.timeout(HANG_SECONDS):
        while advertise and len(urls) < 2:
            urls = (await _info(servers[0])).get("connect_urls", [])
    assert (await _info(servers[0])).get("connect_urls", []) == urls
    assert bool(urls) == advertise


async def _info(server: NatsServer) -> dict[str, Any]:
    """Return the INFO that a server sends before the client presents a certificate."""
    wire = await Wire.open(server.port())
    await wire.close()
    return wire.info


async def test_fact_26_info_after_connect_names_the_account(sandbox: Site) -> None:
    server = await sandbox.serve()
    await sandbox.responder(server)
    wire = await sandbox.wire(server)
    assert await wire.login() == "PONG"
    await wire.send("PING\r\n")  # INFO arrives before the PONG
    info: dict[str, Any] = {}
    while (line := await wire.line()) != "PONG":
        info |= json.loads(line.removeprefix("INFO "))
    assert info.get("remote_account") == "APP"
