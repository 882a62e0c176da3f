"""The way to the fleet's streams: which broker holds them, and which accounts tell what is needed."""

from __future__ import annotations

from contextlib import AsyncExitStack

from broker_auth.operate.access import Access, AccessError
from broker_auth.operate.streams.plan import Change, apply, cluster_peers, needs_peers, plan, wanted_streams
from broker_auth.settings.model import BrokerSettings, Role


async def change_streams(access: Access, *, dry_run: bool) -> tuple[Change, ...]:
    """Make the streams what the settings want, or only find out what would change.

    Raises:
        OperationError: a broker cannot be reached, or JetStream refuses.
    """
    settings = access.settings.streams
    broker = streams_broker(access)
    async with AsyncExitStack() as stack:
        peers = await find_peers(access, broker) if needs_peers(settings) else 1
        fleet = await access.fleet(broker)
        stack.push_async_callback(fleet.close)
        changes = await plan(fleet, wanted_streams(settings, peers))
        if not dry_run:
            await apply(fleet, changes)
        return changes


def streams_broker(access: Access) -> BrokerSettings:
    """The broker whose account holds the streams: the first that is no edge.

    Raises:
        AccessError: all are.
    """
    for broker in access.settings.brokers:
        if broker.role is not Role.EDGE:
            return broker
    raise AccessError(f"{access.settings.path}: no broker of role fleet or single, so there is nowhere for streams")


async def find_peers(access: Access, broker: BrokerSettings) -> int:
    """How many replicas the broker bears.

    Raises:
        AccessError: its system account does not open.
        OperationError: it does not tell.
    """
    try:
        system = await access.system(broker)
    except AccessError as error:
        raise AccessError(
            f"replicas of -1 need the system account, which tells the size of the cluster: {error}; or set the four "
            "plugin.choria.network.stream.*_replicas to numbers"
        ) from error
    try:
        return await cluster_peers(system)
    finally:
        await system.close()
