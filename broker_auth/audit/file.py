"""Audit records in a file that several processes append to, rotated by size; or on standard output."""

from __future__ import annotations

import contextlib
import fcntl
import logging
import os
import stat
import sys
import time
from collections.abc import Iterator
from io import FileIO
from pathlib import Path
from typing import Final

from broker_auth.audit.record import Record, encode
from broker_auth.errors import OperationError
from broker_auth.logs.limit import LogLimit
from broker_auth.logs.outlet import ThreadOutlet

MAX_BYTES: Final = 256 * 1024 * 1024
KEEP: Final = 4
MAX_KEEP: Final = 100
_LOOK_SECONDS: Final = 1.0  # between checks for a rotation by another process
_log = logging.getLogger(__name__)


def rotated(path: Path) -> list[Path]:
    """Return ``path`` and the files rotated from it, oldest first."""
    older = [path.with_name(f"{path.name}.{number}") for number in range(MAX_KEEP, 0, -1)]
    return [*(file for file in older if file.is_file()), path]


class AuditFile:
    """An audit file, or standard output for ``-``; used by one thread of each process, which it may block.

    Attributes:
        trouble: why the last write failed; empty after the next successful one.
    """

    def __init__(self, target: str | Path, max_bytes: int = 0, kept: int = KEEP) -> None:
        """Open ``target`` for appending, mode 0640.

        Args:
            target: a path, or ``-``.
            max_bytes: the size at which the file is rotated; 0 means never.
            kept: number of rotated files to keep, from ``PATH.1`` (newest) to ``PATH.N``.

        Raises:
            OperationError: it cannot be opened.
        """
        self._path = None if str(target) == "-" else Path(target)
        self._max_bytes = max_bytes
        self._kept = kept
        self._failed = False
        self.trouble = ""
        self._limit, self._rotating = LogLimit(), LogLimit()
        self._looked = 0.0
        self._stream = self._open()

    @property
    def whole(self) -> bool:
        """Whether a single write stays contiguous; a pipe guarantees that for a few kilobytes only."""
        return self._whole

    def write(self, data: bytes, count: int) -> int:
        """Append lines; return how many were lost. Must not raise: a full disk must not lock out the fleet."""
        if self._path is not None and self._whole:
            self._look(len(data))
        # After a failed write the file may end in half a line; start a new one.
        data = b"\n" + data if self._failed else data
        try:
            written = self._stream.write(data) or 0
        except OSError as error:
            return self._fail(count, error.strerror or type(error).__name__)
        if written != len(data):
            return self._fail(min(count, data.count(b"\n", written)), "only partly written")
        if self._failed:
            self._failed, self.trouble = False, ""
            _log.warning("audit records are being written to %s again (%d lost so far)", self._name, self._limit.count)
        return 0

    def reopen(self) -> None:
        """Reopen the file after log rotation has moved it; keep the old one if that fails."""
        if self._path is None:
            return
        try:
            previous, self._stream = self._stream, self._open()
        except OperationError as error:
            if self._rotating.due():
                _log.error("%s", error)
            return
        previous.close()

    def close(self) -> None:
        """Close the file; standard output stays open."""
        self._stream.close()

    @property
    def _name(self) -> str:
        return str(self._path or "standard output")

    def _look(self, more: int) -> None:
        """Follow a rotation by another process, and rotate if the file is full."""
        now = time.monotonic()
        if now - self._looked > _LOOK_SECONDS:
            self._looked = now
            if not self._is_current():
                self.reopen()
        if self._max_bytes and os.fstat(self._stream.fileno()).st_size + more > self._max_bytes:
            try:
                self._rotate()
            except OSError as error:
                if self._rotating.due():
                    _log.error("audit file %s cannot be rotated and keeps growing: %s", self._name, error.strerror)

    def _is_current(self) -> bool:
        assert self._path is not None  # only called for files
        try:
            there = self._path.stat()
        except OSError:
            return False
        here = os.fstat(self._stream.fileno())
        return (there.st_dev, there.st_ino) == (here.st_dev, here.st_ino)

    def _rotate(self) -> None:
        """Rotate the files, unless another process has done so or is doing so."""
        assert self._path is not None  # only called for files
        with self._locked() as alone:
            if not alone:
                return
            if self._is_current() and os.fstat(self._stream.fileno()).st_size:
                names = [self._path.with_name(f"{self._path.name}.{number}") for number in range(self._kept, 0, -1)]
                for newer, older in zip([*names[1:], self._path], names, strict=True):
                    if newer.exists():
                        newer.replace(older)
        self.reopen()

    @contextlib.contextmanager
    def _locked(self) -> Iterator[bool]:
        """Lock the open file; yield whether the lock was free."""
        descriptor = self._stream.fileno()
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
            return
        try:
            yield True
        finally:
            fcntl.flock(descriptor, fcntl.LOCK_UN)

    def _fail(self, count: int, reason: str) -> int:
        if self._limit.due(count):
            _log.error("audit record cannot be written to %s: %s (%d so far)", self._name, reason, self._limit.count)
        self._failed, self.trouble = True, f"{self._name}: {reason}"
        return count

    def _open(self) -> FileIO:
        try:
            if self._path is None:
                stream = FileIO(sys.stdout.fileno(), "w", closefd=False)
            else:
                self._path.touch(mode=0o640, exist_ok=True)
                stream = FileIO(self._path, "a")
            self._whole = stat.S_ISREG(os.fstat(stream.fileno()).st_mode)
        except OSError as error:
            raise OperationError(
                f"audit file {self._name} cannot be opened: {error.strerror}; correct the path or its permissions"
            ) from error
        return stream


class StreamAudit:
    """A sink that writes JSON lines to a file or standard output, in a thread, so that the caller never waits."""

    def __init__(self, target: str | Path, max_bytes: int = 0, kept: int = KEEP) -> None:
        """Open the target; see :class:`AuditFile`.

        Raises:
            OperationError: it cannot be opened.
        """
        file = self._file = AuditFile(target, max_bytes, kept)
        self._whole = file.whole
        self._outlet = ThreadOutlet(file, together=file.whole)

    @property
    def lost(self) -> int:
        """Records that could not be written."""
        return self._outlet.lost

    @property
    def trouble(self) -> str:
        """Reason of the last failed write; empty after a successful one."""
        return self._file.trouble

    def write(self, *records: Record) -> None:
        """Queue records; if the queue is full, drop and count them."""
        if self._whole and records:
            self._outlet.write(b"".join([encode(record) for record in records]), len(records))
            return
        for record in records:
            self._outlet.write(encode(record), 1)

    def reopen(self) -> None:
        """Reopen the file after log rotation has moved it."""
        self._outlet.reopen()

    def flush(self) -> None:
        """Wait until every queued record is in the file."""
        self._outlet.flush()

    def close(self) -> None:
        """Write the queued records, within a deadline."""
        self._outlet.close()
