"""Files commands read and write: bounded on the way in, private and never overwritten on the way out."""

from __future__ import annotations

import contextlib
import os
import sys
import tempfile
from pathlib import Path
from typing import Final

from broker_auth.errors import InputError
from broker_auth.files.ownership import configured_by
from broker_auth.files.reading import BadValue, FileContent, read, read_secret
from broker_auth.secret import Secret

STANDARD_INPUT: Final = "-"
SECRET_FILE: Final = "file:"


def read_input(path: str, limit: int) -> bytes:
    """At most ``limit`` bytes from a file, or from standard input for ``-``.

    Raises:
        InputError: it cannot be read, or is larger.
    """
    if path != STANDARD_INPUT:
        return read_file(Path(path), limit).data
    data = sys.stdin.buffer.read(limit + 1)
    if len(data) > limit:
        raise InputError(f"standard input holds more than {limit} bytes")
    return data


def read_file(path: Path, limit: int) -> FileContent:
    """A regular file of at most ``limit`` bytes.

    Raises:
        InputError: it cannot be read, or is larger.
    """
    try:
        return read(path, limit)
    except BadValue as error:  # its remedy speaks of configuration files
        raise InputError(error.what) from error


def read_secret_option(given: str) -> Secret:
    """A secret option's value; ``file:PATH`` names a private file that holds it.

    Raises:
        InputError: the file cannot be read, is open to others, or is empty.
    """
    if given.startswith(SECRET_FILE):
        path = Path(given.removeprefix(SECRET_FILE))
        try:
            with configured_by(path):  # who names it to root on the command line has chosen it
                return read_secret(path)
        except BadValue as error:
            raise InputError(error.what) from error
    return Secret(given)


def write_private(path: Path, text: str, *, force: bool) -> None:
    """Writes a file that only its owner can read; whole or not at all.

    Raises:
        InputError: it exists and ``force`` is not given, or it cannot be written.
    """
    try:
        descriptor, temporary = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)  # mode 0600
    except OSError as error:
        raise _unwritable(path, error) from error
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        _put(Path(temporary), path, force=force)
    except FileExistsError as error:
        raise _existing(path) from error
    except OSError as error:
        raise _unwritable(path, error) from error
    finally:
        with contextlib.suppress(FileNotFoundError):
            Path(temporary).unlink()


def refuse_existing(path: Path) -> None:
    """Refuses to go on where there is something already.

    Raises:
        InputError: there is.
    """
    if os.path.lexists(path):
        raise _existing(path)


def _existing(path: Path) -> InputError:
    return InputError(f"{path} exists; give another name, or --force to overwrite it")


def _put(temporary: Path, path: Path, *, force: bool) -> None:
    if force:
        temporary.replace(path)
        return
    try:
        os.link(temporary, path)  # unlike a rename, fails if somebody else was quicker
    except PermissionError:  # a file system without hard links
        refuse_existing(path)
        temporary.replace(path)


def _unwritable(path: Path, error: OSError) -> InputError:
    return InputError(f"{path} cannot be written ({error.strerror or type(error).__name__})")
