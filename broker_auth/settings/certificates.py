"""PEM certificates and keys a configuration names: readable, belonging together, not expired."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.types import PrivateKeyTypes
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_private_key

from broker_auth.certificate import Certificate, CertificateError, certificates_from_pem
from broker_auth.issued import public_key
from broker_auth.settings.files import BadValue, read, read_private

MAX_BYTES: Final = 1024 * 1024  # a bundle of every public CA is a quarter of that
SOON: Final = timedelta(days=30)


def read_certificates(path: Path) -> tuple[Certificate, ...]:
    """The certificates of a PEM file, in order.

    Raises:
        BadValue: the file cannot be read, or holds no certificate that can be parsed.
    """
    data = read(path, MAX_BYTES).data
    try:
        certificates = tuple(certificates_from_pem(data))
    except CertificateError as error:
        raise BadValue(f"{path}: {error}", "give a file of PEM certificates") from error
    if not certificates:
        raise BadValue(f"{path} holds no readable PEM certificate", "give a file of PEM certificates")
    return certificates


def read_private_key(path: Path) -> PrivateKeyTypes:
    """The private key of a PEM file that only its owner can access.

    Raises:
        BadValue: the file cannot be used, or the key cannot be parsed without a passphrase.
    """
    data = read_private(path, MAX_BYTES)
    try:
        return load_pem_private_key(data, password=None)
    except TypeError as error:
        raise BadValue(f"{path} is encrypted", "give a private key without a passphrase") from error
    except (ValueError, UnsupportedAlgorithm) as error:
        raise BadValue(f"{path} holds no readable PEM private key", "give an unencrypted PEM private key") from error


def belong_together(certificate: Certificate, key: PrivateKeyTypes) -> bool:
    """Whether the private key is the certificate's."""
    public = Encoding.DER, PublicFormat.SubjectPublicKeyInfo
    try:
        return public_key(certificate).public_bytes(*public) == key.public_key().public_bytes(*public)
    except (ValueError, UnsupportedAlgorithm):
        return False


def expiry(not_after: datetime, now: datetime) -> str | None:
    """What to say about a certificate that expired or soon will; None if it is good for longer."""
    day = not_after.astimezone(UTC).strftime("%Y-%m-%d")
    if not_after <= now:
        return f"the certificate expired on {day}"
    if not_after - now <= SOON:
        return f"the certificate expires on {day}"
    return None
