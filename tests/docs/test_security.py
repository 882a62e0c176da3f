"""What docs/security.md says of thieves, tried on running deployments."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Final

import pytest
import pytest_asyncio
from nats.aio.client import Client
from nats.aio.subscription import Subscription
from nats.errors import TimeoutError as NatsTimeoutError

from broker_auth.demo.client import ConnectRefusedError, Credentials, connect
from broker_auth.demo.site import Site, change
from broker_auth.deploy.devpki import LEAF_NAME
from broker_auth.deploy.pki import Authority, write_private

pytestmark = pytest.mark.e2e

SECONDS: Final = 20.0
EVENT: Final = "choria.lifecycle.event.startup.provision_mode_server"


@pytest_asyncio.fixture
async def site(tmp_path: Path) -> AsyncIterator[Site]:
    """An edge deployment whose links have a CA of their own, as examples/edge/broker.conf has."""
    made = Site(tmp_path / "site")
    links, pki = Authority.create(), made.directory / "pki"
    pair = links.client(LEAF_NAME)
    write_private(pki / "link-ca.pem", links.pair.certificate_pem)
    for end, content in ((".pem", pair.certificate_pem), (".key", pair.key_pem)):
        (pki / f"leaf{end}").unlink()
        write_private(pki / f"leaf{end}", content)
    change(made.deployment, {"plugin.broker_auth.broker.fleet.server.leaf.tls.ca": "pki/link-ca.pem"})
    async with made:
        yield made


async def test_a_link_of_another_ca_links_and_is_no_member_of_the_fleet(site: Site) -> None:
    provisioner = await connect(site.fleet_url, "provisioner", site.credentials("provisioner"))
    node = await connect(site.node_url, "node1.example.net", site.credentials("node"))
    try:
        events = await provisioner.subscribe(EVENT)
        await provisioner.flush()
        await _heard(node, events)
    finally:
        await asyncio.gather(provisioner.close(), node.close())
    with pytest.raises(ConnectRefusedError):
        await connect(site.fleet_url, "thief", stolen_link(site))
    assert site.audit_record("thief") is None  # TLS refused it, nobody was asked


def stolen_link(site: Site) -> Credentials:
    """What an edge links to the fleet with."""
    pki = site.directory / "pki"
    return Credentials(ca=site.ca, certificate=pki / "leaf.pem", key=pki / "leaf.key")


async def _heard(node: Client, events: Subscription) -> None:
    """The link may come up a moment after the servers: what the node says arrives once it has."""
    async with asyncio.timeout(SECONDS):
        while True:
            await node.publish(EVENT, b"{}")
            try:
                await events.next_msg(timeout=0.2)
            except NatsTimeoutError:
                continue
            return


async def test_a_link_of_the_fleets_ca_is_a_member_of_the_fleet(tmp_path: Path) -> None:
    """The danger that the page warns of. Should this fail, the warning can go."""
    async with Site(tmp_path / "site") as site:
        thief = await connect(site.fleet_url, "thief", stolen_link(site))
        await thief.close()
        record = site.audit_record("thief")
        assert record
        assert (record.account, record.rule) == ("choria", "verified_tls")


async def test_a_thief_of_a_provisioning_token_can_take_a_waiting_nodes_name(site: Site) -> None:
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
            assert (await subscription.next_msg(timeout=SECONDS)).data == b"your new identity"
    finally:
        await asyncio.gather(node.close(), thief.close(), provisioner.close())


async def test_a_stolen_certificate_is_no_provisioner_even_with_the_password(site: Site) -> None:
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
