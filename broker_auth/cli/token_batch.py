"""Tokens for many devices in one call of ``token provisioning``: one for each name in a file, written all or none."""

from __future__ import annotations

import os
import re
import shutil
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from broker_auth.cli import output
from broker_auth.cli.files import read_input
from broker_auth.errors import InputError
from broker_auth.policy.subjects import is_node_name
from broker_auth.tokens.issue import Claims, SigningKey

MAX_NAMES_FILE: Final = 16 * 1024 * 1024
_SUFFIX: Final = ".jwt"
_SHOWN_PROBLEMS: Final = 20
_FILE_NAME: Final = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,199}")


@dataclass(frozen=True, slots=True)
class Made:
    """A token that was written."""

    name: str
    file: Path
    token_id: str


def read_names(file: str) -> tuple[str, ...]:
    """Return the names in a file, one on each line; empty lines and lines that begin with ``#`` do not count.

    Raises:
        InputError: the file cannot be read or holds no name, or a name cannot be a node's name and a file's, or is
            there twice, possibly in another case. Lists all of these.
    """
    text = read_input(file, MAX_NAMES_FILE).decode("utf-8-sig", "replace")
    names: list[str] = []
    lines: dict[str, int] = {}  # by the name in lower case: some file systems do not distinguish case
    problems = []
    for number, line in enumerate(text.splitlines(), 1):
        name = line.strip()
        if not name or name.startswith("#"):
            continue
        if not (is_node_name(name) and _FILE_NAME.fullmatch(name)):
            problems.append(f"line {number}: {name[:80]!r} is not a name of letters, digits, '.', '_' and '-'")
        elif (first := lines.setdefault(name.lower(), number)) != number:
            problems.append(f"line {number}: {name!r} is on line {first} too")
        else:
            names.append(name)
    _refuse(file, problems)
    if not names:
        raise InputError(f"{file}: holds no name; write one name on each line")
    return tuple(names)


def write_tokens(
    names: Sequence[str], directory: Path, claims_for: Callable[[str], Claims], key: SigningKey
) -> list[Made]:
    """Sign a token for each name and write it to ``NAME.jwt`` in a directory, which is created if it is missing.

    All tokens are written beside the directory first, so that an error leaves nothing of them.

    Raises:
        InputError: a file exists already (lists all), a token cannot be signed, or a file cannot be written.
    """
    existing = {path.name for path in directory.iterdir()} if directory.is_dir() else set()
    taken = [f"{directory / name}{_SUFFIX} exists" for name in names if f"{name}{_SUFFIX}" in existing]
    _refuse(str(directory), taken)
    try:
        temporary = Path(tempfile.mkdtemp(prefix=f".{directory.name}.", dir=directory.parent))  # mode 0700
        try:
            made = [_write(temporary, directory, name, claims_for(name), key) for name in names]
            os.sync()  # once for all: fsync for each file would take minutes on a slow disk
            _move(temporary, directory, made)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
    except OSError as error:
        raise InputError(f"{directory}: tokens cannot be written ({error.strerror or type(error).__name__})") from error
    return made


def show(made: Sequence[Made], directory: Path, claims: Claims, *, as_json: bool) -> None:
    """Print what was written; ``claims`` are those of any of the tokens."""
    expires = output.rfc3339(claims["exp"])
    if as_json:
        tokens: list[dict[str, Any]] = [
            {"name": one.name, "file": str(one.file), "token_id": one.token_id} for one in made
        ]
        output.document(
            {"directory": str(directory), "purpose": claims["purpose"], "expires": expires, "tokens": tokens}
        )
        return
    output.note(f"Saved {len(made)} token{'' if len(made) == 1 else 's'} to {directory}; they expire {expires}")
    output.note(f"Show one with: broker-auth token inspect {made[0].file}")


def _write(temporary: Path, directory: Path, name: str, claims: Claims, key: SigningKey) -> Made:
    descriptor = os.open(temporary / f"{name}{_SUFFIX}", os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w", encoding="ascii") as file:
        file.write(key.sign(claims))  # without a line end, as Choria reads it
    return Made(name, directory / f"{name}{_SUFFIX}", claims["jti"])


def _move(temporary: Path, directory: Path, made: Sequence[Made]) -> None:
    """Move the files to their directory; a link fails if another process was faster, and takes the others back."""
    if not directory.exists():
        temporary.rename(directory)
        return
    moved: list[Path] = []
    try:
        for one in made:
            os.link(temporary / one.file.name, one.file)
            moved.append(one.file)
    except OSError:
        for file in moved:
            file.unlink(missing_ok=True)
        raise


def _refuse(place: str, problems: Sequence[str]) -> None:
    if not problems:
        return
    more = len(problems) - _SHOWN_PROBLEMS
    shown = "; ".join(problems[:_SHOWN_PROBLEMS]) + (f"; and {more} more" if more > 0 else "")
    raise InputError(f"{place}: nothing was written: {shown}")
