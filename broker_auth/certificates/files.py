"""Reading the certificate and key files that a configuration names, by :mod:`.pemfile`."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

from cryptography.hazmat.primitives.asymmetric.types import PrivateKeyTypes

from broker_auth.certificates import pemfile
from broker_auth.certificates.certificate import Certificate
from broker_auth.certificates.pemfile import MAX_BYTES, Bundle, PemError
from broker_auth.files.reading import BadValue, read, read_private

SOON: Final = timedelta(days=30)


def read_bundle(path: Path) -> Bundle:
    """Return the certificates of a file, with their lines.

    Raises:
        BadValue: the file cannot be read, or holds no usable certificate.
    """
    data = read(path, MAX_BYTES).data
    try:
        return pemfile.read_bundle(data)
    except PemError as error:
        raise BadValue(f"{path} {error.what}", error.remedy) from error


def read_certificates(path: Path) -> tuple[Certificate, ...]:
    """Return the certificates of a file, in order.

    Raises:
        BadValue: as :func:`read_bundle`.
    """
    return read_bundle(path).certificates


def read_private_key(path: Path) -> PrivateKeyTypes:
    """Return the private key of a file that nobody else has access to.

    Raises:
        BadValue: the file cannot be used, or the key needs a passphrase or cannot be parsed.
    """
    data = read_private(path, MAX_BYTES)
    try:
        return pemfile.read_private_key(data)
    except PemError as error:
        raise BadValue(f"{path} {error.what}", error.remedy) from error


def expiry(not_after: datetime, now: datetime) -> str | None:
    """Return the message about a certificate that has expired or expires soon; None otherwise."""
    day = not_after.astimezone(UTC).strftime("%Y-%m-%d")
    if not_after <= now:
        return f"the certificate expired on {day}"
    if not_after - now <= SOON:
        return f"the certificate expires on {day}"
    return None


def validity(certificate: Certificate, now: datetime) -> str | None:
    """Return the message about a certificate that is not yet valid, has expired or expires soon; None otherwise."""
    if certificate.begins > now:
        return f"the certificate is not valid before {certificate.begins:%Y-%m-%dT%H:%M:%SZ}"
    return expiry(certificate.expires, now)
