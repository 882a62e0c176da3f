"""Reading the key files with which commands sign tokens, or which they put into tokens."""

from __future__ import annotations

from pathlib import Path

from broker_auth.cli import output
from broker_auth.cli.files import STANDARD_INPUT, read_file, read_input
from broker_auth.errors import InputError
from broker_auth.files.reading import GROUP, OTHERS
from broker_auth.tokens.issue import SigningKey, load_signing_key, require_public_key
from broker_auth.tokens.keys import MAX_KEY_FILE_BYTES


def read_signing_key(path: str) -> SigningKey:
    """Return the private key in a file, or on standard input for ``-``.

    A file that every user can access is refused. A file that its group can access causes a warning: operators use
    such files, and decide which users may sign.

    Raises:
        InputError: the file cannot be read, does not hold a key, or is accessible to every user.
    """
    if path == STANDARD_INPUT:
        return load_signing_key(read_input(path, MAX_KEY_FILE_BYTES), "standard input")
    content = read_file(Path(path), MAX_KEY_FILE_BYTES)
    if content.mode & OTHERS:
        raise InputError(f"{path} has mode {content.mode:04o}, so every user has access to it; run: chmod 600 {path}")
    if content.mode & GROUP:
        output.warning(f"{path} has mode {content.mode:04o}, so its group has access to it; run: chmod 600 {path}")
    return load_signing_key(content.data, path)


def read_public_key(argument: str) -> str:
    """Return an Ed25519 public key from 64 hex characters, or from a file that holds them.

    Raises:
        InputError: the argument is neither.
    """
    if not Path(argument).is_file():
        return require_public_key(argument)
    text = read_file(Path(argument), MAX_KEY_FILE_BYTES).data.decode("utf-8", "replace").strip()
    try:
        return require_public_key(text)
    except InputError as error:
        raise InputError(f"{argument}: {error}") from error
