"""Follows the files of CRLs: a changed file is read in steps; the last good CRLs of an unusable file stay in force."""

from __future__ import annotations

import logging
from bisect import insort
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from broker_auth.certificates.certificate import Certificate
from broker_auth.certificates.crl import MAX_BYTES, Crl
from broker_auth.errors import BrokerAuthError
from broker_auth.files.reading import BadValue, UnreadableError, file_identity, read
from broker_auth.settings.crls import Reading, check_number, reading, version_of

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class CrlState:
    """A CRL as observers see it; attributes as in :class:`.Crl`."""

    file: str
    name: str
    entries: int
    this_update: float
    next_update: float | None


def state_of(one: Crl) -> CrlState:
    """Return what observers see of a CRL."""
    return CrlState(one.file, one.name, len(one.serials), one.this_update, one.next_update)


class CrlFiles:
    """The files of CRLs of one configuration.

    Attributes:
        crls: the last good CRLs of each file.
        troubles: why a file cannot be used just now, by file.
    """

    def __init__(self, paths: Iterable[Path], authorities: Sequence[Certificate], crls: Sequence[Crl]) -> None:
        """Begin with the CRLs that a configuration was loaded with."""
        self._good = {path: tuple(one for one in crls if one.file == str(path)) for path in dict.fromkeys(paths)}
        self._authorities = authorities
        self._seen: dict[Path, tuple[int, ...]] = {}
        self._reading: tuple[Path, Reading] | None = None
        self.troubles: dict[Path, str] = {}

    @property
    def crls(self) -> tuple[Crl, ...]:
        """The last good CRLs of all files."""
        return tuple(one for crls in self._good.values() for one in crls)

    @property
    def busy(self) -> bool:
        """Whether a file is being read, so that the next call of :meth:`look` should come soon."""
        return self._reading is not None

    def look(self) -> bool:
        """Take one step: look for a changed file, or read on in one. Return whether :attr:`crls` have changed."""
        if self._reading is None:
            self._begin()
        if self._reading is None:
            return False
        path, steps = self._reading
        try:
            next(steps)
        except StopIteration as end:
            self._reading = None
            return self._take(path, end.value)
        except BrokerAuthError as error:
            self._reading = None
            self.troubles[path] = str(error)
        return False

    def _begin(self) -> None:
        """Begin to read the first file whose content has changed."""
        for path, crls in self._good.items():
            if (seen := file_identity(path)) == self._seen.get(path):
                continue
            self._seen[path] = seen
            try:
                data = read(path, MAX_BYTES).data
            except BrokerAuthError as error:
                self.troubles[path] = str(error)
                if isinstance(error, UnreadableError):
                    del self._seen[path]  # try again although the file stays the same
                continue
            if crls and crls[0].version == version_of(data):
                self.troubles.pop(path, None)
                continue
            self._reading = path, reading(path, data, self._authorities)
            return

    def _take(self, path: Path, crls: tuple[Crl, ...]) -> bool:
        others = [one for of, held in self._good.items() if of != path for one in held]
        try:
            check_number(path, [*others, *crls])
            _check_not_older(path, crls, self._good[path])
        except BrokerAuthError as error:
            self.troubles[path] = str(error)
            return False
        self.troubles.pop(path, None)
        self._good[path] = crls
        for one in crls:
            _log.info("%s: the CRL of %r has %d entries now", path, one.name, len(one.serials))
        return True


def _check_not_older(path: Path, crls: Sequence[Crl], held: Sequence[Crl]) -> None:
    """Check that no CRL is missing or was replaced by an earlier one of its CA, which would restore what is revoked.

    A file of several CRLs that is half written looks like one with fewer CRLs.

    Raises:
        BadValue: one is.
    """
    before, after = _times(held), _times(crls)
    for one in held:
        earlier, now = before[one.issuer], after.get(one.issuer, [])
        if len(now) < len(earlier):
            what = f"{path} holds fewer CRLs of {one.name!r} than are in force ({len(now)} instead of {len(earlier)})"
            raise BadValue(what, "write the whole file again, or reload to do without")
        if any(new < old for new, old in zip(now[-len(earlier) :], earlier, strict=True)):
            what = f"{path} holds an older CRL of {one.name!r} than the one in force"
            raise BadValue(what, "get the current one, or reload to use the older one")


def _times(crls: Iterable[Crl]) -> dict[bytes, list[float]]:
    """Return when the CRLs of each issuer were issued, in order."""
    times: dict[bytes, list[float]] = {}
    for one in crls:
        insort(times.setdefault(one.issuer, []), one.this_update)
    return times
