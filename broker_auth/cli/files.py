"""Files of commands: reading is bounded; written files are private and never overwritten without --force."""

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
    """Read at most ``limit`` bytes from a file, or from standard input for ``-``.

    Raises:
        InputError: the input cannot be read, or is larger.
    """
    if path != STANDARD_INPUT:
        return read_file(Path(path), limit).data
    data = sys.stdin.buffer.read(limit + 1)
    if len(data) > limit:
        raise InputError(f"standard input holds more than {limit} bytes")
    return data


def read_file(path: Path, limit: int) -> FileContent:
    """Read a regular file of at most ``limit`` bytes.

    Raises:
        InputError: the input cannot be read, or is larger.
    """
    try:
        return read(path, limit)
    except BadValue as error:  # its remedy is for configuration files
        raise InputError(error.what) from error


def read_secret_option(argument: str) -> Secret:
    """Return the value of a secret option; ``file:PATH`` names a private file that holds it.

    Raises:
        InputError: the file cannot be read, is accessible to others, or is empty.
    """
    if argument.startswith(SECRET_FILE):
        path = Path(argument.removeprefix(SECRET_FILE))
        try:
            with configured_by(path):  # root chose this file on the command line
                return read_secret(path)
        except BadValue as error:
            raise InputError(error.what) from error
    return Secret(argument)
