"""Reads audit records back from files, and from logs that contain them."""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import BinaryIO, Final

import msgspec

from broker_auth.audit.file import rotated
from broker_auth.audit.record import AuditRecord, Record
from broker_auth.errors import InputError

MAX_LINE: Final = 1024 * 1024  # bytes; a record with its request has about 10 KB
RECENT_BYTES: Final = 64 * 1024 * 1024  # from the end of each file: about 100,000 decisions
START: Final = b'{"event":'  # in a log, the logger's prefix precedes it


def read_records(path: Path) -> Iterator[Record]:
    """Yield the records of an audit file and of the files rotated from it, oldest first.

    Raises:
        InputError: the file cannot be read.
    """
    for file in rotated(path):
        try:
            with file.open("rb") as source:
                yield from read_stream(source)
        except OSError as error:
            raise _unreadable(file, error) from error


def read_stream(source: BinaryIO) -> Iterator[Record]:
    """Yield the records found in JSON lines or in a log; skip everything else."""
    decoder = msgspec.json.Decoder(Record)
    while line := source.readline(MAX_LINE):
        start = line.find(START)
        if start < 0:
            continue
        try:
            yield decoder.decode(line[start:])
        except (msgspec.MsgspecError, UnicodeDecodeError):
            continue


def read_recent_decisions(path: Path) -> list[AuditRecord]:
    """Return the decisions at the end of an audit file and of the most recently rotated one, oldest first.

    Raises:
        InputError: the file cannot be read.
    """
    records = (record for file in rotated(path)[-2:] for record in read_stream(io.BytesIO(_tail(file))))
    return [record for record in records if isinstance(record, AuditRecord)]


def rules_of(records: Sequence[AuditRecord]) -> dict[tuple[str, int], str]:
    """Return the rule that admitted each connection, by server id and connection id."""
    return {(item.server_id, item.cid): item.rule for item in records if item.decision == "admit"}


def _tail(path: Path) -> bytes:
    try:
        with path.open("rb") as source:
            size = source.seek(0, 2)
            source.seek(max(0, size - RECENT_BYTES))
            data = source.read(RECENT_BYTES)
    except OSError as error:
        raise _unreadable(path, error) from error
    return data if size <= RECENT_BYTES else data.partition(b"\n")[2]


def _unreadable(path: Path, error: OSError) -> InputError:
    return InputError(f"audit file {path} cannot be read: {error.strerror}; correct the path or its permissions")
