"""The records in the bucket, as far as this host has read them; pure, so that tests can play any sequence."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import msgspec

from broker_auth.natsio.bucket import CREATE, REVOCATIONS, KeyValue, ttl_until
from broker_auth.policy.revocation_records import (
    Record,
    RecordKey,
    Records,
    Restored,
    check,
    digest,
    forgotten_at,
    is_forgotten,
    key_of,
    later,
)
from broker_auth.policy.revocations import Revocation

PREFIX = "record."
_HEADERS = 128  # bytes that the headers of a message need at most


class _Value(msgspec.Struct, forbid_unknown_fields=True, omit_defaults=True):
    """The value of a key: one of both."""

    revoked: Revocation | None = None
    restored: Restored | None = None


@dataclass(frozen=True, slots=True)
class Write:
    """A record to be written to the bucket.

    Attributes:
        about: what the record is about.
        expected: the revision that it replaces.
        ttl: seconds until nobody needs it; None if it stays, also if that is a century away.
    """

    about: RecordKey
    key: str
    value: bytes
    expected: int
    ttl: float | None


class BucketRecords:
    """The records of the bucket.

    Attributes:
        last: the revision of the latest record.
        refused: names of entries that are not records, which are ignored.
        oversized: what is too long for the bucket.
    """

    def __init__(self) -> None:
        self.last = 0
        self.refused: set[str] = set()
        self.oversized: set[RecordKey] = set()
        self._held: dict[RecordKey, tuple[Record, int]] = {}

    def take(self, entry: KeyValue) -> Record | None:
        """Take an entry that was read; return its record, None if it has no usable or a known one."""
        if not entry.key.startswith(PREFIX):
            return None
        self.last = max(self.last, entry.revision)
        record = read_record(entry)
        if record is None:
            self.refused.add(entry.key)
            return None
        self.refused.discard(entry.key)
        known = self._held.get(key_of(record))
        if known is not None and known[1] >= entry.revision:
            return None
        self._held[key_of(record)] = (record, entry.revision)
        return record

    def missing(self, held: Records, now: float) -> Iterator[Write]:
        """Yield what the bucket lacks of a host's records."""
        self.oversized.clear()
        for key, record in held.items():
            known = self._held.get(key)
            if is_forgotten(record, now) or (known is not None and later(known[0], record) == known[0]):
                continue
            write = write_of(record, known[1] if known else CREATE, now)
            if write is None:
                self.oversized.add(key)
            else:
                yield write

    def forget(self, about: RecordKey) -> None:
        """Forget a record that the bucket no longer holds."""
        self._held.pop(about, None)


def write_of(record: Record, expected: int, now: float) -> Write | None:
    """Return what to write for a record in place of a revision; None if it is too long."""
    value = _Value(restored=record) if isinstance(record, Restored) else _Value(revoked=record)
    data = msgspec.json.encode(value)
    if len(data) + _HEADERS > REVOCATIONS.max_value:
        return None
    ttl = ttl_until(forgotten_at(record), now)
    return Write(key_of(record), PREFIX + digest(key_of(record)), data, expected, ttl)


def read_record(entry: KeyValue) -> Record | None:
    """Return the record in an entry; None if it is not a usable record, or not that of its key."""
    try:
        value = msgspec.json.decode(entry.value, type=_Value)
        record: Record | None = value.revoked or value.restored
        if record is None or (value.revoked and value.restored):
            return None
        check(record)
    except (ValueError, RecursionError):
        return None
    return record if entry.key == PREFIX + digest(key_of(record)) else None
