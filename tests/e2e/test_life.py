"""Lifecycle of a deployment: plain clients, outage of the service, expiry of sessions, secrecy."""

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
from broker_auth.sandbox.sandbox import Sandbox
from broker_auth.secret import Secret
from broker_auth.tokens.issue import load_signing_key, provisioning_claims
from tests.callout.deployment import eventually
from tests.deadlines import HANG_SECONDS

pytestmark = pytest.mark.e2e


async def plain(url: str, **options: Any) -> Client:
    """Connect with plain nats-py."""
    return await nats.connect(url, allow_reconnect=False, connect_timeout=HANG_SECONDS, **options)


def tls(sandbox: Sandbox, name: str = "") -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=sandbox.ca)
    if name:
        context.load_cert_chain(sandbox.directory / "pki" / f"{name}.pem", sandbox.directory / "pki" / f"{name}.key")
    return context


async def test_plain_nats_py_clients_log_in_with_each_credential(edge_sandbox: Sandbox) -> None:
    password = edge_sandbox.settings.provisioning.client_passwords[0].reveal()
    system = edge_sandbox.settings.system_passwords[0].reveal()
    node_token = edge_sandbox.node_issuer.node_token()
    connections = [
        await plain(edge_sandbox.fleet_url, tls=tls(edge_sandbox, "member"), name="member"),
        await plain(edge_sandbox.node_url, tls=tls(edge_sandbox), token=node_token, name="node"),
        await plain(
            edge_sandbox.fleet_url,
            tls=tls(edge_sandbox, "provisioner"),
            user="provisioner",
            password=password,
            name="prov",
        ),
        await plain(
            edge_sandbox.fleet_url, tls=tls(edge_sandbox, "operator"), user="system", password=system, name="sys"
        ),
    ]
    records = await eventually(lambda: edge_sandbox.audit_records() if len(edge_sandbox.audit_records()) == 4 else None)
    accounts = {record.client or record.name: record.account for record in records}
    for connection in connections:
        await connection.close()
    assert accounts == {"member": "choria", "node": "provisioning", "prov": "provisioning", "sys": "system"}


async def test_without_a_service_logins_fail_and_connections_stay(edge_sandbox: Sandbox) -> None:
    member = await connect(edge_sandbox.fleet_url, "before", edge_sandbox.credentials("fleet"))
    node = await connect(edge_sandbox.node_url, "node-before", edge_sandbox.credentials("node"))
    assert await edge_sandbox.service.stop() == 0
    refused = [
        connect(edge_sandbox.fleet_url, "during", edge_sandbox.credentials("fleet")),
        connect(edge_sandbox.node_url, "node-during", edge_sandbox.credentials("node")),
    ]
    outcomes = await asyncio.gather(*refused, return_exceptions=True)
    assert [type(outcome) for outcome in outcomes] == [ConnectRefusedError, ConnectRefusedError]
    await round_trip(member)
    await round_trip(node)
    await edge_sandbox.service.start()
    after = await connect(edge_sandbox.fleet_url, "after", edge_sandbox.credentials("fleet"))
    for client in (member, node, after):
        assert client.is_connected
        await client.close()


async def test_session_ends_when_its_token_expires(edge_sandbox: Sandbox) -> None:
    key = load_signing_key((edge_sandbox.directory / "pki" / "signer.key").read_bytes(), "signer")
    claims = provisioning_claims(now=time.time(), validity=5, token=Secret("x"), urls=("tls://127.0.0.1:1",))
    credentials = replace(edge_sandbox.credentials("node"), token=key.sign(claims))
    client = await connect(edge_sandbox.node_url, "short", credentials)
    async with asyncio.timeout(HANG_SECONDS):
        while client.is_connected:
            await asyncio.sleep(0.05)
    assert time.time() >= claims["exp"]
    record = edge_sandbox.audit_record("short")
    assert record is not None
    assert record.expires is not None
    assert record.expires.timestamp() == claims["exp"]


async def test_logs_and_audit_records_contain_no_secret(edge_sandbox: Sandbox) -> None:
    node, provisioner = edge_sandbox.credentials("node"), edge_sandbox.credentials("provisioner")
    await (await connect(edge_sandbox.node_url, "node", node)).close()
    await (await connect(edge_sandbox.fleet_url, "provisioner", provisioner)).close()
    for guess in ("guess-number-one", "guess-number-two"):
        with pytest.raises(ConnectRefusedError):
            await connect(edge_sandbox.fleet_url, "guesser", replace(provisioner, password=guess))
    await edge_sandbox.service.stop()
    written = "".join(
        path.read_text(errors="replace") for path in (edge_sandbox.audit_file, *edge_sandbox.directory.glob("*.log"))
    )
    assert "provisioner_password" in written
    signature = node.token.rpartition(".")[2]
    keys = [path.read_text().strip() for path in (edge_sandbox.directory / "keys").rglob("*") if path.is_file()]
    for secret in (signature, provisioner.password, "guess-number", *keys):
        assert secret not in written


async def test_reload_accepts_the_new_password_and_refuses_the_old(edge_sandbox: Sandbox) -> None:
    old = edge_sandbox.credentials("provisioner")
    new = replace(old, password="a new password")
    password_file = edge_sandbox.directory / "keys" / "client_password"
    password_file.write_text(new.password)
    await edge_sandbox.service.reload()
    await (await connect(edge_sandbox.fleet_url, "new", new)).close()
    with pytest.raises(ConnectRefusedError):
        await connect(edge_sandbox.fleet_url, "old", old)
    configuration = edge_sandbox.deployment.configuration
    good = configuration.read_text()
    configuration.write_text(good + "plugin.broker_auth.tokenleeway = 5s\n")
    await edge_sandbox.service.reload("not reloaded")
    await (await connect(edge_sandbox.fleet_url, "new", new)).close()


async def test_reply_subject_of_a_node_does_not_make_streams_publish(edge_sandbox: Sandbox) -> None:
    await edge_sandbox.apply_streams()
    member = await connect(edge_sandbox.fleet_url, "member", edge_sandbox.credentials("fleet"))
    node = await connect(edge_sandbox.node_url, "rogue.example.net", edge_sandbox.credentials("node"))
    try:
        to_fleet = await member.subscribe("mcollective.>")
        events = await member.subscribe("choria.lifecycle.>")
        await round_trip(member)
        buckets = ("CHORIA_LEADER_ELECTION", "CHORIA_PROVISIONER_ELECTION")
        for target in ("mcollective.broadcast.agent.rpcutil", *(f"$KV.{bucket}.provisioner" for bucket in buckets)):
            await node.publish("choria.lifecycle.event.startup.provision_mode_server", b"{}", reply=target)
            await events.next_msg(HANG_SECONDS)
        # Answered after the stream has processed the events.
        info = await member.request("$JS.API.STREAM.INFO.CHORIA_EVENTS", timeout=HANG_SECONDS)
        assert json.loads(info.data)["state"]["messages"] == 3
        assert to_fleet.pending_msgs == 0
        for bucket in buckets:
            elected = await member.request(f"$JS.API.STREAM.INFO.KV_{bucket}", timeout=HANG_SECONDS)
            assert json.loads(elected.data)["state"]["messages"] == 0
    finally:
        await node.close()
        await member.close()
