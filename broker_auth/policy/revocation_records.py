"""Merges the revocations of several hosts, in any order (docs/policy.md#several-hosts).

Each kind and value has one record: a revocation, or the fact that it was restored. Records are ordered, and merging
keeps the later one, so hosts that have seen the same records agree, in whatever order they saw them. A restore is
placed just after the revocation that it undoes, not at the time it was made: a later revocation, which another host
made without knowing of the restore, stays.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable, Mapping
from typing import Final

import msgspec

from broker_auth.policy.revocations import Revocation, RevocationError, RevocationKind, Term, check_normal
from broker_auth.times import MAX_TIME

KEEP_SECONDS: Final = 90 * 86_400.0  # for which a record is kept after it has no more effect

RecordKey = tuple[RevocationKind, str]
"""The kind and the value that a record is about."""


class Restored(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, forbid_unknown_fields=True):
    """The record that a revocation was taken back. Times are Unix seconds.

    Attributes:
        at: its place among the records of this value: just after the revocation that it undoes.
        restored: when it was taken back.
        by: who did.
    """

    kind: RevocationKind
    value: str
    at: float
    restored: float
    by: str = ""


Record = Revocation | Restored
Records = Mapping[RecordKey, Record]


def key_of(record: Record) -> RecordKey:
    """Return the kind and the value of a record."""
    return record.kind, record.value


def digest(key: RecordKey) -> str:
    """Return a name for a kind and value that is safe as part of a subject."""
    return hashlib.sha256(f"{key[0]}\0{key[1]}".encode()).hexdigest()


def later(one: Record, other: Record) -> Record:
    """Return the record that counts. At the same place a revocation does, and of two the stricter."""
    return max(one, other, key=_place)


def _place(record: Record) -> tuple[float, bool, float, float, bytes]:
    if isinstance(record, Restored):
        return record.at, False, record.restored, 0.0, record.by.encode()
    term = Term.of(record)
    return record.at, True, term.until, term.before, f"{record.by}\0{record.reason}".encode()


def merged(held: Records, more: Iterable[Record], now: float) -> dict[RecordKey, Record]:
    """Return the records that count, without those that are forgotten at ``now``; the changed ones come last."""
    result = {key: record for key, record in held.items() if not is_forgotten(record, now)}
    for record in more:
        key = key_of(record)
        known = result.get(key)
        if is_forgotten(record, now) or (known is not None and later(known, record) == known):
            continue
        result.pop(key, None)
        result[key] = record
    return result


def revoked_after(record: Revocation, known: Record | None) -> Revocation:
    """Return a new revocation, placed after the record that it replaces even if a clock was wrong."""
    if known is None or record.at > known.at:
        return record
    return msgspec.structs.replace(record, at=_just_after(known.at))


def restored_after(record: Revocation, now: float, by: str = "") -> Restored:
    """Return the record that this revocation was taken back at ``now``."""
    return Restored(kind=record.kind, value=record.value, at=_just_after(record.at), restored=now, by=by)


def is_in_force(record: Record, now: float) -> bool:
    """Return whether a record denies anything."""
    return isinstance(record, Revocation) and (record.until is None or now < record.until)


def is_forgotten(record: Record, now: float) -> bool:
    """Return whether a record has had no effect for so long that it is not kept."""
    ended = forgotten_at(record)
    return ended is not None and ended <= now


def forgotten_at(record: Record) -> float | None:
    """Return when a record is forgotten, in Unix seconds; None if never."""
    ended = record.restored if isinstance(record, Restored) else record.until
    return None if ended is None else ended + KEEP_SECONDS


def check(record: Record) -> None:
    """Check that a record can be used.

    Raises:
        RevocationError: a time is out of range, or no connection can show the value.
    """
    times = (record.at, record.restored) if isinstance(record, Restored) else (record.at, record.until, record.before)
    if any(time is not None and not 0 <= time <= MAX_TIME for time in times):
        raise RevocationError(f"a time of {record.kind} {record.value!r} is out of range")
    check_normal(record.kind, record.value)


def _just_after(time: float) -> float:
    return math.nextafter(time, math.inf)
