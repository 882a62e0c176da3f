"""Audit records for a replay: from files with those that rotation made of them, or from a stream."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import BinaryIO, Final

from broker_auth.audit.file import rotated
from broker_auth.audit.reader import read_stream
from broker_auth.audit.record import AuditRecord
from broker_auth.errors import InputError

_PROGRESS_RECORDS: Final = 5000
Progress = Callable[[int, int, int], None]
"""Reports records, bytes read, and bytes in total; the last is 0 if not known."""


def no_progress(_records: int, _read: int, _total: int) -> None:
    """Report nothing."""


def file_decisions(
    paths: Sequence[Path], since: float = 0.0, progress: Progress = no_progress
) -> Iterator[AuditRecord]:
    """Yield the decisions in audit files and in the files that rotation made of them, each file once.

    Args:
        paths: the files.
        since: leave out older decisions (Unix seconds).
        progress: is called now and then.

    Raises:
        InputError: a file cannot be read.
    """
    with contextlib.ExitStack() as stack:
        # All are opened first: a rotation meanwhile renames files, and would hide one or show one twice.
        sources: list[BinaryIO] = []
        total = 0
        for file in dict.fromkeys(file for path in paths for file in rotated(path)):
            try:
                opened = stack.enter_context(file.open("rb"))
            except OSError as error:
                raise InputError(f"audit file {file} cannot be read: {error.strerror}") from error
            status = os.fstat(opened.fileno())
            if status.st_mtime >= since:
                sources.append(opened)
                total += status.st_size
        count = before = 0
        for source in sources:
            for record in stream_decisions(source, since):
                yield record
                count += 1
                if count % _PROGRESS_RECORDS == 0:
                    progress(count, before + source.tell(), total)
            before += source.tell()
        progress(count, total, total)


def stream_decisions(source: BinaryIO, since: float = 0.0, progress: Progress = no_progress) -> Iterator[AuditRecord]:
    """Yield the decisions in a stream of audit records, or in a log that holds them; arguments as above."""
    count = 0
    for record in read_stream(source):
        if isinstance(record, AuditRecord) and (not since or record.time.timestamp() >= since):
            yield record
            count += 1
            if count % _PROGRESS_RECORDS == 0:
                progress(count, 0, 0)
