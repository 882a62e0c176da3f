"""Takes a change of revocations to every host of the service, by the bucket of the fleet."""

from __future__ import annotations

import asyncio
from collections.abc import Collection

from broker_auth.errors import OperationError
from broker_auth.hosts.outpost_confirmations import unconfirmed_outposts
from broker_auth.hosts.publishing import CONFIRM_SECONDS, publish, standing, unconfirmed_hosts
from broker_auth.hosts.registration import host_id
from broker_auth.hosts.sealed_bucket import SealedBucket
from broker_auth.natsio.bucket import OUTPOSTS, Bucket
from broker_auth.operate.access import Access
from broker_auth.operate.streams.change import streams_broker
from broker_auth.policy.revocation_records import Record
from broker_auth.policy.revocations import Revocation
from broker_auth.settings.model import Settings


async def propagate(access: Access, records: Collection[Record], now: float) -> list[str]:
    """Write records to the bucket, and wait until the workers of every other host decide by them.

    Returns:
        A line for each host that has not confirmed, and for each value that was restored and stays revoked because
        another host revoked it later; a single line if no host could be asked.
    """
    try:
        broker = streams_broker(access)
        service = await access.callout(broker)
    except OperationError as error:
        return [_not_propagated(error)]
    try:
        bucket = SealedBucket(service, access.service_seed(broker))
        revision = await publish(bucket, records, now)
        kept = await standing(bucket, records, now)
        waiting = asyncio.create_task(_outposts(access.settings, Bucket(service, OUTPOSTS), bucket, revision))
        try:
            names = await unconfirmed_hosts(bucket, revision, host_id(access.settings))
            outposts = await waiting
        finally:
            waiting.cancel()
    except OperationError as error:
        return [_not_propagated(error)]
    finally:
        await service.close()
    return [_stays(one) for one in kept] + [_silent(f"host {name}") for name in names] + outposts


async def _outposts(settings: Settings, outposts: Bucket, revocations: Bucket, revision: int) -> list[str]:
    """Wait for hosts that serve only edges or gates; return a line for each that has not confirmed."""
    if not settings.readers:
        return []
    try:
        names = await unconfirmed_outposts(outposts, revocations, settings.readers, revision, CONFIRM_SECONDS)
    except OperationError as error:
        return [f"hosts that serve only edges or gates could not be asked whether they follow: {error}"]
    return [_silent(name) for name in names]


def _stays(one: Revocation) -> str:
    by = f" by {one.by}" if one.by else ""
    return (
        f"{one.kind} {one.value} stays revoked: it was revoked again on another host{by}, which counts here within a "
        "second; run restore again to undo that too"
    )


def _silent(what: str) -> str:
    return (
        f"{what} has not confirmed within {CONFIRM_SECONDS:g} s; start broker-auth there, or look at its log and "
        "/healthz; if it is gone for good, it is no longer waited for after a day"
    )


def _not_propagated(error: OperationError) -> str:
    return f"other hosts may not know yet, and learn of it when the bucket can be reached again: {error}"
