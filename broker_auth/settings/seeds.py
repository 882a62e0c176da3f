"""Reading nkey seeds from private files."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final

from broker_auth.errors import InputError
from broker_auth.files.reading import MAX_SECRET_BYTES, BadValue, read_private
from broker_auth.natsio.nkey import NkeyKind, seed_kind
from broker_auth.secret import Secret

_SEED_TEXT: Final = re.compile(r"S[A-Z2-7]{57}")
_TITLES: Final = {
    NkeyKind.USER: "a user nkey seed (SU…)",
    NkeyKind.ACCOUNT: "an account nkey seed (SA…)",
    NkeyKind.CURVE: "a curve nkey seed (SX…)",
    NkeyKind.SERVER: "a server nkey seed (SN…)",
}


def looks_like_seed(text: str) -> bool:
    """Return whether ``text`` is a seed where a path was expected; then it must not be shown."""
    return _SEED_TEXT.fullmatch(text) is not None


def read_seed(path: Path, kind: NkeyKind) -> Secret:
    """Return the seed of the given kind in a private file, ignoring surrounding white space.

    Raises:
        BadValue: the file cannot be used, or does not hold such a seed. Never quotes the content.
    """
    text = read_private(path, MAX_SECRET_BYTES).strip().decode("ascii", "replace")
    remedy = f"give a file with {_TITLES[kind]}"
    if not text:
        raise BadValue(f"{path} is empty", remedy)
    try:
        actual = seed_kind(text)
    except InputError as error:
        raise BadValue(f"{path} does not hold an intact seed ({error})", remedy) from error
    if actual is not kind:
        raise BadValue(f"{path} holds {_TITLES[actual]}", remedy)
    return Secret(text)
