"""Fact 30: published connection counts of an account, and its connection limit."""

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
    """Export the connection counts of ``APP`` to the callout account."""
    text = config.read_text()
    text = text.replace("AUTH: {", f'AUTH: {{ imports: [ {{ stream: {{ account: SYS, subject: "{SUBJECT}" }} }} ],')
    config.write_text(text.replace("SYS: {", f'SYS: {{ exports: [ {{ stream: "{SUBJECT}", accounts: [ AUTH ] }} ],'))
    return config


async def next_count(subscription: Subscription) -> tuple[str, int]:
    """Return the next report: the server and its number of connections."""
    report = read_report((await subscription.next_msg(timeout=HANG_SECONDS)).data)
    assert report is not None
    assert report.account == "APP"
    return report.server.name, report.connections


async def subscribed(sandbox: Site, server: NatsServer) -> Subscription:
    client = await sandbox.client(server, nkeys_seed_str=sandbox.service)
    subscription = await client.subscribe(SUBJECT)
    await round_trip(client)
    return subscription


async def test_fact_30_changes_of_connection_counts_are_published(sandbox: Site) -> None:
    server = await sandbox.start(exported(sandbox.config()))
    await sandbox.responder(server)
    reports = await subscribed(sandbox, server)
    clients: list[Client] = []
    for count in (1, 2, 3):
        clients.append(await sandbox.client(server))
        assert await next_count(reports) == ("one", count)
    for count in (2, 1, 0):
        await clients.pop().close()
        assert await next_count(reports) == ("one", count)


async def test_fact_30_counts_are_received_only_if_exported(sandbox: Site) -> None:
    server = await sandbox.start(sandbox.config())
    await sandbox.responder(server)
    reports = await subscribed(sandbox, server)
    await sandbox.client(server)
    with pytest.raises(TimeoutError):
        await reports.next_msg(timeout=0.3)


async def test_fact_30_cluster_shares_the_limit_and_every_count(sandbox: Site) -> None:
    ports = [free_port(), free_port()]
    routes = ", ".join(f'"nats-route://127.0.0.1:{port}"' for port in ports)
    servers = []
    for name, port in zip(("one", "two"), ports, strict=True):
        cluster = f'cluster {{ name: c, listen: "127.0.0.1:{port}", routes: [ {routes} ] }}'
        servers.append(await sandbox.start(exported(sandbox.config(name, accounts=LIMITED, extra=cluster))))
    for server in servers:
        await sandbox.logged(server, "Route connection created")
        await sandbox.responder(server, queue="q")
    reports = await subscribed(sandbox, servers[0])
    await echo(await sandbox.client(servers[0], nkeys_seed_str=sandbox.service), "after.the.subscription")
    await reachable(await sandbox.client(servers[1], nkeys_seed_str=sandbox.service), "after.the.subscription")
    seen = []
    for number in (0, 1, 1):
        await sandbox.client(servers[number])
        seen.append(await next_count(reports))
    assert seen == [("one", 1), ("two", 1), ("two", 2)]
    with pytest.raises(nats.errors.Error, match="maximum account active connections"):
        await sandbox.client(servers[0])
