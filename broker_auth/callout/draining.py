"""Steps of ending a connection in order, which a broker that does not respond cannot hold up."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Final

from nats.aio.subscription import Subscription

from broker_auth.callout.client import BrokerClient
from broker_auth.natsio.client import round_trip
from broker_auth.natsio.natspy import unsubscribe

DRAIN_SECONDS: Final = 10.0  # for a broker that keeps sending
SILENT_SECONDS: Final = 1.5  # without a byte from a broker, after which draining ends without it
_LOOK_SECONDS: Final = 0.1


async def unsubscribed(client: BrokerClient, subscription: Subscription) -> None:
    """Return once every message that the broker sent for a subscription has been read, and no more will come."""
    await unsubscribe(client, subscription)
    await round_trip(client)


async def while_responsive(client: BrokerClient, step: Callable[[], Awaitable[None]]) -> None:
    """Take a step that ends with the broker's answer, as long as the broker sends anything.

    A live broker answers the PINGs of :meth:`.BrokerClient.check`, even if its answer to this step has to wait.

    Raises:
        TimeoutError: the broker has sent nothing for :data:`SILENT_SECONDS`, or the step took :data:`DRAIN_SECONDS`.
        nats.errors.Error: the connection is closed or does not answer.
    """
    taking = asyncio.ensure_future(step())
    before, silent = client.reads, 0
    try:
        async with asyncio.timeout(DRAIN_SECONDS):
            while not (await asyncio.wait([taking], timeout=_LOOK_SECONDS))[0]:
                # Counts looks instead of comparing clocks, because this process may have been suspended.
                before, silent = client.reads, silent + 1 if client.reads == before else 0
                if silent * _LOOK_SECONDS >= SILENT_SECONDS:
                    raise TimeoutError(f"it has sent nothing for {SILENT_SECONDS:g} s, frozen or unreachable")
            await taking
    finally:
        taking.cancel()
