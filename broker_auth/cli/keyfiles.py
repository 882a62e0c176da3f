"""Key files that commands sign with or put into tokens."""

from __future__ import annotations

from pathlib import Path

from broker_auth.cli import output
from broker_auth.cli.files import STANDARD_INPUT, read_file, read_input
from broker_auth.errors import InputError
from broker_auth.files.reading import GROUP, OTHERS
from broker_auth.tokens.issue import SigningKey, load_signing_key, require_public_key
from broker_auth.tokens.keys import MAX_KEY_FILE_BYTES


def read_signing_key(path: str) -> SigningKey:
    """The private key in a file, or on standard input for ``-``.

    A file that every user can access is refused. One that only its group can access is warned of:
    operators keep such files, and who may sign is theirs to say.

    Raises:
        InputError: it cannot be read, is no key, or is open to everybody.
    """
    if path == STANDARD_INPUT:
        return load_signing_key(read_input(path, MAX_KEY_FILE_BYTES), "standard input")
    content = read_file(Path(path), MAX_KEY_FILE_BYTES)
    if content.mode & OTHERS:
        raise InputError(f"{path} has mode {content.mode:04o}, so every user has access to it; run: chmod 600 {path}")
    if content.mode & GROUP:
        output.warning(f"{path} has mode {content.mode:04o}, so its group has access to it; run: chmod 600 {path}")
    return load_signing_key(content.data, path)


def read_public_key(given: str) -> str:
    """An Ed25519 public key, given as 64 hex characters or as the name of a file that holds them.

    Raises:
        InputError: it is neither.
    """
    if not Path(given).is_file():
        return require_public_key(given)
    text = read_file(Path(given), MAX_KEY_FILE_BYTES).data.decode("utf-8", "replace").strip()
    try:
        return require_public_key(text)
    except InputError as error:
        raise InputError(f"{given}: {error}") from error
