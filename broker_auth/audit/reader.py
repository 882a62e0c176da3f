"""The audit file, read back: who tried to get in, and what became of it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

import msgspec

from broker_auth.audit.file import rotated
from broker_auth.audit.sinks import AuditRecord
from broker_auth.errors import InputError

MAX_BYTES: Final = 64 * 1024 * 1024  # of each file, from its end: some 100,000 decisions


def read_history(path: Path) -> list[AuditRecord]:
    """The decisions in an audit file, oldest first, and before them those of ``PATH.1`` if it is there.

    Lines that are no decisions (other kinds of record, a line cut off by a crash) are passed over.

    Raises:
        InputError: the file cannot be read.
    """
    return [record for file in rotated(path)[-2:] for record in _records(file)]


def rules_of(records: Sequence[AuditRecord]) -> dict[tuple[str, int], str]:
    """The rule that admitted each connection, by server id and connection id."""
    return {(item.server_id, item.cid): item.rule for item in records if item.decision == "admit"}


def _records(path: Path) -> Iterator[AuditRecord]:
    decoder = msgspec.json.Decoder(AuditRecord)
    for line in _tail(path).splitlines():
        try:
            yield decoder.decode(line)
        except msgspec.DecodeError:
            continue


def _tail(path: Path) -> bytes:
    try:
        with path.open("rb") as source:
            size = source.seek(0, 2)
            source.seek(max(0, size - MAX_BYTES))
            data = source.read(MAX_BYTES)
    except OSError as error:
        raise InputError(f"audit file {path} cannot be read: {error.strerror}") from error
    return data if size <= MAX_BYTES else data.partition(b"\n")[2]
