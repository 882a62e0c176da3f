"""With every service stopped, only operators can log in, and existing connections stay."""

from __future__ import annotations

import asyncio
import ssl
from pathlib import Path

import pytest

from broker_auth.deploy.render import render
from broker_auth.natsio.client import round_trip
from broker_auth.operate.answers import request_json
from broker_auth.operate.logins import AccessError, Login, connect
from broker_auth.operate.report.connections import Observer
from broker_auth.operate.report.gathering import Ask
from broker_auth.secret import Secret
from tests.deadlines import HANG_SECONDS
from tests.operate.deployment import MEMBER, PASSWORD, EdgeDeployment, serving

pytestmark = pytest.mark.e2e


async def test_without_a_service_operators_log_in_and_connections_stay(tmp_path: Path) -> None:
    deployment = EdgeDeployment(tmp_path)
    settings = deployment.settings()
    fleet_broker, edge_broker = settings.brokers
    disconnected: list[str] = []
    with deployment.running(service=False):
        with serving(deployment.config):
            member = await deployment.access().fleet(fleet_broker)
            login = Login(what="a node", token=Secret(deployment.provisioning_token()), name="node1.example.net")
            node = await connect(deployment.url("edge"), login, deployment.access().tls(edge_broker))
        # Every service has ended.
        for client in (member, node):
            client._disconnected_cb = lambda: _note(disconnected)
        with pytest.raises(AccessError):
            await deployment.access().fleet(fleet_broker)
        operator = deployment.access(break_glass=deployment.break_glass_seeds)
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
        subscription = await member.subscribe("choria.anything")
        await member.publish("choria.anything", b"still here")
        assert (await subscription.next_msg(timeout=HANG_SECONDS)).data == b"still here"
        await node.publish("choria.lifecycle.event.startup", b"{}")
        await round_trip(node)
        assert disconnected == []
        with serving(deployment.config):  # a returning service does not disturb them either
            await round_trip(member)
            await round_trip(node)
        assert disconnected == []
        await asyncio.gather(member.close(), node.close())


async def _note(where: list[str]) -> None:
    where.append("disconnected")


async def test_break_glass_user_reaches_only_the_system_account(tmp_path: Path) -> None:
    deployment = EdgeDeployment(tmp_path)
    with deployment.running(service=False):
        client = await deployment.access(break_glass=deployment.break_glass_seeds).system(
            deployment.settings().brokers[0]
        )
        assert (await request_json(client, "$SYS.REQ.USER.INFO"))["data"]["account"] == "system"
        await client.close()


async def test_break_glass_login_at_the_fleet_needs_a_certificate(tmp_path: Path) -> None:
    deployment = EdgeDeployment(tmp_path)
    with deployment.running(service=False):
        fleet, edge = deployment.settings().brokers
        seeds = [Login(what="break-glass", nkey_seed=seed) for seed in deployment.break_glass_seeds]
        context = ssl.create_default_context(cafile=deployment.directory / "ca.pem")
        with pytest.raises(AccessError):
            await connect(fleet.urls[0], seeds[0], context)
        await (await connect(edge.urls[0], seeds[1], context)).close()


async def test_break_glass_seed_is_used_only_in_its_own_zone(tmp_path: Path) -> None:
    """A stolen edge would relay the fleet's nonce to be signed."""
    deployment = EdgeDeployment(tmp_path)
    with deployment.running(service=False):
        fleet, edge = deployment.settings().brokers
        access = deployment.access(break_glass=deployment.break_glass_seeds[:1])
        await (await access.system(fleet)).close()
        with pytest.raises(AccessError, match="has the role edge: passwords are never sent to it"):
            await access.system(edge)


async def test_passwords_are_refused_without_a_service(tmp_path: Path) -> None:
    deployment = EdgeDeployment(tmp_path)
    with deployment.running(service=False):
        access = deployment.access(
            certificate=deployment.directory / "provisioner.pem", key=deployment.directory / "provisioner.key"
        )
        broker = deployment.settings().brokers[0]
        with pytest.raises(AccessError):
            await access.system(broker)
        with pytest.raises(AccessError) as refused:
            await access.provisioner(broker)
    assert PASSWORD not in str(refused.value)
    assert deployment.break_glass not in render(deployment.settings(), broker)
