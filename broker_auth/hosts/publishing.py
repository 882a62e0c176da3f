"""The part of commands: writing their changes to the bucket, and waiting until every host decides by them."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import Final

from broker_auth.hosts.bucket_records import PREFIX, read_record, write_of
from broker_auth.hosts.registration import PREFIX as HOSTS
from broker_auth.hosts.registration import read_host
from broker_auth.natsio.bucket import CREATE, Bucket, BucketError, ConflictError
from broker_auth.policy.revocation_records import Record, Restored, digest, is_in_force, key_of, later, revoked_after
from broker_auth.policy.revocations import Revocation

CONFIRM_SECONDS: Final = 10.0  # another host follows within a second
_POLL_SECONDS: Final = 0.1
_ATTEMPTS: Final = 5


async def publish(bucket: Bucket, records: Iterable[Record], now: float) -> int:
    """Write records to the bucket, unless it holds later ones; return the revision that a host has to confirm.

    A later restore does not count: whoever revokes a value now did not know of it, and this host's clock is slow.

    Raises:
        BucketError: the bucket cannot be reached, or a record is too long.
    """
    return max([await _publish(bucket, record, now) for record in records], default=0)


async def _publish(bucket: Bucket, record: Record, now: float) -> int:
    for _ in range(_ATTEMPTS):
        entry = await bucket.get(PREFIX + digest(key_of(record)))
        known = read_record(entry) if entry else None
        if entry and known and later(known, record) == known:
            if isinstance(known, Revocation) or isinstance(record, Restored):
                return entry.revision
            record = revoked_after(record, known)
        write = write_of(record, CREATE, now)
        if write is None:
            raise BucketError(f"{record.kind} {record.value[:64]} is too long for the bucket; give a shorter reason")
        try:
            return await bucket.put(write.key, write.value, entry.revision if entry else CREATE, write.ttl)
        except ConflictError:  # the service of this host writes it too
            continue
    raise BucketError(f"{record.kind} {record.value[:64]} is changed by others all the time; try again")


async def standing(bucket: Bucket, records: Iterable[Record], now: float) -> list[Revocation]:
    """Return revocations in the bucket of what ``records`` restored: other hosts made them later, and they count.

    Raises:
        BucketError: the bucket cannot be reached.
    """
    revocations = []
    for record in records:
        if isinstance(record, Restored) and (entry := await bucket.get(PREFIX + digest(key_of(record)))):
            known = read_record(entry)
            if isinstance(known, Revocation) and is_in_force(known, now):
                revocations.append(known)
    return revocations


async def unconfirmed_hosts(bucket: Bucket, revision: int, own: str) -> list[str]:
    """Wait until every other host has confirmed a revision; return the names of those that have not in time.

    Raises:
        BucketError: the bucket cannot be reached, or takes too long.
    """
    waiting: list[str] | None = None
    try:
        async with asyncio.timeout(CONFIRM_SECONDS):
            while True:
                hosts = {entry.key: read_host(entry) for entry in await bucket.entries(HOSTS)}
                waiting = [
                    host.name
                    for key, host in hosts.items()
                    if key != f"{HOSTS}.{own}" and not host.left and host.confirmed < revision
                ]
                if not waiting:
                    return []
                await asyncio.sleep(_POLL_SECONDS)
    except TimeoutError:
        if waiting is None:
            raise BucketError(
                f"bucket {bucket.spec.name}: its hosts could not be read within {CONFIRM_SECONDS:g} s; see "
                "nats-server's log"
            ) from None
        return sorted(waiting)
