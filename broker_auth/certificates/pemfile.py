"""Certificates and private keys of a PEM file: the usable ones, their lines, and how nats-server treats them.

The only reader of such files. It accepts every certificate that any program using the file accepts (docs/files.md),
and reports, with the line, each block that it or nats-server skips.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.asymmetric.types import PrivateKeyTypes
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_der_private_key

from broker_auth.certificates import der, pem
from broker_auth.certificates.certificate import Certificate, CertificateError, parse_certificate
from broker_auth.certificates.pem import Block
from broker_auth.certificates.signatures import public_key

MAX_BYTES: Final = 1024 * 1024  # a bundle of every public CA is a quarter of that
_ADVICE: Final = {
    "PKCS7": "convert it with: openssl pkcs7 -print_certs",
    "CERTIFICATE REQUEST": "give the certificate that was issued for the request",
    "NEW CERTIFICATE REQUEST": "give the certificate that was issued for the request",
}
_GO_CURVES: Final = (ec.SECP224R1, ec.SECP256R1, ec.SECP384R1, ec.SECP521R1)


class PemError(ValueError):
    """A file does not hold the expected object: ``what`` follows the file's name, ``remedy`` says what to do."""

    def __init__(self, what: str, remedy: str) -> None:
        self.what = what
        self.remedy = remedy
        super().__init__(f"{what}; {remedy}")


@dataclass(frozen=True, slots=True, kw_only=True)
class FileCertificate:
    """A usable certificate in a file.

    Attributes:
        line: number of its BEGIN line.
        as_authority: why nats-server skips it in a CA file; empty if it does not.
        as_leaf: why nats-server refuses it as the first certificate of a pair; empty if it does not.
        unseen: why nats-server does not read it at all; empty if it does.
        newer: why nats-server from 2.11 on refuses or skips it; empty if it does not.
    """

    certificate: Certificate
    line: int
    as_authority: str = ""
    as_leaf: str = ""
    unseen: str = ""
    newer: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Bundle:
    """The certificates of one file, in order.

    Attributes:
        entries: the usable certificates, with their lines.
        faults: line and reason of each unusable block.
    """

    entries: tuple[FileCertificate, ...]
    faults: tuple[tuple[int, str], ...]

    @property
    def certificates(self) -> tuple[Certificate, ...]:
        """The usable certificates."""
        return tuple(item.certificate for item in self.entries)


def read_bundle(data: bytes) -> Bundle:
    """Return every certificate of a file.

    Raises:
        PemError: no certificate is usable.
    """
    blocks = pem.split(data)
    entries, faults = [], []
    for block in blocks:
        if block.fault:
            faults.append((block.line, block.fault))
        elif block.is_certificate:
            try:
                entries.append(_entry(block))
            except CertificateError as error:
                faults.append((block.line, str(error)))
    if not entries:
        raise _no_certificate(data, blocks, faults)
    return Bundle(entries=tuple(entries), faults=tuple(faults))


def read_private_key(data: bytes) -> PrivateKeyTypes:
    """Return the first private key of a file, as Go and OpenSSL do.

    Raises:
        PemError: no key is found, or it cannot be used; the message never quotes the content.
    """
    block = private_key_block(data)
    if block.encrypted:
        raise PemError("is encrypted", "give a private key without a passphrase: openssl pkey -in FILE -out FILE")
    if block.label == "OPENSSH PRIVATE KEY":
        raise PemError("is a key in OpenSSH's format", "convert it with: ssh-keygen -p -m PEM -f FILE")
    if not block.fault:
        try:
            return load_der_private_key(block.body, None)
        except (ValueError, TypeError, UnsupportedAlgorithm):
            pass  # its message may quote the key
    raise _no_key(f"line {block.line}: {block.fault or 'it cannot be read'}")


def private_key_block(data: bytes) -> Block:
    """Return the block of the first private key.

    Raises:
        PemError: the file holds no private key.
    """
    blocks = pem.split(data)
    for block in blocks:
        if block.is_private_key:
            return block
    raise _no_key(f"it holds {_labels(blocks)}" if blocks else f"it {pem.what_else(data)}")


def key_refused_by_go(block: Block, key: PrivateKeyTypes) -> str:
    """Return why nats-server refuses a private key; empty if it accepts the key."""
    if block.unseen:
        return block.unseen
    if isinstance(key, ec.EllipticCurvePrivateKey):
        return "" if isinstance(key.curve, _GO_CURVES) else f"Go does not support the curve {key.curve.name}"
    if isinstance(key, rsa.RSAPrivateKey | ed25519.Ed25519PrivateKey):
        return ""
    return "Go's TLS does not support keys of this type"


def belong_together(certificate: Certificate, key: PrivateKeyTypes) -> bool:
    """Return whether the private key belongs to the certificate."""
    public = Encoding.DER, PublicFormat.SubjectPublicKeyInfo
    try:
        return public_key(certificate).public_bytes(*public) == key.public_key().public_bytes(*public)
    except (ValueError, UnsupportedAlgorithm):
        return False


def certificate_of(block: Block) -> Certificate:
    """Return the certificate in a block.

    Raises:
        CertificateError: the block cannot be parsed.
    """
    return parse_certificate(_first_element(block.body))


def _entry(block: Block) -> FileCertificate:
    certificate = certificate_of(block)
    leaf = block.unseen
    if not leaf and block.label != "CERTIFICATE":
        leaf = f"it is labelled {block.label}; write BEGIN CERTIFICATE, as by: openssl x509"
    unseen = leaf
    if not leaf and len(certificate.der) < len(block.body):
        leaf = "bytes follow the certificate; write it again with: openssl x509"
    authority = leaf
    if not authority and block.has_headers:
        authority = "headers stand before its content; write it again with: openssl x509"
    newer = "its serial number is negative; issue it again" if _has_negative_serial(certificate) else ""
    return FileCertificate(
        certificate=certificate, line=block.line, as_authority=authority, as_leaf=leaf, unseen=unseen, newer=newer
    )


def _first_element(body: bytes) -> bytes:
    """Return the certificate without the data that OpenSSL appends to it in a ``TRUSTED CERTIFICATE``."""
    try:
        return body[: der.read(body, 0, len(body)).end]
    except der.DerError:
        return body  # parsing will report the problem


def _has_negative_serial(certificate: Certificate) -> bool:
    tbs = certificate.tbs
    position = der.read(tbs, 0, len(tbs)).content
    element = der.read(tbs, position, len(tbs))
    if element.tag != der.INTEGER:  # the version comes first
        element = der.read(tbs, element.end, len(tbs))
    return tbs[element.content] >= 0x80


def _no_key(reason: str) -> PemError:
    return PemError(f"holds no readable PEM private key: {reason}", "give an unencrypted PEM private key")


def _no_certificate(data: bytes, blocks: tuple[Block, ...], faults: list[tuple[int, str]]) -> PemError:
    advice = next((_ADVICE[block.label] for block in blocks if block.label in _ADVICE), None)
    if faults:
        line, reason = faults[0]
        reason = f"line {line}: {reason}"
    elif blocks:
        reason = f"it holds {_labels(blocks)}"
    else:
        reason = f"it {pem.what_else(data)}"
    return PemError(f"holds no readable PEM certificate: {reason}", advice or "give a file of PEM certificates")


def _labels(blocks: Iterable[Block]) -> str:
    labels = list(dict.fromkeys(block.label for block in blocks))
    return ", ".join(labels[:3])
