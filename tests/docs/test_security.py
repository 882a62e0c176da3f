"""The claims of docs/security.md about stolen credentials, tested on running deployments."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Final

import pytest
import pytest_asyncio
from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from cryptography.x509 import load_pem_x509_certificate
from nats.aio.client import Client
from nats.aio.subscription import Subscription
from nats.errors import TimeoutError as NatsTimeoutError

from broker_auth.certificates.peer import PeerIdentity, RefusedPeer
from broker_auth.certificates.verifier import PeerVerifier, load_roots
from broker_auth.deploy.devpki import LEAF_DOMAIN
from broker_auth.deploy.pki import CertificateAuthority, Pair
from broker_auth.sandbox.client import ConnectRefusedError, Credentials, connect
from broker_auth.sandbox.sandbox import Sandbox
from broker_auth.tokens.bounds import make_bounds
from tests.builders.buckets import shared_revocations
from tests.deadlines import HANG_SECONDS

pytestmark = pytest.mark.e2e

EVENT: Final = "choria.lifecycle.event.startup.provision_mode_server"


@pytest_asyncio.fixture
async def sandbox(tmp_path: Path) -> AsyncIterator[Sandbox]:
    """Yield an edge deployment as ``init`` writes it."""
    async with Sandbox(tmp_path / "sandbox") as made:
        yield made


async def test_edge_connects_to_the_fleet(sandbox: Sandbox) -> None:
    provisioner = await connect(sandbox.fleet_url, "provisioner", sandbox.credentials("provisioner"))
    node = await connect(sandbox.node_url, "node1.example.net", sandbox.credentials("node"))
    try:
        events = await provisioner.subscribe(EVENT)
        await provisioner.flush()
        await _wait_for_events(node, events)
    finally:
        await asyncio.gather(provisioner.close(), node.close())


@pytest.mark.parametrize("stolen", ["leaf", "edge"])
async def test_certificate_of_a_stolen_edge_is_refused_by_the_fleet(sandbox: Sandbox, stolen: str) -> None:
    member = await connect(sandbox.fleet_url, "member", sandbox.credentials("fleet"))  # a valid certificate is accepted
    await member.close()
    with pytest.raises(ConnectRefusedError):
        await connect(sandbox.fleet_url, "thief", held(sandbox, stolen))
    assert sandbox.audit_record("thief", 0.5) is None  # refused by TLS, so the service was not asked


@pytest.mark.parametrize("stolen", ["leaf", "edge"])
def test_service_refuses_certificates_of_edges_too(tmp_path: Path, stolen: str) -> None:
    """docs/policy.md#0-connections-not-served also protects a fleet listener that accepts too many certificates."""
    pki = Sandbox(tmp_path / "sandbox").directory / "pki"
    verifier = PeerVerifier(load_roots((pki / "ca.pem").read_bytes(), "ca.pem"))
    ca = (pki / ("leaf-ca.pem" if stolen == "leaf" else "ca.pem")).read_text()
    assert isinstance(verifier.identify([[(pki / f"{stolen}.pem").read_text(), ca]], time.time()), RefusedPeer)
    member = [(pki / "member.pem").read_text(), (pki / "ca.pem").read_text()]
    assert isinstance(verifier.identify([member], time.time()), PeerIdentity)


async def test_leaf_certificate_of_the_fleets_ca_would_be_accepted_by_the_fleet(sandbox: Sandbox) -> None:
    """The reason for a warning of ``config check``: only the CA prevents such a connection."""
    pki = sandbox.directory / "pki"
    key = load_pem_private_key((pki / "ca.key").read_bytes(), password=None)
    assert isinstance(key, EllipticCurvePrivateKey)
    authority = CertificateAuthority(Pair(load_pem_x509_certificate((pki / "ca.pem").read_bytes()), key))
    authority.client(f"edge.{LEAF_DOMAIN}").write(pki, "wrong")
    thief = await connect(sandbox.fleet_url, "thief", held(sandbox, "wrong"))
    await thief.close()
    record = sandbox.audit_record("thief")
    assert record
    assert (record.account, record.rule) == ("choria", "verified_tls")


