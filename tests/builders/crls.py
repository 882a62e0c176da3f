"""CRLs of every form, encoded by hand: forms that ``cryptography`` does not write, and forgeries."""

from __future__ import annotations

import base64
from collections.abc import Iterable, Sequence
from typing import Final

from broker_auth.deploy.pki import CertificateAuthority
from tests.builders.certificates import (
    NOT_AFTER,
    NOT_BEFORE,
    Key,
    Made,
    algorithm_of,
    extension,
    integer,
    sequence,
    signature_of,
    tlv,
    utc_time,
)

REASON, INVALIDITY, CERTIFICATE_ISSUER = "551d15", "551d18", "551d1d"
NUMBER, DELTA, DISTRIBUTION_POINT, UNKNOWN = "551d14", "551d1b", "551d1c", "2a0304"
KEY_COMPROMISE, ON_HOLD, REMOVED = 1, 6, 8
CRL_NUMBER: Final = extension(NUMBER, integer(7))


def reason(code: int) -> bytes:
    """Return the entry extension with a reason."""
    return extension(REASON, tlv(0x0A, bytes((code,))))


def entry(serial: int, *extensions: bytes) -> bytes:
    """Return an entry."""
    return sequence(integer(serial), utc_time(NOT_BEFORE), sequence(*extensions) if extensions else b"")


def distribution_point(*parts: bytes) -> bytes:
    """Return a critical IssuingDistributionPoint of these fields."""
    return extension(DISTRIBUTION_POINT, sequence(*parts), critical=True)


def crl(
    issuer: Made | CertificateAuthority,
    *entries: int | bytes,
    this_update: float = NOT_BEFORE,
    next_update: float | None = NOT_AFTER,
    extensions: Sequence[bytes] = (CRL_NUMBER,),
    name: bytes | None = None,
    signs: Key | None = None,
    algorithm: bytes | None = None,
    version: int = 2,
) -> bytes:
    """Return a CRL (DER) of ``issuer``; ``signs`` replaces its key, ``name`` its name."""
    key, subject = _of(issuer)
    key = signs or key
    named = algorithm or algorithm_of(key)
    listed = [one if isinstance(one, bytes) else entry(one) for one in entries]
    tbs = sequence(
        integer(version - 1) if version > 1 else b"",
        named,
        name or subject,
        utc_time(this_update),
        b"" if next_update is None else utc_time(next_update),
        sequence(*listed) if listed else b"",
        tlv(0xA0, sequence(*extensions)) if extensions and version > 1 else b"",
    )
    return sequence(tbs, named, tlv(0x03, b"\0" + signature_of(key, tbs, None)))


def pem(*lists: bytes) -> bytes:
    """Return CRLs as PEM."""
    return b"".join(
        b"-----BEGIN X509 CRL-----\n" + base64.encodebytes(one) + b"-----END X509 CRL-----\n" for one in lists
    )


def many(count: int) -> Iterable[bytes]:
    """Yield entries with serial numbers of 20 bytes, as CAs choose them."""
    return (entry((1 << 158) + number * 7919) for number in range(count))


def _of(issuer: Made | CertificateAuthority) -> tuple[Key, bytes]:
    if isinstance(issuer, Made):
        return issuer.key, issuer.subject
    return issuer.pair.key, issuer.certificate.subject.public_bytes()
