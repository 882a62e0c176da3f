"""Reading the files of CRLs that a configuration names."""

from __future__ import annotations

import hashlib
from collections.abc import Generator, Iterable, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Protocol, TypeVar

from broker_auth.certificates.certificate import Certificate
from broker_auth.certificates.crl import MAX_BYTES, Crl, CrlError, parse_crls, too_many
from broker_auth.files.reading import BadValue, read

T = TypeVar("T")
Reading = Generator[None, None, tuple[Crl, ...]]
"""A file that is read in steps; returns its CRLs, and raises BadValue if it cannot be used."""


def version_of(data: bytes) -> str:
    """Return the name of a file's content."""
    return hashlib.sha256(data).hexdigest()


def reading(path: Path, data: bytes, authorities: Sequence[Certificate]) -> Reading:
    """Read the CRLs in the content of a file.

    Raises:
        BadValue: the file is not usable as a whole.
    """
    try:
        crls = yield from parse_crls(data, authorities)
    except CrlError as error:
        raise BadValue(f"{path} {error.what}", error.remedy) from error
    return tuple(replace(one, file=str(path), version=version_of(data)) for one in crls)


def read_crls(paths: Iterable[Path], authorities: Sequence[Certificate]) -> tuple[Crl, ...]:
    """Return the CRLs of all files.

    Raises:
        BadValue: a file is not usable as a whole.
    """
    crls: list[Crl] = []
    for path in dict.fromkeys(paths):
        crls += completed(reading(path, read(path, MAX_BYTES).data, authorities))
        check_number(path, crls)
    return tuple(crls)


def check_number(path: Path, crls: Sequence[Crl]) -> None:
    """Check that all CRLs, the last of them from ``path``, are not too many.

    Raises:
        BadValue: they are.
    """
    if (error := too_many(crls)) is not None:
        raise BadValue(f"{path} {error.what}", error.remedy)


def completed(steps: Generator[None, None, T]) -> T:
    """Return the result of a reading, without a pause between its steps."""
    while True:
        try:
            next(steps)
        except StopIteration as end:
            result: T = end.value
            return result


class Dated(Protocol):
    """A CRL, or what is known of one; attributes as in :class:`.Crl`."""

    @property
    def name(self) -> str: ...
    @property
    def this_update(self) -> float: ...
    @property
    def next_update(self) -> float | None: ...


def doubt(one: Dated, now: float) -> str:
    """Return what is wrong with the dates of a CRL at ``now`` (Unix seconds); empty if it is current."""
    if one.next_update is not None and one.next_update <= now:
        return f"the CRL of {one.name!r} expired on {_moment(one.next_update)}"
    if one.this_update > now:
        return f"the CRL of {one.name!r} is from the future ({_moment(one.this_update)})"
    return ""


def _moment(time: float) -> str:
    return f"{datetime.fromtimestamp(time, UTC):%Y-%m-%d %H:%M:%S} UTC"
