"""CRLs as the supervisor's messages carry them to workers: in parts, between which a worker answers requests."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Final

import msgspec

from broker_auth.certificates.crl import Crl, SerialNumbers

_BYTES: Final = 64 * 1024  # of serial numbers in a part


class CrlPart(msgspec.Struct, kw_only=True, omit_defaults=True):
    """A part of a CRL; attributes as in :class:`.Crl` and :class:`.SerialNumbers`.

    Attributes:
        continues: whether it continues the list before it.
    """

    issuer: bytes
    name: str
    this_update: float
    next_update: float | None = None
    width: int
    packed: bytes
    continues: bool = False


def parts(crls: Iterable[Crl]) -> Iterator[CrlPart]:
    """Yield the parts of each list, in order."""
    for one in crls:
        packed, size = one.serials.packed, _BYTES // one.serials.width * one.serials.width
        for start in range(0, max(len(packed), 1), size):
            yield CrlPart(
                issuer=one.issuer,
                name=one.name,
                this_update=one.this_update,
                next_update=one.next_update,
                width=one.serials.width,
                packed=packed[start : start + size],
                continues=start > 0,
            )


class PartialCrls:
    """The CRLs that the parts so far make."""

    def __init__(self) -> None:
        self._crls: list[list[CrlPart]] = []

    def add(self, part: CrlPart) -> None:
        """Take the next part."""
        if part.continues and self._crls:
            self._crls[-1].append(part)
        else:
            self._crls.append([part])

    def finish(self) -> tuple[Crl, ...]:
        """Return the CRLs, and begin again."""
        crls, self._crls = self._crls, []
        return tuple(
            Crl(
                issuer=first.issuer,
                name=first.name,
                serials=SerialNumbers(first.width, b"".join(part.packed for part in (first, *rest))),
                this_update=first.this_update,
                next_update=first.next_update,
            )
            for first, *rest in crls
        )
