"""Files commands read and write: bounded on the way in, private and never overwritten on the way out."""

from __future__ import annotations

import sys
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
