"""The life of a deployment: plain clients, no service, sessions that end, secrets that stay inside."""

from __future__ import annotations

import asyncio
import json
import ssl
import time
from dataclasses import replace
from typing import Any

import nats
import pytest
from nats.aio.client import Client

from broker_auth.natsio.client import round_trip
from broker_auth.sandbox.client import ConnectRefusedError, connect
from broker_auth.sandbox.site import Site
from broker_auth.secret import Secret
from broker_auth.tokens.issue import load_signing_key, provisioning_claims
from tests.callout.deployment import eventually
from tests.deadlines import HANG_SECONDS

pytestmark = pytest.mark.e2e


async def plain(url: str, **options: Any) -> Client:
    """nats-py as anybody uses it."""
    return await nats.connect(url, allow_reconnect=False, connect_timeout=HANG_SECONDS, **options)


def tls(site: Site, name: str = "") -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=site.ca)
    if name:
        context.load_cert_chain(site.directory / "pki" / f"{name}.pem", site.directory / "pki" / f"{name}.key")
    return context


async def test_plain_nats_py_clients_get_in_by_each_credential(edge_site: Site) -> None:
    password = edge_site.settings.provisioning.client_passwords[0].reveal()
    system = edge_site.settings.system_passwords[0].reveal()
    node_token = edge_site.node_issuer.node_token()
    connections = [
        await plain(edge_site.fleet_url, tls=tls(edge_site, "member"), name="member"),
        await plain(edge_site.node_url, tls=tls(edge_site), token=node_token, name="node"),
        await plain(
            edge_site.fleet_url, tls=tls(edge_site, "provisioner"), user="provisioner", password=password, name="prov"
        ),
        await plain(edge_site.fleet_url, tls=tls(edge_site, "operator"), user="system", password=system, name="sys"),
    ]
    records = await eventually(lambda: edge_site.audit_records() if len(edge_site.audit_records()) == 4 else None)
    accounts = {record.client or record.name: record.account for record in records}
    for connection in connections:
        await connection.close()
    assert accounts == {"member": "choria", "node": "provisioning", "prov": "provisioning", "sys": "system"}


async def test_without_a_service_nobody_gets_in_and_nobody_is_thrown_out(edge_site: Site) -> None:
    member = await connect(edge_site.fleet_url, "before", edge_site.credentials("fleet"))
    node = await connect(edge_site.node_url, "node-before", edge_site.credentials("node"))
    assert await edge_site.service.stop() == 0
    refused = [
        connect(edge_site.fleet_url, "during", edge_site.credentials("fleet")),
        connect(edge_site.node_url, "node-during", edge_site.credentials("node")),
    ]
    outcomes = await asyncio.gather(*refused, return_exceptions=True)
    assert [type(outcome) for outcome in outcomes] == [ConnectRefusedError, ConnectRefusedError]
    await round_trip(member)
    await round_trip(node)
    await edge_site.service.start()
    after = await connect(edge_site.fleet_url, "after", edge_site.credentials("fleet"))
    for client in (member, node, after):
        assert client.is_connected
        await client.close()


async def test_a_session_ends_when_its_token_does(edge_site: Site) -> None:
    key = load_signing_key((edge_site.directory / "pki" / "signer.key").read_bytes(), "signer")
    claims = provisioning_claims(now=time.time(), validity=5, token=Secret("x"), urls=("tls://127.0.0.1:1",))
    credentials = replace(edge_site.credentials("node"), token=key.sign(claims))
    client = await connect(edge_site.node_url, "short", credentials)
    async with asyncio.timeout(HANG_SECONDS):
        while client.is_connected:
            await asyncio.sleep(0.05)
    assert time.time() >= claims["exp"]
    record = edge_site.audit_record("short")
    assert record is not None
    assert record.expires is not None
    assert record.expires.timestamp() == claims["exp"]


async def test_no_secret_reaches_a_log_or_an_audit_record(edge_site: Site) -> None:
    node, provisioner = edge_site.credentials("node"), edge_site.credentials("provisioner")
    await (await connect(edge_site.node_url, "node", node)).close()
    await (await connect(edge_site.fleet_url, "provisioner", provisioner)).close()
    for guess in ("guess-number-one", "guess-number-two"):
        with pytest.raises(ConnectRefusedError):
            await connect(edge_site.fleet_url, "guesser", replace(provisioner, password=guess))
    await edge_site.service.stop()
    written = "".join(
        path.read_text(errors="replace") for path in (edge_site.audit_file, *edge_site.directory.glob("*.log"))
    )
    assert "provisioner_password" in written
    signature = node.token.rpartition(".")[2]
    keys = [path.read_text().strip() for path in (edge_site.directory / "keys").rglob("*") if path.is_file()]
    for secret in (signature, provisioner.password, "guess-number", *keys):
        assert secret not in written


async def test_a_reload_lets_in_by_the_new_password_and_no_longer_by_the_old(edge_site: Site) -> None:
    old = edge_site.credentials("provisioner")
    new = replace(old, password="a new password")
    password_file = edge_site.directory / "keys" / "client_password"
    password_file.write_text(new.password)
    await edge_site.service.reload()
    await (await connect(edge_site.fleet_url, "new", new)).close()
    with pytest.raises(ConnectRefusedError):
        await connect(edge_site.fleet_url, "old", old)
    configuration = edge_site.deployment.configuration
    good = configuration.read_text()
    configuration.write_text(good + "plugin.broker_auth.tokenleeway = 5s\n")
    await edge_site.service.reload("not reloaded")
    await (await connect(edge_site.fleet_url, "new", new)).close()


async def test_no_reply_subject_of_a_node_makes_streams_publish_for_it(edge_site: Site) -> None:
    await edge_site.apply_streams()
    member = await connect(edge_site.fleet_url, "member", edge_site.credentials("fleet"))
    node = await connect(edge_site.node_url, "rogue.example.net", edge_site.credentials("node"))
    try:
        to_fleet = await member.subscribe("mcollective.>")
        events = await member.subscribe("choria.lifecycle.>")
        await round_trip(member)
        buckets = ("CHORIA_LEADER_ELECTION", "CHORIA_PROVISIONER_ELECTION")
        for target in ("mcollective.broadcast.agent.rpcutil", *(f"$KV.{bucket}.provisioner" for bucket in buckets)):
            await node.publish("choria.lifecycle.event.startup.provision_mode_server", b"{}", reply=target)
            await events.next_msg(HANG_SECONDS)
        # Answered after what the stream did with the events.
        told = await member.request("$JS.API.STREAM.INFO.CHORIA_EVENTS", timeout=HANG_SECONDS)
        assert json.loads(told.data)["state"]["messages"] == 3
        assert to_fleet.pending_msgs == 0
        for bucket in buckets:
            elected = await member.request(f"$JS.API.STREAM.INFO.KV_{bucket}", timeout=HANG_SECONDS)
            assert json.loads(elected.data)["state"]["messages"] == 0
    finally:
        await node.close()
        await member.close()
