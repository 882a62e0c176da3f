"""The file of revocations: one JSON document, private to the service, written by ``broker-auth revoke``."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import msgspec

from broker_auth.files.reading import BadValue, read_private
from broker_auth.policy.revocations import Revocation, RevocationError, Revocations
from broker_auth.times import MAX_TIME

MAX_REVOCATIONS: Final = 200_000
MAX_BYTES: Final = 128 * 1024 * 1024
_RESTORE: Final = "put the last good copy back; until then the last good state counts"


class _Document(msgspec.Struct, forbid_unknown_fields=True):
    version: int
    revocations: tuple[Revocation, ...]


@dataclass(frozen=True, slots=True)
class RevocationList:
    """The content of the file: for operators, and as the policy uses it."""

    revocations: tuple[Revocation, ...]
    index: Revocations

    @property
    def version(self) -> str:
        """The name of this content, by which a service confirms it."""
        return self.index.version


def encode(revocations: tuple[Revocation, ...]) -> bytes:
    """Return the content of the file, with each revocation on a line for people to read."""
    lines = b",\n".join(msgspec.json.encode(one) for one in revocations)
    return b'{"version":1,"revocations":[\n' + lines + b"\n]}\n"


def decode(data: bytes, path: Path) -> RevocationList:
    """Return what the file's content says.

    Raises:
        BadValue: it is not a complete list of usable revocations.
    """
    try:
        document = msgspec.json.decode(data, type=_Document)
        if document.version != 1:
            raise BadValue(f"{path} has format version {document.version}, which is not known", "update broker-auth")
        index = _index(document.revocations, version_of(data))
    except (ValueError, RecursionError) as error:
        raise BadValue(f"{path} is not a complete list of revocations ({error})", _RESTORE) from error
    return RevocationList(document.revocations, index)


def read_revocations(path: Path) -> RevocationList:
    """Return what the file holds.

    Raises:
        BadValue: it is missing, open to others, or not a complete list of usable revocations.
    """
    return decode(read_private(path, MAX_BYTES), path)


def version_of(data: bytes) -> str:
    """Return the name of a content."""
    return hashlib.sha256(data).hexdigest()[:16]


def _index(revocations: tuple[Revocation, ...], version: str) -> Revocations:
    if len(revocations) > MAX_REVOCATIONS:
        raise RevocationError(f"there are more than {MAX_REVOCATIONS}")
    for one in revocations:
        if any(time is not None and not 0 <= time <= MAX_TIME for time in (one.until, one.before, one.at)):
            raise RevocationError(f"a time of {one.kind} {one.value!r} is out of range")
    return Revocations.of(revocations, version)
