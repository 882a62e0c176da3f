"""Changing the file of revocations."""

from __future__ import annotations

import contextlib
import fcntl
import os
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Final

from broker_auth.errors import InputError, OperationError
from broker_auth.files.writing import write_private
from broker_auth.policy.revocation_records import (
    Record,
    RecordKey,
    is_in_force,
    key_of,
    merged,
    restored_after,
    revoked_after,
)
from broker_auth.policy.revocations import Revocation
from broker_auth.settings.revocations import MAX_BYTES, RevocationList, decode, encode, read_revocations

_LOCK_SECONDS: Final = 15.0  # longer than another command waits for the service
_POLL_SECONDS: Final = 0.02


class RevocationStore:
    """The file of revocations under a lock, which one process at a time holds.

    Attributes:
        held: what the file holds.
    """

    def __init__(self, path: Path) -> None:
        """Read the file.

        Raises:
            BadValue: it cannot be used, so it is not overwritten either.
        """
        self._path = path
        self.held: RevocationList = read_revocations(path)

    def revoke(self, entries: Iterable[Revocation], now: float) -> tuple[Record, ...]:
        """Add revocations, in place of those of the same kind and value; return what was written."""
        new = tuple(revoked_after(one, self.held.records.get(key_of(one))) for one in entries)
        self.merge(new, now)
        return new

    def restore(self, entries: Iterable[RecordKey], now: float, by: str = "") -> tuple[Record, ...]:
        """Take revocations back; return what was written.

        Raises:
            InputError: one is not in force; nothing is changed then.
        """
        new = []
        for kind, value in sorted(set(entries)):
            known = self.held.records.get((kind, value))
            if not isinstance(known, Revocation) or not is_in_force(known, now):
                raise InputError(f"{kind} {value} is not revoked; see `broker-auth revoked`")
            new.append(restored_after(known, now, by))
        self.merge(new, now)
        return tuple(new)

    def merge(self, records: Iterable[Record], now: float) -> None:
        """Add records as far as they count; what is forgotten is left out.

        Raises:
            InputError: the file would be too large, or cannot be written.
        """
        result = merged(self.held.records, records, now)
        if result == self.held.records:
            return
        data = encode(result.values())
        if len(data) > MAX_BYTES:
            raise InputError(f"{self._path} would be larger than {MAX_BYTES} bytes; restore what has expired anyway")
        self.held = decode(data, self._path)  # never writes what no worker could read
        write_private(self._path, data, owner=self._path.stat())


class StoreBusyError(OperationError):
    """Another process holds the file of revocations."""


@contextlib.contextmanager
def open_store(path: Path, seconds: float = _LOCK_SECONDS) -> Iterator[RevocationStore]:
    """Hold the file, so that no change is lost or confirmed for another; wait some seconds for another process.

    Raises:
        StoreBusyError: another command holds it for too long.
        BadValue: the file cannot be used.
    """
    with _locked(path.parent, seconds):
        yield RevocationStore(path)


def create(path: Path) -> bool:
    """Write an empty file, owned by its directory's owner, if the file is missing. Return whether it was written.

    Raises:
        InputError: it cannot be written.
    """
    with _locked(path.parent):
        if path.exists():
            return False
        write_private(path, encode(()), force=False, owner=path.parent.stat())
    return True


@contextlib.contextmanager
def _locked(directory: Path, seconds: float = _LOCK_SECONDS) -> Iterator[None]:
    try:
        descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError as error:
        raise InputError(f"{directory} cannot be opened ({error.strerror}); correct the path") from error
    try:
        deadline = time.monotonic() + seconds
        while True:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > deadline:
                    raise StoreBusyError(
                        f"{directory} is locked by another command; try again when it is done"
                    ) from None
                time.sleep(_POLL_SECONDS)
        yield
    finally:
        os.close(descriptor)
