"""The part of commands: waiting for hosts that serve only edges or gates (docs/policy.md#several-hosts)."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable
from typing import Final

from broker_auth.hosts.outposts import MAX_NAME, Outpost, is_gone, read_outposts
from broker_auth.natsio.bucket import Bucket, BucketState
from broker_auth.printable import printable
from broker_auth.wording import counted

MAX_NAMED: Final = 8  # hosts of a zone
_POLL_SECONDS: Final = 0.1


async def unconfirmed_outposts(
    outposts: Bucket, revocations: Bucket, zones: Iterable[str], revision: int, seconds: float
) -> list[str]:
    """Wait until the hosts of zones have confirmed a revision; return those that have not in time.

    Args:
        outposts: the bucket of all zones.
        revocations: the bucket that hosts follow.
        zones: the zones that have a reader.
        revision: of a record there.
        seconds: to wait.

    Raises:
        BucketError: a bucket cannot be reached.
    """
    deadline, waiting = time.monotonic() + seconds, tuple(zones)
    while True:
        values = [(zone, await outposts.get(zone)) for zone in waiting]
        state = await revocations.state()  # read last: no host confirms more than there is
        lines = {zone: _lines(zone, entry.value, revision, state) for zone, entry in values if entry is not None}
        waiting = tuple(zone for zone, missing in lines.items() if missing)
        if not waiting or time.monotonic() > deadline:
            return [line for zone in waiting for line in lines[zone]]
        await asyncio.sleep(_POLL_SECONDS)


def _lines(zone: str, value: bytes, revision: int, state: BucketState) -> list[str]:
    """Return which hosts of a zone have not confirmed; what they claim counts for this zone only."""
    hosts = read_outposts(value)
    if hosts is None:
        return [f"zone {zone}, whose hosts wrote what cannot be read,"]
    now = time.time()
    waiting = [one for one in hosts.values() if not (one.left or is_gone(one, now) or _follows(one, revision, state))]
    names = sorted(printable(one.name, MAX_NAME) for one in waiting)
    lines = [f"host {name} of zone {zone}" for name in names[:MAX_NAMED]]
    return lines + ([f"{counted(len(names) - MAX_NAMED, 'more host')} of zone {zone}"] if names[MAX_NAMED:] else [])


def _follows(outpost: Outpost, revision: int, state: BucketState) -> bool:
    """Return whether a host decides by a revision of this bucket, not of a lost or replaced bucket."""
    return outpost.bucket == state.created and revision <= outpost.confirmed <= state.last
