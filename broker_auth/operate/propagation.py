"""Takes a change of revocations to every host of the service, by the bucket of the fleet."""

from __future__ import annotations

from collections.abc import Iterable

from broker_auth.errors import OperationError
from broker_auth.hosts.publishing import CONFIRM_SECONDS, publish, unconfirmed_hosts
from broker_auth.hosts.registration import host_id
from broker_auth.natsio.bucket import REVOCATIONS, Bucket
from broker_auth.operate.access import Access
from broker_auth.operate.streams.change import streams_broker
from broker_auth.policy.revocation_records import Record


async def propagate(access: Access, records: Iterable[Record], now: float) -> list[str]:
    """Write records to the bucket, and wait until the workers of every other host decide by them.

    Returns:
        A line for each host that has not confirmed; a single line if no host could be asked.
    """
    try:
        service = await access.callout(streams_broker(access))
    except OperationError as error:
        return [_not_propagated(error)]
    try:
        bucket = Bucket(service, REVOCATIONS)
        revision = await publish(bucket, records, now)
        names = await unconfirmed_hosts(bucket, revision, host_id(access.settings))
    except OperationError as error:
        return [_not_propagated(error)]
    finally:
        await service.close()
    return [
        f"host {name} has not confirmed within {CONFIRM_SECONDS:g} s; start broker-auth there, or look at its log and "
        "/healthz; if it is gone for good, it is no longer waited for after a day"
        for name in names
    ]


def _not_propagated(error: OperationError) -> str:
    return f"other hosts may not know yet, and learn of it when the bucket can be reached again: {error}"
