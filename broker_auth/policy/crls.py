"""The CRLs of the fleet's CAs: an input of the policy (docs/policy.md#certificate-revocation-lists)."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

from broker_auth.certificates.crl import Crl
from broker_auth.policy.decision import DenyCode

_ISSUER: Final = 32  # bytes of the issuer's digest, before the serial number


@dataclass(frozen=True, slots=True)
class ListedCertificate:
    """A certificate in the CRL of its CA.

    Attributes:
        is_leaf: whether it is the peer's certificate, and not that of a CA between it and ``client_ca``.
        serial: the serial number, hex.
        issuer: the name of the CA.
    """

    is_leaf: bool
    serial: str
    issuer: str
    code: DenyCode = DenyCode.REVOKED

    @property
    def detail(self) -> str:
        """One line for the audit log."""
        whose = "" if self.is_leaf else "its CA's "
        return f"{whose}certificate with serial number {self.serial} is in the CRL of {self.issuer!r}"


@dataclass(frozen=True, slots=True)
class ExpiredCrls:
    """A CA without a current CRL; ``ended`` is when its last one expired (Unix seconds)."""

    issuer: str
    ended: float
    code: DenyCode = DenyCode.CRL_EXPIRED

    @property
    def detail(self) -> str:
        """One line for the audit log."""
        when = datetime.fromtimestamp(self.ended, UTC)
        return f"the CRL of {self.issuer!r} expired on {when:%Y-%m-%d %H:%M:%S} UTC"


class CrlSet:
    """A frozen set of CRLs, by CA.

    Attributes:
        crls: the CRLs.
        deny_expired: whether certificates of a CA without a current CRL are denied.
    """

    __slots__ = ("_by_issuer", "crls", "deny_expired")

    def __init__(self, crls: Iterable[Crl] = (), *, deny_expired: bool = False) -> None:
        self.crls = tuple(crls)
        self.deny_expired = deny_expired
        self._by_issuer: dict[bytes, list[Crl]] = {}
        for one in self.crls:
            self._by_issuer.setdefault(one.issuer, []).append(one)

    def __bool__(self) -> bool:
        """Return whether there is any CRL."""
        return bool(self.crls)

    def replaced(self, crls: Iterable[Crl]) -> CrlSet:
        """Return other CRLs under the same rule for expired ones."""
        return CrlSet(crls, deny_expired=self.deny_expired)

    def find(self, serials: Sequence[bytes], now: float) -> ListedCertificate | ExpiredCrls | None:
        """Return why a peer is denied; None if it may be admitted.

        Args:
            serials: see :attr:`.PeerIdentity.serials`.
            now: Unix seconds.
        """
        for position, issuer_and_serial in enumerate(serials):
            crls = self._by_issuer.get(issuer_and_serial[:_ISSUER])
            if crls is None:
                continue
            serial = issuer_and_serial[_ISSUER:]
            for one in crls:
                if serial in one.serials:
                    return ListedCertificate(position == 0, serial.hex(), one.name)
            if self.deny_expired and (ended := max(map(_end, crls))) <= now:
                return ExpiredCrls(crls[0].name, ended)
        return None


NO_CRLS: Final = CrlSet()


def _end(one: Crl) -> float:
    return math.inf if one.next_update is None else one.next_update
