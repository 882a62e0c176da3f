"""Hosts that serve only edges or gates: each zone has a key in a bucket, written by hosts that may be taken over.

The value maps the id of each host of the zone to what it says of itself. A thief of the zone's reader can write
anything there, so it is read strictly, and believed of that zone only.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from typing import Annotated, Final

import msgspec
from msgspec import Meta

from broker_auth.hosts.registration import HOST_SECONDS, LEFT_SECONDS, REFRESH_SECONDS
from broker_auth.natsio.bucket import CREATE, OUTPOSTS, Bucket, BucketError, ConflictError
from broker_auth.printable import printable

MAX_HOSTS: Final = 32  # of a zone
MAX_NAME: Final = 64  # characters
RETRY_SECONDS: Final = 5.0  # after a failure: other hosts of the zone, or a thief, may write all the time
_FILL: Final = OUTPOSTS.max_value - 512  # bytes, beside headers
_ATTEMPTS: Final = 8
_AGAIN_SECONDS: Final = 0.05  # a replica may answer with an older value

_HostId = Annotated[str, Meta(pattern=r"^[0-9a-f]{16}\Z")]
_Number = Annotated[int, Meta(ge=0, le=2**53)]


class Outpost(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, forbid_unknown_fields=True):
    """A host of the zone, as it describes itself.

    Attributes:
        name: for people.
        bucket: when the bucket of revocations that it follows was created.
        confirmed: the revision there up to which every worker decides.
        seen: when it wrote this, in Unix seconds.
        left: whether it was stopped, so that none of its workers decides anything.
    """

    name: Annotated[str, Meta(max_length=MAX_NAME)]
    bucket: Annotated[str, Meta(max_length=64)] = ""
    confirmed: _Number = 0
    seen: _Number
    left: bool = False


Outposts = Mapping[str, Outpost]
_decode: Final = msgspec.json.Decoder(Annotated[dict[_HostId, Outpost], Meta(max_length=MAX_HOSTS)]).decode


def read_outposts(value: bytes) -> Outposts | None:
    """Return the hosts in a value by their ids; None if no host writes such a value."""
    if len(value) > OUTPOSTS.max_value:
        return None
    try:
        hosts: dict[str, Outpost] = _decode(value)
    except (ValueError, RecursionError):
        return None
    return hosts


def with_outpost(known: Outposts, own: str, outpost: Outpost) -> bytes:
    """Return the value with one host changed, without hosts that are gone, and the oldest if there are too many."""
    kept = {key: one for key, one in known.items() if key != own and not is_gone(one, outpost.seen)}
    newest = sorted(kept.items(), key=lambda item: item[1].seen, reverse=True)[: MAX_HOSTS - 1]
    while len(value := msgspec.json.encode({own: outpost, **dict(newest)})) > _FILL:
        newest.pop()
    return value


def is_gone(outpost: Outpost, now: float) -> bool:
    """Return whether a host is not waited for: it was stopped, or has not written for a day."""
    return now - outpost.seen > (LEFT_SECONDS if outpost.left else HOST_SECONDS)


class OutpostRegistration:
    """The entry of this host in the key of its zone. A failure delays nothing else.

    Attributes:
        trouble: why it cannot be written; empty if it can.
    """

    def __init__(self, bucket: Bucket, zone: str, host: tuple[str, str], created: str) -> None:
        """Write nothing yet.

        Args:
            bucket: the bucket of all zones.
            zone: the zone whose reader this is.
            host: the id of this host and its name for people.
            created: identifies the bucket of revocations.
        """
        self.trouble = ""
        self._bucket = bucket
        self._zone = zone
        self._id = host[0]
        self._name = printable(host[1], MAX_NAME)[:MAX_NAME]
        self._created = created
        self._confirmed: int | None = None
        self._next = 0.0

    async def confirm(self, revision: int, now: float) -> None:
        """Write that every worker decides by the records up to a revision; nothing if that is known.

        Args:
            revision: of a record.
            now: seconds on a monotonic clock.
        """
        if now < self._next and (self.trouble or revision == self._confirmed):
            return
        try:
            await self._write(revision, left=False)
        except BucketError as error:
            self.trouble, self._next = str(error), now + RETRY_SECONDS
        else:
            self.trouble, self._next, self._confirmed = "", now + REFRESH_SECONDS, revision

    async def leave(self) -> None:
        """Write that this host was stopped.

        Raises:
            BucketError: the bucket cannot be reached.
        """
        if self._confirmed is not None:
            await self._write(self._confirmed, left=True)

    async def _write(self, confirmed: int, *, left: bool) -> None:
        for _ in range(_ATTEMPTS):
            entry = await self._bucket.get_own(self._zone)
            known = read_outposts(entry.value) if entry else {}
            own = Outpost(name=self._name, bucket=self._created, confirmed=confirmed, seen=int(time.time()), left=left)
            value = with_outpost(known or {}, self._id, own)
            try:
                await self._bucket.put(self._zone, value, entry.revision if entry else CREATE, HOST_SECONDS)
            except ConflictError:
                await asyncio.sleep(_AGAIN_SECONDS)
                continue
            return
        raise BucketError(
            f"bucket {self._bucket.spec.name}: key {self._zone} is changed by others all the time; if this goes on, "
            "make another reader for the zone"
        )
