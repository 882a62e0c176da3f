"""The file of revocations: one JSON document, private to the service, written by ``broker-auth revoke``."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import msgspec

from broker_auth.files.reading import BadValue, read_private
from broker_auth.policy.revocation_index import Revocations
from broker_auth.policy.revocation_records import (
    Record,
    RecordKey,
    Records,
    Restored,
    check,
    is_in_force,
    key_of,
    later,
)
from broker_auth.policy.revocations import Revocation, RevocationError

MAX_RECORDS: Final = 200_000  # revocations, and what was restored not long ago
MAX_BYTES: Final = 128 * 1024 * 1024
_RESTORE: Final = "put the last good copy back; until then the last good state counts"


class _Document(msgspec.Struct, forbid_unknown_fields=True):
    version: int
    revocations: tuple[Revocation, ...]
    restored: tuple[Restored, ...] = ()


@dataclass(frozen=True, slots=True)
class RevocationList:
    """The content of the file: for operators and for other hosts, and as the policy uses it.

    Attributes:
        records: also of what was restored or is over, which is kept for a while.
        index: of what was in force when the file was read.
    """

    records: Records
    index: Revocations

    @property
    def version(self) -> str:
        """The name of this content, by which a service confirms it."""
        return self.index.version

    def in_force(self, now: float) -> tuple[Revocation, ...]:
        """Return the revocations that deny something at ``now`` (Unix seconds)."""
        records = self.records.values()
        return tuple(one for one in records if isinstance(one, Revocation) and is_in_force(one, now))


def encode(records: Iterable[Record]) -> bytes:
    """Return the content of the file, with each record on a line for people to read."""
    lists: tuple[list[bytes], list[bytes]] = ([], [])
    for record in records:
        lists[isinstance(record, Restored)].append(msgspec.json.encode(record))
    revoked, restored = (b",\n".join(lines) for lines in lists)
    more = b'],"restored":[\n' + restored + b"\n" if restored else b""
    return b'{"version":1,"revocations":[\n' + revoked + b"\n" + more + b"]}\n"


def decode(data: bytes, path: Path) -> RevocationList:
    """Return what the file's content says.

    Raises:
        BadValue: it is not a complete list of usable records.
    """
    try:
        document = msgspec.json.decode(data, type=_Document)
        if document.version != 1:
            raise BadValue(f"{path} has format version {document.version}, which is not known", "update broker-auth")
        records = _records(document)
        now = time.time()
        in_force = (one for one in records.values() if isinstance(one, Revocation) and is_in_force(one, now))
        index = Revocations.of(in_force, version_of(data))
    except (ValueError, RecursionError) as error:
        raise BadValue(f"{path} is not a complete list of revocations ({error})", _RESTORE) from error
    return RevocationList(records, index)


def read_revocations(path: Path) -> RevocationList:
    """Return what the file holds.

    Raises:
        BadValue: it is missing, open to others, or not a complete list of usable revocations.
    """
    return decode(read_private(path, MAX_BYTES), path)


def version_of(data: bytes) -> str:
    """Return the name of a content."""
    return hashlib.sha256(data).hexdigest()[:16]


def _records(document: _Document) -> Records:
    if len(document.revocations) + len(document.restored) > MAX_RECORDS:
        raise RevocationError(f"there are more than {MAX_RECORDS}")
    records: dict[RecordKey, Record] = {}
    everything: tuple[Record, ...] = (*document.restored, *document.revocations)
    for record in everything:
        check(record)
        known = records.setdefault(key_of(record), record)
        records[key_of(record)] = later(known, record)
    return records
