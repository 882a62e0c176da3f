"""With every service stopped nobody new gets in but the operator, and nobody who is in is put out."""

from __future__ import annotations

import asyncio
import ssl
from pathlib import Path

import pytest

from broker_auth.deploy.render import render
from broker_auth.natsio.client import round_trip
from broker_auth.operate.access import AccessError, Login, connect, request_json
from broker_auth.operate.report.connections import Observer
from broker_auth.operate.report.gathering import Ask
from broker_auth.secret import Secret
from tests.deadlines import HANG_SECONDS
from tests.operate.site import MEMBER, PASSWORD, Site, serving

pytestmark = pytest.mark.e2e


async def test_when_no_service_runs_the_operator_gets_in_and_connections_stay(tmp_path: Path) -> None:
    site = Site(tmp_path)
    settings = site.settings()
    fleet_broker, edge_broker = settings.brokers
    disconnected: list[str] = []
    with site.running(service=False):
        with serving(site.config):
            member = await site.access().fleet(fleet_broker)
            login = Login(what="a node", token=Secret(site.provisioning_token()), name="node1.example.net")
            node = await connect(site.url("edge"), login, site.access().tls(edge_broker))
        # every service has ended
        for client in (member, node):
            client._disconnected_cb = lambda: _note(disconnected)
        with pytest.raises(AccessError):
            await site.access().fleet(fleet_broker)
        operator = site.access(break_glass=site.break_glass_seeds)
        for broker in settings.brokers:
            client = await operator.system(broker)
            answer = await request_json(client, "$SYS.REQ.SERVER.PING.IDZ")
            assert answer["name"] == broker.name
            await client.close()
        async with Observer(operator) as observer:
            report = await observer.report(Ask())
        assert report.missing == ()
        assert {(item.server, item.identity) for item in report.connections} >= {
            ("fleet", MEMBER),
            ("edge", "node1.example.net"),
        }
        heard = await member.subscribe("choria.anything")
        await member.publish("choria.anything", b"still here")
        assert (await heard.next_msg(timeout=HANG_SECONDS)).data == b"still here"
        await node.publish("choria.lifecycle.event.startup", b"{}")
        await round_trip(node)
        assert disconnected == []
        with serving(site.config):  # nor does a service that comes back disturb them
            await round_trip(member)
            await round_trip(node)
        assert disconnected == []
        await asyncio.gather(member.close(), node.close())


async def _note(where: list[str]) -> None:
    where.append("disconnected")


async def test_the_break_glass_user_reaches_the_system_account_only(tmp_path: Path) -> None:
    site = Site(tmp_path)
    with site.running(service=False):
        client = await site.access(break_glass=site.break_glass_seeds).system(site.settings().brokers[0])
        assert (await request_json(client, "$SYS.REQ.USER.INFO"))["data"]["account"] == "system"
        await client.close()


async def test_a_certificate_is_still_needed_on_the_fleets_listener(tmp_path: Path) -> None:
    site = Site(tmp_path)
    with site.running(service=False):
        fleet, edge = site.settings().brokers
        seeds = [Login(what="break-glass", nkey_seed=seed) for seed in site.break_glass_seeds]
        context = ssl.create_default_context(cafile=site.directory / "ca.pem")
        with pytest.raises(AccessError):
            await connect(fleet.urls[0], seeds[0], context)
        await (await connect(edge.urls[0], seeds[1], context)).close()


async def test_a_break_glass_seed_is_shown_to_its_own_zone_only(tmp_path: Path) -> None:
    """A stolen edge relays the fleet's nonce to whoever signs it."""
    site = Site(tmp_path)
    with site.running(service=False):
        fleet, edge = site.settings().brokers
        access = site.access(break_glass=site.break_glass_seeds[:1])
        await (await access.system(fleet)).close()
        with pytest.raises(AccessError, match="has the role edge: passwords are never sent to it"):
            await access.system(edge)


async def test_passwords_do_not_open_anything_without_a_service(tmp_path: Path) -> None:
    site = Site(tmp_path)
    with site.running(service=False):
        access = site.access(certificate=site.directory / "provisioner.pem", key=site.directory / "provisioner.key")
        broker = site.settings().brokers[0]
        with pytest.raises(AccessError):
            await access.system(broker)
        with pytest.raises(AccessError) as refused:
            await access.provisioner(broker)
    assert PASSWORD not in str(refused.value)
    assert site.break_glass not in render(site.settings(), broker)
