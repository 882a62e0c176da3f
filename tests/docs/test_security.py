"""What docs/security.md says of thieves, tried on running deployments."""

from __future__ import annotations

import asyncio
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
from tests.deadlines import HANG_SECONDS

pytestmark = pytest.mark.e2e

EVENT: Final = "choria.lifecycle.event.startup.provision_mode_server"


@pytest_asyncio.fixture
async def site(tmp_path: Path) -> AsyncIterator[Sandbox]:
    """An edge deployment as ``init`` writes it."""
    async with Sandbox(tmp_path / "site") as made:
        yield made


async def test_the_edge_links_to_the_fleet(site: Sandbox) -> None:
    provisioner = await connect(site.fleet_url, "provisioner", site.credentials("provisioner"))
    node = await connect(site.node_url, "node1.example.net", site.credentials("node"))
    try:
        events = await provisioner.subscribe(EVENT)
        await provisioner.flush()
        await _heard(node, events)
    finally:
        await asyncio.gather(provisioner.close(), node.close())


@pytest.mark.parametrize("stolen", ["leaf", "edge"])
async def test_who_steals_an_edge_is_no_member_of_the_fleet(site: Sandbox, stolen: str) -> None:
    member = await connect(site.fleet_url, "member", site.credentials("fleet"))  # who shows a good one is let in
    await member.close()
    with pytest.raises(ConnectRefusedError):
        await connect(site.fleet_url, "thief", held(site, stolen))
    assert site.audit_record("thief", 0.5) is None  # TLS refused it, nobody was asked


@pytest.mark.parametrize("stolen", ["leaf", "edge"])
def test_the_service_does_not_count_them_either(tmp_path: Path, stolen: str) -> None:
    """docs/policy.md#0-what-is-not-served, should the fleet's listener be open to more than it ought to be."""
    pki = Sandbox(tmp_path / "site").directory / "pki"
    verifier = PeerVerifier(load_roots((pki / "ca.pem").read_bytes(), "ca.pem"))
    ca = (pki / ("leaf-ca.pem" if stolen == "leaf" else "ca.pem")).read_text()
    assert isinstance(verifier.identify([[(pki / f"{stolen}.pem").read_text(), ca]], time.time()), RefusedPeer)
    member = [(pki / "member.pem").read_text(), (pki / "ca.pem").read_text()]
    assert isinstance(verifier.identify([member], time.time()), PeerIdentity)


async def test_a_link_of_the_fleets_ca_would_be_a_member_of_the_fleet(site: Sandbox) -> None:
    """What ``config check`` warns of: the CA is all that keeps a link out."""
    pki = site.directory / "pki"
    key = load_pem_private_key((pki / "ca.key").read_bytes(), password=None)
    assert isinstance(key, EllipticCurvePrivateKey)
    authority = CertificateAuthority(Pair(load_pem_x509_certificate((pki / "ca.pem").read_bytes()), key))
    authority.client(f"edge.{LEAF_DOMAIN}").write(pki, "wrong")
    thief = await connect(site.fleet_url, "thief", held(site, "wrong"))
    await thief.close()
    record = site.audit_record("thief")
    assert record
    assert (record.account, record.rule) == ("choria", "verified_tls")


def held(site: Sandbox, name: str) -> Credentials:
    """A certificate that lies on an edge's host, with its key."""
    pki = site.directory / "pki"
    return Credentials(ca=site.ca, certificate=pki / f"{name}.pem", key=pki / f"{name}.key")


async def _heard(node: Client, events: Subscription) -> None:
    """The link may come up a moment after the servers: what the node says arrives once it has."""
    async with asyncio.timeout(HANG_SECONDS):
        while True:
            await node.publish(EVENT, b"{}")
            try:
                await events.next_msg(timeout=0.2)
            except NatsTimeoutError:
                continue
            return


async def test_a_thief_of_a_provisioning_token_can_take_a_waiting_nodes_name(site: Sandbox) -> None:
    node, thief = [
        await connect(site.node_url, "node1.example.net", site.credentials("node"))
        for _ in ("waits", "stole its token")
    ]
    provisioner = await connect(site.fleet_url, "provisioner", site.credentials("provisioner"))
    try:
        heard = [await client.subscribe("provisioning.node.node1.example.net") for client in (node, thief)]
        await asyncio.gather(node.flush(), thief.flush())
        events = await provisioner.subscribe(EVENT)
        await provisioner.flush()
        await _heard(node, events)
        await provisioner.publish("provisioning.node.node1.example.net", b"your new identity")
        for subscription in heard:
            assert (await subscription.next_msg(timeout=HANG_SECONDS)).data == b"your new identity"
    finally:
        await asyncio.gather(node.close(), thief.close(), provisioner.close())


async def test_a_stolen_certificate_is_no_provisioner_even_with_the_password(site: Sandbox) -> None:
    member = site.credentials("fleet")
    password = site.settings.provisioning.client_passwords[0].reveal()
    thief = Credentials(
        ca=member.ca, certificate=member.certificate, key=member.key, user="provisioner", password=password
    )
    with pytest.raises(ConnectRefusedError):
        await connect(site.fleet_url, "thief", thief)
    record = site.audit_record("thief")
    assert record
    assert record.code == "provisioner_identity"
