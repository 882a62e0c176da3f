"""Keeps the file of revocations of this host and the bucket the same, as long as the service runs.

The file is what workers decide by. Records of other hosts are merged into it, and what the bucket lacks of it is
written to the bucket, unless this host follows as the reader of a zone (docs/zones.md#readers). While one of them
cannot be read, nothing is taken from it: what was revoked stays so.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import ssl
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

from broker_auth.errors import BrokerAuthError, OperationError
from broker_auth.files.reading import file_identity
from broker_auth.hosts.answering import Answering
from broker_auth.hosts.bucket_records import BucketRecords, Write
from broker_auth.hosts.outposts import OutpostRegistration
from broker_auth.hosts.registration import Registration
from broker_auth.hosts.sealed_bucket import SealedBucket
from broker_auth.natsio import bucket as buckets
from broker_auth.natsio.bucket import OUTPOSTS, REVOCATIONS, Bucket, BucketError, BucketState, ConflictError
from broker_auth.natsio.subjects import READER_API
from broker_auth.policy.revocation_records import Record
from broker_auth.policy.revocations import Revocation, is_pattern
from broker_auth.secret import Secret
from broker_auth.settings.revocation_store import RevocationStore, StoreBusyError, open_store
from broker_auth.settings.revocations import RevocationList, read_revocations

POLL_SECONDS: Final = 0.2
_SOON_SECONDS: Final = 0.05  # while something is not confirmed yet
_RETRY_SECONDS: Final = 1.0
_LAG_SECONDS: Final = 2.0
_AT_ONCE: Final = 64  # values on their way to the bucket
_LEAVE_SECONDS: Final = 2.0
_MERGE_SECONDS: Final = 5.0  # until records that did not fit are merged again, although nothing has changed


class Synchronizer:
    """Synchronizes the file of this host with the bucket.

    Attributes:
        synchronized: when the file and the bucket held the same last, in Unix seconds; 0 if they never did.
        trouble: why they do not; empty if they do.
    """

    def __init__(
        self,
        path: Path,
        host: tuple[str, str],
        in_force: Callable[[], set[str]],
        on_change: Callable[[], None] = lambda: None,
        answering: Answering | None = None,
        *,
        zone: str = "",
    ) -> None:
        """Connect to nothing yet.

        Args:
            path: the file of revocations.
            host: the id of this host and its name for people.
            in_force: returns the versions of the file by which the workers of each zone decide.
            on_change: called when :attr:`trouble` has changed, or with the first synchronization.
            answering: answers questions of commands in the bucket; None if this host may not write there.
            zone: the zone whose reader follows the bucket and writes nothing there; empty for a host of the fleet.
        """
        self.synchronized = 0.0
        self.trouble = ""
        self._path = path
        self._host = host
        self._in_force = in_force
        self._on_change = on_change
        self._answering = answering
        self._zone = zone
        self._outposts: Bucket | None = None
        self._held: RevocationList | None = None
        self._seen: tuple[int, ...] = ()
        self._created = ""
        self._confirmed = 0
        self._registration: Registration | OutpostRegistration | None = None
        self._reported = False
        self._left = False
        self._reset()

    async def run(self, urls: tuple[str, ...], seed: Secret, tls: ssl.SSLContext | None) -> None:
        """Follow the bucket until cancelled, at one address after the other."""
        for url in itertools.cycle(urls):
            try:
                client = await buckets.connect(url, seed, tls)
                try:
                    if self._zone:
                        self._outposts = Bucket(client, OUTPOSTS, READER_API)
                        await self._follow(Bucket(client, REVOCATIONS, READER_API))
                    else:
                        await self._follow(SealedBucket(client, seed))
                finally:
                    await buckets.disconnect(client)
            except BrokerAuthError as error:
                self._report(str(error))
            await asyncio.sleep(_RETRY_SECONDS)

    async def leave(self) -> None:
        """Tell other hosts that this one decides nothing any more, if they can be told; call it before the end."""
        self._left = True
        if self._registration is not None:
            with contextlib.suppress(BucketError, TimeoutError):
                async with asyncio.timeout(_LEAVE_SECONDS):
                    await self._registration.leave()

    def _reset(self) -> None:
        """Begin with a bucket that nothing is known of."""
        self._records = BucketRecords()
        self._fresh: list[Record] = []
        self._read_to = 0
        self._unwritten = True  # the bucket may lack something
        self._merged_to = 0
        self._refusal, self._refused, self._retry_at = "", 0, 0.0  # why how many records did not fit, and until when

    async def _follow(self, bucket: Bucket) -> None:
        self._registration, self._created = None, ""  # read everything again: the bucket may be an older copy
        while True:
            await self._step(bucket)
            waiting = self._merged_to > self._confirmed or (self._answering is not None and self._answering.is_busy)
            await asyncio.sleep(_SOON_SECONDS if waiting else POLL_SECONDS)

    async def _step(self, bucket: Bucket) -> None:
        state = await bucket.state()
        if state.created != self._created or state.last < self._read_to:
            self._created, self._confirmed, self._registration = state.created, 0, None
            self._reset()
        if self._registration is None and not self._left:
            # Before anything is read: a command that does not see this host yet has written before that.
            self._registration = self._register(bucket)
            await self._registration.confirm(self._confirmed, time.monotonic())
            state = await bucket.state()
        await self._catch_up(bucket, state)
        if self._answering is not None and not self._left:
            await self._answering.step(bucket)
        try:
            complete = self._merge()
        except BrokerAuthError as error:  # of the file
            self._report(str(error))
            if self._seen == file_identity(self._path):  # it can be read, but not take what others hold
                await self._write(bucket)
            await self._confirm()  # otherwise others would stop waiting for this host after a day
            return
        complete &= await self._write(bucket)
        if complete:
            self.synchronized = time.time()
            self._merged_to = self._records.last
            self._report(self._oddities())
        await self._confirm()

    def _register(self, bucket: Bucket) -> Registration | OutpostRegistration:
        if self._outposts is None:
            return Registration(bucket, *self._host)
        return OutpostRegistration(self._outposts, self._zone, self._host, self._created)

    async def _catch_up(self, bucket: Bucket, state: BucketState) -> None:
        """Read what was written to the bucket since the last time."""
        deadline = time.monotonic() + _LAG_SECONDS
        while self._read_to < state.last:
            entries, read_to = await bucket.read(self._read_to, state.last)
            records = [self._records.take(entry) for entry in entries]
            self._fresh += [record for record in records if record is not None]
            if self._answering is not None:
                self._answering.take(entries)
            if read_to > self._read_to:
                deadline = time.monotonic() + _LAG_SECONDS
            elif time.monotonic() > deadline:
                raise BucketError(f"bucket {REVOCATIONS.name}: a replica lags behind; see nats-server's log")
            else:
                await asyncio.sleep(_SOON_SECONDS)
            self._read_to = read_to

    def _merge(self) -> bool:
        """Merge what was read into the file; return whether that is done.

        Raises:
            BrokerAuthError: the file cannot be read or written.
        """
        seen = file_identity(self._path)
        if seen != self._seen or self._held is None:
            self._held, self._seen, self._unwritten = read_revocations(self._path), seen, True
            self._refused = 0
        if self._fresh:
            if len(self._fresh) == self._refused and time.monotonic() < self._retry_at:
                raise OperationError(self._refusal)  # merging them would take long, with the same result
            try:
                with open_store(self._path, 0) as store:
                    self._take_fresh(store)
            except StoreBusyError:  # a command holds it until the workers of this host have confirmed
                return False
            except BrokerAuthError as error:
                self._refusal, self._refused = str(error), len(self._fresh)
                self._retry_at = time.monotonic() + _MERGE_SECONDS
                raise
        return True

    def _take_fresh(self, store: RevocationStore) -> None:
        """Merge what was read, patterns last: if hosts hold too many of them together, only these are left out.

        Raises:
            BrokerAuthError: see :meth:`.RevocationStore.merge`.
        """
        split: tuple[list[Record], list[Record]] = ([], [])
        for one in self._fresh:
            split[isinstance(one, Revocation) and is_pattern(one)].append(one)
        others, patterns = split
        for records, left in ((others, patterns), (patterns, [])):
            store.merge(records, time.time())
            self._held, self._seen = store.held, file_identity(self._path)
            self._fresh, self._unwritten = left, True

    async def _write(self, bucket: Bucket) -> bool:
        """Write to the bucket what it lacks; return whether it lacks nothing, as far as this host may write."""
        if self._zone:
            return True
        if not self._unwritten or self._held is None:
            return not self._unwritten
        writes = list(self._records.missing(self._held.records, time.time()))
        for start in range(0, len(writes), _AT_ONCE):
            some = writes[start : start + _AT_ONCE]
            results = await asyncio.gather(*(self._put(bucket, write) for write in some), return_exceptions=True)
            for error in results:
                if error is not None:
                    raise error
        self._unwritten = bool(writes)  # until it was read back
        return not writes

    async def _put(self, bucket: Bucket, write: Write) -> None:
        try:
            await bucket.put(write.key, write.value, write.expected, write.ttl)
        except ConflictError:  # another host was faster, or the value has expired
            entry = await bucket.get(write.key)
            if entry is None:
                self._records.forget(write.about)
            elif (record := self._records.take(entry)) is not None:
                self._fresh.append(record)

    async def _confirm(self) -> None:
        """Tell other hosts up to where every worker of this one decides by the bucket."""
        if self._held is not None and self._in_force() == {self._held.version}:
            self._confirmed = max(self._confirmed, self._merged_to)
        if self._registration is not None and not self._left:
            await self._registration.confirm(self._confirmed, time.monotonic())

    def _oddities(self) -> str:
        if self._records.refused:
            return f"bucket {REVOCATIONS.name}: {len(self._records.refused)} entries are not known; update broker-auth"
        if self._records.oversized:
            kind, value = sorted(self._records.oversized)[0]
            return f"{kind} {value[:64]} is too long for the bucket; revoke it again with a shorter reason"
        return self._registration.trouble if self._registration is not None else ""

    def _report(self, trouble: str) -> None:
        if trouble != self.trouble or (not trouble and not self._reported):
            self.trouble, self._reported = trouble, True
            self._on_change()
