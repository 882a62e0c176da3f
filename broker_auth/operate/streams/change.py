"""Changes the fleet's streams: finds their broker and the accounts that are needed."""

from __future__ import annotations

from contextlib import AsyncExitStack

from nats.aio.client import Client

from broker_auth.operate.access import Access
from broker_auth.operate.logins import AccessError
from broker_auth.operate.streams.plan import (
    Change,
    apply,
    cluster_peers,
    needs_peers,
    plan,
    target_buckets,
    target_streams,
)
from broker_auth.settings.model import BrokerSettings, Settings


async def change_streams(access: Access, *, dry_run: bool) -> tuple[Change, ...]:
    """Change the streams to match the settings, or only return what would change.

    Raises:
        OperationError: a broker is unreachable, or JetStream refuses.
    """
    settings = access.settings.streams
    broker = streams_broker(access)
    if access.settings.issuer_mode and access.proof is None:
        raise AccessError(
            "with organization issuers a certificate alone may not change streams; use --token FILE --seed FILE of a "
            "client with the permission streams_admin or org_admin (broker-auth token client --stream-admin)"
        )
    async with AsyncExitStack() as stack:
        peers = await find_peers(access, broker) if needs_peers(settings) else 1
        fleet = await access.fleet(broker)
        stack.push_async_callback(fleet.close)
        changes = await plan(fleet, target_streams(settings, peers))
        if not dry_run:
            await apply(fleet, changes)
        if not access.settings.buckets:
            return changes
        service = await access.callout(broker)
        stack.push_async_callback(service.close)
        return (*changes, *await change_buckets(service, access.settings, peers, dry_run=dry_run))


async def change_buckets(service: Client, settings: Settings, peers: int, *, dry_run: bool) -> tuple[Change, ...]:
    """Change the service's buckets to match the settings, or only return what would change.

    Args:
        service: a connection of the service's user.
        settings: the settings.
        peers: servers in the JetStream cluster, 1 without a cluster.
        dry_run: whether to change nothing.

    Raises:
        OperationError: JetStream refuses.
    """
    changes = await plan(service, target_buckets(settings, peers))
    if not dry_run:
        await apply(service, changes)
    return changes


def streams_broker(access: Access) -> BrokerSettings:
    """Return the broker with the streams: the first broker other than edges and gates.

    Raises:
        AccessError: all brokers are edges or gates.
    """
    if access.settings.main_broker is not None:
        return access.settings.main_broker
    message = f"{access.settings.path}: no broker of role fleet, mixed or single is configured for streams; add one"
    raise AccessError(message)


async def find_peers(access: Access, broker: BrokerSettings) -> int:
    """Return the number of servers in the broker's JetStream cluster.

    Raises:
        AccessError: its system account is not accessible.
        OperationError: it does not answer.
    """
    try:
        system = await access.system(broker)
    except AccessError as error:
        raise AccessError(
            f"replicas of -1 need the system account, to query the size of the cluster: {error}; or set the four "
            "plugin.choria.network.stream.*_replicas to numbers"
        ) from error
    try:
        return await cluster_peers(system)
    finally:
        await system.close()
