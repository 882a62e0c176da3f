"""Fact 30: what servers publish of an account's connections, and the limit on them."""

from __future__ import annotations

from pathlib import Path

import nats
import pytest
from nats.aio.client import Client
from nats.aio.subscription import Subscription

from broker_auth.natsio.account_connections import connections_subject, read_report
from broker_auth.natsio.client import round_trip
from broker_auth.sandbox.natsserver import NatsServer, free_port
from tests.deadlines import HANG_SECONDS
from tests.nats_server.site import Site, echo, reachable

pytestmark = pytest.mark.e2e
SUBJECT = connections_subject("APP")
LIMITED = "APP: { limits { max_connections: 3 } }"


def exported(config: Path) -> Path:
    """Let the callout account hear of the connections of ``APP``."""
    text = config.read_text()
    text = text.replace("AUTH: {", f'AUTH: {{ imports: [ {{ stream: {{ account: SYS, subject: "{SUBJECT}" }} }} ],')
    config.write_text(text.replace("SYS: {", f'SYS: {{ exports: [ {{ stream: "{SUBJECT}", accounts: [ AUTH ] }} ],'))
    return config


async def heard(subscription: Subscription) -> tuple[str, int]:
    """Return the next report: which server, and how many."""
    report = read_report((await subscription.next_msg(timeout=HANG_SECONDS)).data)
    assert report is not None
    assert report.account == "APP"
    return report.server.name, report.connections


async def subscribed(site: Site, server: NatsServer) -> Subscription:
    client = await site.client(server, nkeys_seed_str=site.service)
    subscription = await client.subscribe(SUBJECT)
    await round_trip(client)
    return subscription


async def test_fact_30_each_change_of_an_accounts_connections_is_published(site: Site) -> None:
    server = await site.start(exported(site.config()))
    await site.oracle(server)
    reports = await subscribed(site, server)
    clients: list[Client] = []
    for count in (1, 2, 3):
        clients.append(await site.client(server))
        assert await heard(reports) == ("one", count)
    for count in (2, 1, 0):
        await clients.pop().close()
        assert await heard(reports) == ("one", count)


async def test_fact_30_only_what_is_exported_is_heard(site: Site) -> None:
    server = await site.start(site.config())
    await site.oracle(server)
    reports = await subscribed(site, server)
    await site.client(server)
    with pytest.raises(TimeoutError):
        await reports.next_msg(timeout=0.3)


async def test_fact_30_servers_of_a_cluster_share_the_limit_and_hear_one_another(site: Site) -> None:
    ports = [free_port(), free_port()]
    routes = ", ".join(f'"nats-route://127.0.0.1:{port}"' for port in ports)
    servers = []
    for name, port in zip(("one", "two"), ports, strict=True):
        cluster = f'cluster {{ name: c, listen: "127.0.0.1:{port}", routes: [ {routes} ] }}'
        servers.append(await site.start(exported(site.config(name, accounts=LIMITED, extra=cluster))))
    for server in servers:
        await site.logged(server, "Route connection created")
        await site.oracle(server, queue="q")
    reports = await subscribed(site, servers[0])
    await echo(await site.client(servers[0], nkeys_seed_str=site.service), "later.than.the.subscription")
    await reachable(await site.client(servers[1], nkeys_seed_str=site.service), "later.than.the.subscription")
    seen = []
    for number in (0, 1, 1):
        await site.client(servers[number])
        seen.append(await heard(reports))
    assert seen == [("one", 1), ("two", 1), ("two", 2)]
    with pytest.raises(nats.errors.Error, match="maximum account active connections"):
        await site.client(servers[0])