def held(sandbox: Sandbox, name: str) -> Credentials:
    """Return a certificate from an edge's host, with its key."""
    pki = sandbox.directory / "pki"
    return Credentials(ca=sandbox.ca, certificate=pki / f"{name}.pem", key=pki / f"{name}.key")


async def _wait_for_events(node: Client, events: Subscription) -> None:
    """Wait until the leaf node connection is up, which may be shortly after the servers."""
    async with asyncio.timeout(HANG_SECONDS):
        while True:
            await node.publish(EVENT, b"{}")
            try:
                await events.next_msg(timeout=0.2)
            except NatsTimeoutError:
                continue
            return


async def test_stolen_provisioning_token_allows_taking_the_name_of_a_waiting_node(sandbox: Sandbox) -> None:
    node, thief = [
        await connect(sandbox.node_url, "node1.example.net", sandbox.credentials("node"))
        for _ in ("waits", "stole its token")
    ]
    provisioner = await connect(sandbox.fleet_url, "provisioner", sandbox.credentials("provisioner"))
    try:
        received = [await client.subscribe("provisioning.node.node1.example.net") for client in (node, thief)]
        await asyncio.gather(node.flush(), thief.flush())
        events = await provisioner.subscribe(EVENT)
        await provisioner.flush()
        await _wait_for_events(node, events)
        await provisioner.publish("provisioning.node.node1.example.net", b"your new identity")
        for subscription in received:
            assert (await subscription.next_msg(timeout=HANG_SECONDS)).data == b"your new identity"
    finally:
        await asyncio.gather(node.close(), thief.close(), provisioner.close())


async def test_token_for_one_device_does_not_take_the_name_of_another(sandbox: Sandbox) -> None:
    token = sandbox.node_issuer.node_token(bounds=make_bounds(["node1.example.net"], ["127.0.0.0/8"]))
    stolen = dataclasses.replace(sandbox.credentials("node"), token=token)
    device = await connect(sandbox.node_url, "node1.example.net", stolen)
    await device.close()
    with pytest.raises(ConnectRefusedError):
        await connect(sandbox.node_url, "node2.example.net", stolen)
    record = sandbox.audit_record("node2.example.net")
    assert record
    assert record.code == "node_name_not_allowed"
    elsewhere = sandbox.node_issuer.node_token(bounds=make_bounds([], ["192.0.2.0/24"]))
    with pytest.raises(ConnectRefusedError):
        await connect(sandbox.node_url, "node3.example.net", dataclasses.replace(stolen, token=elsewhere))
    record = sandbox.audit_record("node3.example.net")
    assert record
    assert record.code == "address_not_allowed"


async def test_token_for_a_number_of_nodes_is_used_up_and_a_counted_name_comes_back(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    directory = tmp_path_factory.mktemp("used") / "up"  # short, because sockets are in it
    async with Sandbox(directory, changes=shared_revocations(directory)) as sandbox:
        await sandbox.apply_streams()
        token = sandbox.node_issuer.node_token(bounds=make_bounds([], [], 2))
        stolen = dataclasses.replace(sandbox.credentials("node"), token=token)

        async def wait_as(name: str) -> str:
            """Return the code of the decision about a login under this name."""
            before = sandbox.audit_record(name, 0)
            with contextlib.suppress(ConnectRefusedError):
                await (await connect(sandbox.node_url, name, stolen)).close()
            record = sandbox.audit_record(name, after=before)
            assert record
            return record.code

        async with asyncio.timeout(HANG_SECONDS):
            while await wait_as("node1.example.net") == "nodes_not_counted":  # the bucket was just created
                await asyncio.sleep(0.1)
        codes = [await wait_as(name) for name in ("node2.example.net", "node3.example.net", "node1.example.net")]
        assert codes == ["admitted", "token_used_up", "admitted"]


async def test_stolen_certificate_with_the_password_is_not_a_provisioner(sandbox: Sandbox) -> None:
    member = sandbox.credentials("fleet")
    password = sandbox.settings.provisioning.client_passwords[0].reveal()
    thief = Credentials(
        ca=member.ca, certificate=member.certificate, key=member.key, user="provisioner", password=password
    )
    with pytest.raises(ConnectRefusedError):
        await connect(sandbox.fleet_url, "thief", thief)
    record = sandbox.audit_record("thief")
    assert record
    assert record.code == "provisioner_identity"
