"""Certificates and private keys of a PEM file: what is usable, at which line, and what nats-server makes of it.

The one reader of such files. It takes every certificate that any of the programs that use the file takes
(docs/files.md); what it passes over, and what nats-server passes over, it says by line.
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
    """A file does not hold what is needed: ``what`` follows the file's name, ``remedy`` says what to do."""

    def __init__(self, what: str, remedy: str) -> None:
        self.what = what
        self.remedy = remedy
        super().__init__(f"{what}; {remedy}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """A certificate in a file.

    Attributes:
        line: of its BEGIN line.
        as_authority: why nats-server passes over it in a CA file; empty if it does not.
        as_leaf: why nats-server refuses it as the first certificate of a pair; empty if it does not.
        unseen: why nats-server does not read it at all; empty if it does.
        newer: why nats-server from 2.11 on refuses or passes over it; empty if it does not.
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
        found: those that can be used.
        faults: line and reason of each block that cannot.
    """

    found: tuple[Found, ...]
    faults: tuple[tuple[int, str], ...]

    @property
    def certificates(self) -> tuple[Certificate, ...]:
        """The usable certificates."""
        return tuple(item.certificate for item in self.found)


def read_bundle(data: bytes) -> Bundle:
    """Return every certificate of a file.

    Raises:
        PemError: there is none that can be used.
    """
    blocks = pem.split(data)
    found, faults = [], []
    for block in blocks:
        if block.fault:
            faults.append((block.line, block.fault))
        elif block.is_certificate:
            try:
                found.append(_found(block))
            except CertificateError as error:
                faults.append((block.line, str(error)))
    if not found:
        raise _no_certificate(data, blocks, faults)
    return Bundle(found=tuple(found), faults=tuple(faults))


def read_private_key(data: bytes) -> PrivateKeyTypes:
    """Return the first private key of a file, as Go and OpenSSL do.

    Raises:
        PemError: there is none, or it cannot be used; never quotes the content.
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
        PemError: there is none.
    """
    blocks = pem.split(data)
    for block in blocks:
        if block.is_private_key:
            return block
    raise _no_key(f"it holds {_labels(blocks)}" if blocks else f"it {pem.what_else(data)}")


def key_refused_by_go(block: Block, key: PrivateKeyTypes) -> str:
    """Return why nats-server does not take a private key; empty if it does."""
    if block.unseen:
        return block.unseen
    if isinstance(key, ec.EllipticCurvePrivateKey):
        return "" if isinstance(key.curve, _GO_CURVES) else f"Go knows no curve {key.curve.name}"
    if isinstance(key, rsa.RSAPrivateKey | ed25519.Ed25519PrivateKey):
        return ""
    return "Go's TLS knows no keys of this kind"


def belong_together(certificate: Certificate, key: PrivateKeyTypes) -> bool:
    """Whether the private key is the certificate's."""
    public = Encoding.DER, PublicFormat.SubjectPublicKeyInfo
    try:
        return public_key(certificate).public_bytes(*public) == key.public_key().public_bytes(*public)
    except (ValueError, UnsupportedAlgorithm):
        return False


def certificate_of(block: Block) -> Certificate:
    """Return the certificate in a block.

    Raises:
        CertificateError: it cannot be parsed.
    """
    return parse_certificate(_first_element(block.body))


def _found(block: Block) -> Found:
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
    return Found(
        certificate=certificate, line=block.line, as_authority=authority, as_leaf=leaf, unseen=unseen, newer=newer
    )


def _first_element(body: bytes) -> bytes:
    """The certificate without what OpenSSL keeps behind it in a ``TRUSTED CERTIFICATE``."""
    try:
        return body[: der.read(body, 0, len(body)).end]
    except der.DerError:
        return body  # parsing says what is wrong


def _has_negative_serial(certificate: Certificate) -> bool:
    tbs = certificate.tbs
    position = der.read(tbs, 0, len(tbs)).content
    element = der.read(tbs, position, len(tbs))
    if element.tag != der.INTEGER:  # the version stands first
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
