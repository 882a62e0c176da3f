"""A gate beside an x509 fleet: members without a certificate get in by token and nonce, and nobody else."""

from __future__ import annotations

import asyncio
import hashlib
import ssl
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from nats.errors import NoRespondersError

from broker_auth.demo.attempts import Attempt, try_one
from broker_auth.natsio.client import round_trip
from broker_auth.sandbox.client import Credentials, connect
from broker_auth.sandbox.identities import Identity
from broker_auth.sandbox.sandbox import Sandbox
from tests.deadlines import HANG_SECONDS
from tests.nats_server.wire import Wire

pytestmark = pytest.mark.e2e


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def sandbox(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Sandbox]:
    async with Sandbox(tmp_path_factory.mktemp("sandbox") / "sandbox", gate=True) as running:
        await asyncio.to_thread(running.servers["gate"].wait_for_log, "Leafnode connection created")
        yield running


def holding(sandbox: Sandbox, identity: Identity) -> Credentials:
    """Return credentials without a certificate: a token, and the key that signs the nonce."""
    return Credentials(ca=sandbox.ca, token=identity.token, seed=identity.seed)


def attempts(sandbox: Sandbox) -> dict[str, Attempt]:
    """Return what each peer presents at the gate, and the outcome."""
    signer, plain = sandbox.issuer, Credentials(ca=sandbox.ca)
    client, server = signer.client("up=alice", "fleet_management"), signer.server("node9.example.net")
    special = holding(sandbox, signer.client("up=root", "org_admin", "provisioner", "system_user"))
    member, provisioner, operator = (sandbox.credentials(who) for who in ("fleet", "provisioner", "system"))
    rows = {
        "client": (holding(sandbox, client), "in choria"),
        "server": (holding(sandbox, server), "in choria"),
        "client without its key": (replace(plain, token=client.token), "denied: nonce_unsigned"),
        "client with the key of another": (
            replace(plain, token=client.token, seed=server.seed),
            "denied: nonce_signature",
        ),
        "member with a certificate": (member, "denied: no_credential"),
        "nobody": (plain, "denied: no_credential"),
        "provisioner": (provisioner, "denied: gate_provisioner"),
        "provisioner with a token": (
            replace(special, user="provisioner", password=provisioner.password),
            "denied: gate_provisioner",
        ),
        "operator": (operator, "denied: gate_system_user"),
        "operator with a token": (
            replace(special, user=operator.user, password=operator.password),
            "denied: gate_system_user",
        ),
        "node": (sandbox.credentials("node"), "denied: gate_provisioning_token"),
    }
    return {
        name: Attempt(what=name, url=sandbox.gate_url, credentials=presented, expected=expected)
        for name, (presented, expected) in rows.items()
    }


@pytest.mark.asyncio(loop_scope="module")
async def test_only_tokens_of_members_open_a_gate(sandbox: Sandbox) -> None:
    outcomes = {
        name: await try_one(sandbox, attempt, name.replace(" ", "-")) for name, attempt in attempts(sandbox).items()
    }
    assert {name: outcome.happened for name, outcome in outcomes.items()} == {
        name: outcome.expected for name, outcome in outcomes.items()
    }
    records = [record for record in sandbox.audit_records() if record.client in ("client", "node")]
    assert {record.zone for record in records} == {"gate"}


@pytest.mark.asyncio(loop_scope="module")
async def test_edge_and_fleet_admit_as_without_a_gate(sandbox: Sandbox) -> None:
    client = holding(sandbox, sandbox.issuer.client("up=alice"))
    rows = (
        ("edge-node", sandbox.node_url, sandbox.credentials("node"), "in provisioning"),
        ("edge-client", sandbox.node_url, client, "denied: edge_fleet_token"),
        ("fleet-member", sandbox.fleet_url, sandbox.credentials("fleet"), "in choria"),
        ("fleet-provisioner", sandbox.fleet_url, sandbox.credentials("provisioner"), "in provisioning"),
    )
    for name, url, presented, expected in rows:
        observed = await try_one(sandbox, Attempt(what=name, url=url, credentials=presented, expected=expected), name)
        assert observed.happened == expected, name


@pytest.mark.asyncio(loop_scope="module")
async def test_members_by_token_and_by_certificate_reach_each_other(sandbox: Sandbox) -> None:
    alice, node9 = sandbox.issuer.client("up=alice", "fleet_management"), sandbox.issuer.server("node9.example.net")
    inbox = f"mcollective.reply.{hashlib.sha256(b'up=alice').hexdigest()}"
    client = await connect(sandbox.gate_url, "alice", holding(sandbox, alice), inbox=inbox)
    server = await connect(sandbox.gate_url, "node9", holding(sandbox, node9))
    member = await connect(sandbox.fleet_url, "member", sandbox.credentials("fleet"), inbox="mcollective.reply.member")

    async def answer(message: Any) -> None:
        await message.respond(b"heard")

    await member.subscribe("mcollective.node.node1.example.net", cb=answer)
    await server.subscribe("mcollective.node.node9.example.net", cb=answer)
    await round_trip(member)
    await round_trip(server)
    for asking, node in ((client, "node1"), (member, "node9"), (client, "node9")):
        async with asyncio.timeout(HANG_SECONDS):
            while True:  # until interest has crossed the link
                try:
                    reply = await asking.request(f"mcollective.node.{node}.example.net", b"", timeout=1)
                except (NoRespondersError, TimeoutError):
                    continue
                break
        assert reply.data == b"heard"
    for connection in (client, server, member):
        await connection.close()


@pytest.mark.asyncio(loop_scope="module")
async def test_keys_of_a_stolen_gate_open_nothing_else(sandbox: Sandbox, tmp_path: Path) -> None:
    """Neither its link certificate nor its server certificate is a member of the fleet, or an edge."""
    pki = sandbox.directory / "pki"
    for name in ("gate-leaf", "gate"):
        presented = Credentials(ca=sandbox.ca, certificate=pki / f"{name}.pem", key=pki / f"{name}.key")
        attempt = Attempt(what=name, url=sandbox.fleet_url, credentials=presented, expected="")
        observed = await try_one(sandbox, attempt, f"thief-{name}")
        assert not observed.happened.startswith("in "), observed
    edge = next(broker for broker in sandbox.settings.brokers if broker.name == "edge")
    assert edge.zone != next(broker for broker in sandbox.settings.brokers if broker.name == "gate").zone


@pytest.mark.asyncio(loop_scope="module")
async def test_leaf_node_with_another_name_is_denied_by_the_service(sandbox: Sandbox) -> None:
    pki = sandbox.directory / "pki"
    tls = ssl.create_default_context(cafile=sandbox.ca)
    tls.load_cert_chain(pki / "gate-leaf.pem", pki / "gate-leaf.key")
    wire = await Wire.open(sandbox.servers["fleet"].port("leaf"), tls)
    await wire.connect(name="thief", lang="", nkey="UNKNOWN")  # by its name it would be the gate
    verdict = ""
    while not (verdict := await wire.line()).startswith(("PONG", "-ERR")):
        assert verdict
    assert verdict.startswith("-ERR 'Authorization")
    record = sandbox.audit_record("thief")
    assert record is not None
    assert record.code == "connection_kind"
    await wire.close()
