"""Reading the files that a configuration names: bounded, regular files only, private where they must be."""

from __future__ import annotations

import os
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from broker_auth.errors import InputError
from broker_auth.files.ownership import objection
from broker_auth.secret import Secret

MAX_SECRET_BYTES: Final = 4096  # a password or a seed; 58 characters are usual
AS_SERVICE: Final = "run this as the service's user, as in: sudo -u broker-auth"  # docs/systemd.md

OTHERS: Final = 0o007
GROUP: Final = 0o070

_MISSING_REMEDY: Final = "create it or correct the path; relative paths start at the configuration file's directory"


class BadValue(InputError):
    """A value cannot be used. Reported as a problem of the line that holds it."""

    def __init__(self, what: str, remedy: str) -> None:
        self.what = what
        self.remedy = remedy
        super().__init__(f"{what}; {remedy}")


class UnreadableError(BadValue):
    """The system does not let a file be read, perhaps for a reason that passes, such as too many open files."""


@dataclass(frozen=True, slots=True)
class FileContent:
    """The bytes and the status of a file, read together."""

    data: bytes
    status: os.stat_result

    @property
    def mode(self) -> int:
        """Its permission bits."""
        return stat.S_IMODE(self.status.st_mode)


def file_identity(path: Path) -> tuple[int, ...]:
    """Return what changes with a file; empty if it cannot be seen."""
    try:
        status = path.stat()
    except OSError:
        return ()
    return status.st_mtime_ns, status.st_ctime_ns, status.st_ino, status.st_size


def read(path: Path, limit: int) -> FileContent:
    """Return the content and status of a regular file of at most ``limit`` bytes.

    Mode and content come from one descriptor, so that the file checked is the file read.

    Raises:
        UnreadableError: the system does not let it be read.
        BadValue: the file is missing, too large or not a regular file.
    """
    try:
        # Without O_NONBLOCK, opening a named pipe would wait for a writer.
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        with os.fdopen(descriptor, "rb") as file:
            status = os.fstat(file.fileno())
            if not stat.S_ISREG(status.st_mode):
                raise BadValue(f"{path} is not a regular file", "give the path of a file")
            data = file.read(limit + 1)
    except FileNotFoundError as error:
        raise BadValue(f"{path} does not exist", _MISSING_REMEDY) from error
    except IsADirectoryError as error:
        raise BadValue(f"{path} is a directory", "give the path of a file") from error
    except (OSError, ValueError) as error:
        reason = (error.strerror or type(error).__name__) if isinstance(error, OSError) else "not a valid path"
        denied = isinstance(error, PermissionError)
        remedy = f"{AS_SERVICE}, or correct the permissions" if denied else "correct the path or the permissions"
        raise UnreadableError(f"{path} cannot be read ({reason})", remedy) from error
    if len(data) > limit:
        raise BadValue(f"{path} is larger than {limit} bytes", "check that it is the right file")
    return FileContent(data, status)


def read_private(path: Path, limit: int) -> bytes:
    """Return the content of a file that only this service may read.

    Raises:
        BadValue: as :func:`read`; or other users have access to it or own it (docs/files.md#secrets-and-private-keys).
    """
    content = read(path, limit)
    if (refusal := objection(path, content.status)) is not None:
        raise BadValue(f"{path} {refusal.what}", refusal.remedy)
    return content.data


def read_secret(path: Path) -> Secret:
    """Return the secret that a private file holds, without one trailing line end.

    Raises:
        BadValue: as :func:`read_private`; or the file is empty or not UTF-8.
    """
    data = read_private(path, MAX_SECRET_BYTES)
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError:
        # "from None": the original error quotes the bytes.
        raise BadValue(f"{path} is not valid UTF-8", "save the secret as UTF-8 text") from None
    secret = text.removesuffix("\n").removesuffix("\r")
    if not secret.strip():
        raise BadValue(f"{path} is empty", "write the secret into it")
    return Secret(secret)
