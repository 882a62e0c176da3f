"""Finds what let sessions in, in the audit files of a zone: the newest records first, within a deadline."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import BinaryIO, Final

import msgspec

from broker_auth.audit.file import rotated
from broker_auth.audit.reader import MAX_LINE, START
from broker_auth.audit.record import AuditRecord
from broker_auth.audit.redact import SHOWN, bounded
from broker_auth.policy.revocations import RevocationKind
from broker_auth.times import MAX_TIME

BY_RECORD: Final = frozenset({RevocationKind.TOKEN_ID, RevocationKind.CHAIN_ISSUER, RevocationKind.SIGNER})
_BLOCK: Final = 1024 * 1024  # bytes that are read at once
_CID: Final = re.compile(rb'"cid":([0-9]{1,19})')
_TIME: Final = re.compile(rb'"time":"([0-9TZ:.+-]{1,40})"')

Credential = tuple[RevocationKind, str]
"""A kind of :data:`BY_RECORD` and its value."""


class Admission(msgspec.Struct, tag_field="event", tag="decision"):
    """The parts of an audit record that tell what let a session in; see :class:`.AuditRecord`."""

    decision: str
    time: str = ""
    zone: str = ""
    server_id: str = ""
    cid: int = 0
    token_id: str = ""
    issuer_id: str = ""
    signer: str = ""


@dataclass(slots=True)
class Admissions:
    """The admissions that a search result.

    Attributes:
        matches: for each session, by server id and connection id, whether one of the credentials let it in.
        since: the time of the oldest record that was read, in Unix seconds; 0 if none was.
        trouble: why records could not be read, or not all in time; empty if that is all.
    """

    matches: dict[tuple[str, int], bool] = field(default_factory=dict)
    since: int = 0
    trouble: str = ""


def shown_by_record(record: AuditRecord | Admission) -> tuple[Credential, ...]:
    """Return what a record shows of a session that may have been revoked."""
    return (
        (RevocationKind.TOKEN_ID, record.token_id),
        (RevocationKind.CHAIN_ISSUER, record.issuer_id),
        (RevocationKind.SIGNER, record.signer),
        (RevocationKind.SIGNER, record.signer.partition(" via ")[0]),
    )


def recorded(kind: RevocationKind, value: str) -> Credential:
    """Return a credential as :func:`shown_by_record` does: records truncate what the issuer of a token chose."""
    if kind is RevocationKind.TOKEN_ID:
        return (kind, bounded(value))
    return (kind, value[:SHOWN] if kind is RevocationKind.SIGNER else value)


def find_admissions(
    path: Path, zone: str, sessions: Collection[tuple[str, int]], credentials: Collection[Credential], deadline: float
) -> Admissions:
    """Search a zone's audit file, and those rotated from it, for what let sessions in; memory does not grow with them.

    Args:
        path: the file.
        zone: records of another zone do not count: its servers could claim to be those of this one.
        sessions: by server id and connection id.
        credentials: those of which one may have let a session in.
        deadline: on the monotonic clock, in seconds.
    """
    result = Admissions()
    remaining, shown = set(sessions), frozenset(credentials)
    cids = frozenset(str(cid).encode() for _, cid in remaining)
    files = [file for file in reversed(rotated(path)) if file.is_file()]
    if not files:
        result.trouble = f"there is no audit file {path}"
    for file in files:
        try:
            with file.open("rb") as source:
                for block in _blocks(source):
                    _search(block, zone, cids, remaining, shown, result)
                    if not remaining:
                        return result
                    if time.monotonic() > deadline:
                        result.trouble = f"{path} was not searched to its beginning in time"
                        return result
        except OSError as error:
            result.trouble = f"audit file {file} cannot be read: {error.strerror}"
    return result


def _search(
    block: bytes,
    zone: str,
    cids: frozenset[bytes],
    remaining: set[tuple[str, int]],
    credentials: frozenset[Credential],
    result: Admissions,
) -> None:
    """Search lines, the last one first; take what was found out of ``remaining``."""
    # Decoding every line would take ten times as long, and no string in a record contains this key unescaped.
    for match in reversed(list(_CID.finditer(block))):
        if match[1] not in cids:
            continue
        admission = _admission(block, match.start())
        if admission is None or admission.zone not in ("", zone):
            continue
        session = (admission.server_id, admission.cid)
        if session in remaining:
            remaining.discard(session)
            result.matches[session] = not credentials.isdisjoint(shown_by_record(admission))
    if (oldest := _TIME.search(block)) is not None:
        result.since = _seconds(oldest[1].decode()) or result.since


_decode: Final = msgspec.json.Decoder(Admission).decode


def _admission(block: bytes, place: int) -> Admission | None:
    """Return the admission in the line at a place; None if it is another record, or not a complete one."""
    start = block.find(START, block.rfind(b"\n", 0, place) + 1, place)
    end = block.find(b"\n", place)
    if start < 0:
        return None
    try:
        admission = _decode(block[start : end if end >= 0 else None])
    except (ValueError, RecursionError):
        return None
    return admission if admission.decision == "admit" else None


def _blocks(source: BinaryIO) -> Iterator[bytes]:
    """Yield the lines of a file in blocks, the last block first."""
    end = source.seek(0, os.SEEK_END)
    rest = b""  # the end of a line that begins in the block before
    while end:
        start = max(0, end - _BLOCK)
        source.seek(start)
        block = source.read(end - start) + rest
        end, rest = start, b""
        if start:
            rest, _, block = block.partition(b"\n")
        if len(rest) > MAX_LINE:
            rest = b""
        yield block


def _seconds(text: str) -> int:
    """Return a record's time in Unix seconds; 0 if it is not a usable time."""
    try:
        return min(max(0, int(datetime.fromisoformat(text).timestamp())), MAX_TIME)
    except (ValueError, OverflowError):
        return 0
