"""X.509 certificates as nats-server (Go) accepts them: only what a decision needs is parsed.

``cryptography``'s parser follows the profile of the web. It refuses, or fails on first use of, certificates that
private CAs issue: X.509 version 1, TeletexString names, ``&`` in PrintableString, negative serial numbers,
GeneralizedTime before 2050, unknown kinds of alternative names. nats-server has already verified such a chain, and
refusing it here would lock the peer out. Signatures are in :mod:`broker_auth.certificates.signatures`.
"""

from __future__ import annotations

import binascii
import hashlib
import re
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final, TypeVar

from broker_auth.certificates import der, extensions
from broker_auth.certificates import names as distinguished
from broker_auth.certificates.names import AlternativeNames

T = TypeVar("T")

MAX_DER: Final = 256 * 1024  # bytes; the maximum that Go accepts in a TLS handshake
_MAX_EXTENSIONS: Final = 128
_MAX_TBS_FIELDS: Final = 10  # RFC 5280 4.1 has ten
_BEGIN: Final = "-----BEGIN CERTIFICATE-----"
_END: Final = "-----END CERTIFICATE-----"
_BLOCK: Final = re.compile(rb"-----BEGIN CERTIFICATE-----\s(.*?)-----END CERTIFICATE-----", re.DOTALL)
_VERSION, _UNIQUE_IDS, _EXTENSIONS = 0xA0, (0x81, 0x82), 0xA3

_BASIC_CONSTRAINTS: Final = bytes.fromhex("551d13")
_KEY_USAGE: Final = bytes.fromhex("551d0f")
_ALTERNATIVE_NAMES: Final = bytes.fromhex("551d11")
_EXTENDED_KEY_USAGE: Final = bytes.fromhex("551d25")
_NAME_CONSTRAINTS: Final = bytes.fromhex("551d1e")
_LABELS: Final = {
    _BASIC_CONSTRAINTS: "basic constraints",
    _KEY_USAGE: "key usage",
    _ALTERNATIVE_NAMES: "alternative names",
    _EXTENDED_KEY_USAGE: "extended key usage",
    _NAME_CONSTRAINTS: "name constraints",
}


class CertificateError(ValueError):
    """A certificate cannot be used; the message says why, without the file's or peer's name."""


@dataclass(frozen=True, slots=True, eq=False)
class Certificate:
    """One certificate; two are equal if their bytes are.

    Attributes:
        der: the whole certificate.
        tbs: the signed part.
        version: 1 to 3.
        serial: the serial number, big-endian, without leading zero bytes.
        algorithm: the signature's AlgorithmIdentifier (DER).
        issuer: distinguished name (DER), for comparison.
        subject: distinguished name (DER), for comparison.
        not_before: Unix seconds.
        not_after: Unix seconds.
        spki: SubjectPublicKeyInfo (DER).
        signature: the signature's bytes.
        extensions: values by object identifier (both without tag and length), of the extensions used here.
    """

    der: bytes
    tbs: bytes
    version: int
    serial: bytes
    algorithm: bytes
    issuer: bytes
    subject: bytes
    not_before: float
    not_after: float
    spki: bytes
    signature: bytes
    extensions: dict[bytes, bytes]

    def __eq__(self, other: object) -> bool:
        """Compare the bytes."""
        return isinstance(other, Certificate) and self.der == other.der

    def __hash__(self) -> int:
        """Hash the bytes."""
        return hash(self.der)

    def __repr__(self) -> str:
        """Show the subject."""
        return f"Certificate({self.subject_text!r})"

    @property
    def fingerprint(self) -> str:
        """SHA-256 of the certificate, lower-case hex."""
        return hashlib.sha256(self.der).hexdigest()

    @property
    def issuer_and_serial(self) -> bytes:
        """SHA-256 of the issuer's name (DER), followed by the serial number: what CRLs name a certificate by."""
        return hashlib.sha256(self.issuer).digest() + self.serial

    @property
    def expires(self) -> datetime:
        """``not_after`` in UTC."""
        return datetime.fromtimestamp(self.not_after, UTC)

    @property
    def begins(self) -> datetime:
        """``not_before`` in UTC."""
        return datetime.fromtimestamp(self.not_before, UTC)

    @property
    def common_name(self) -> str:
        """The subject's last common name; empty if it has no common name."""
        return distinguished.common_name(self.subject)

    @property
    def subject_text(self) -> str:
        """The subject in readable form, at most 256 characters."""
        return distinguished.readable(self.subject)

    @property
    def issuer_text(self) -> str:
        """The issuer in readable form, at most 256 characters."""
        return distinguished.readable(self.issuer)

    @property
    def has_alternative_names(self) -> bool:
        """Whether there is a subjectAltName extension, even an empty or malformed one."""
        return _ALTERNATIVE_NAMES in self.extensions

    @property
    def has_name_constraints(self) -> bool:
        """Whether there is a nameConstraints extension, even an empty or malformed one."""
        return _NAME_CONSTRAINTS in self.extensions

    @property
    def alternative_names(self) -> AlternativeNames:
        """The alternative names.

        Raises:
            CertificateError: the extension is malformed.
        """
        return self._read(_ALTERNATIVE_NAMES, distinguished.alternative_names, default=AlternativeNames())

    @property
    def is_for_clients(self) -> bool:
        """Whether TLS clients may use it; True without extended key usages (as in Go).

        Raises:
            CertificateError: the extension is malformed.
        """
        return self._read(_EXTENDED_KEY_USAGE, extensions.is_for_clients, default=True)

    @property
    def is_for_servers(self) -> bool:
        """Whether TLS servers may use it; True without extended key usages (as in Go).

        Raises:
            CertificateError: the extension is malformed.
        """
        return self._read(_EXTENDED_KEY_USAGE, extensions.is_for_servers, default=True)

    @property
    def authority(self) -> bool | None:
        """The CA flag of basicConstraints; None without the extension.

        Raises:
            CertificateError: the extension is malformed.
        """
        return self._basic_constraints()[0]

    @property
    def path_length(self) -> int | None:
        """The number of CAs allowed between this one and a leaf; None for any number.

        Raises:
            CertificateError: basicConstraints is malformed.
        """
        return self._basic_constraints()[1]

    @property
    def may_sign_certificates(self) -> bool:
        """Whether the key usage allows signing certificates; True without a key usage (as in Go).

        Raises:
            CertificateError: the extension is malformed.
        """
        return self._read(_KEY_USAGE, extensions.may_sign_certificates, default=True)

    @property
    def may_sign_lists(self) -> bool:
        """Whether the key usage allows signing CRLs; True without a key usage (as in Go).

        Raises:
            CertificateError: the extension is malformed.
        """
        return self._read(_KEY_USAGE, extensions.may_sign_lists, default=True)

    def _basic_constraints(self) -> tuple[bool | None, int | None]:
        nothing: tuple[bool | None, int | None] = (None, None)
        return self._read(_BASIC_CONSTRAINTS, extensions.basic_constraints, default=nothing)

    def _read(self, extension: bytes, read: Callable[[bytes], T], *, default: T) -> T:
        value = self.extensions.get(extension)
        if value is None:
            return default
        try:
            return read(value)
        except der.DerError as error:
            raise CertificateError(f"its {_LABELS[extension]} cannot be read: {error}") from error


def parse_certificate(data: bytes) -> Certificate:
    """Return the certificate in these DER bytes, which must not hold anything else.

    Raises:
        CertificateError: the certificate is malformed or too large.
    """
    if len(data) > MAX_DER:
        raise CertificateError(f"it is larger than {MAX_DER} bytes")
    try:
        return _parse(data)
    except der.DerError as error:
        raise CertificateError(f"it is malformed: {error}") from error


def certificate_from_pem(text: str) -> Certificate:
    """Return the one certificate of a PEM text that holds nothing else, as nats-server writes it.

    Raises:
        CertificateError: the text is not exactly one certificate.
    """
    return parse_certificate(_only_block(text))


def pem_fingerprint(text: str) -> str:
    """Return the SHA-256 (hex) of the content of a PEM text, valid or not; empty if the text is not PEM."""
    try:
        return hashlib.sha256(_only_block(text)).hexdigest()
    except CertificateError:
        return ""


def certificates_from_pem(data: bytes) -> list[Certificate]:
    """Return every certificate of a PEM file, in order, ignoring text and other blocks around them.

    Raises:
        CertificateError: a certificate cannot be read; the message gives its number.
    """
    certificates = []
    for number, block in enumerate(_BLOCK.finditer(data), start=1):
        try:
            certificates.append(parse_certificate(_decode(block[1].decode("ascii", "replace"))))
        except CertificateError as error:
            raise CertificateError(f"certificate {number} cannot be read: {error}") from error
    return certificates


def _only_block(text: str) -> bytes:
    stripped = text.strip()
    if not (stripped.startswith(_BEGIN) and stripped.endswith(_END) and len(stripped) < 2 * MAX_DER):
        raise CertificateError("it is not one PEM certificate")
    return _decode(stripped[len(_BEGIN) : -len(_END)])


def _decode(text: str) -> bytes:
    try:
        return binascii.a2b_base64("".join(text.split()), strict_mode=True)
    except (binascii.Error, ValueError) as error:
        raise CertificateError("it is not base64") from error


def _parse(data: bytes) -> Certificate:
    outer = der.only(data, der.SEQUENCE)
    parts = der.children(data, outer.content, outer.end, 3)
    if [part.tag for part in parts] != [der.SEQUENCE, der.SEQUENCE, der.BIT_STRING]:
        raise der.DerError("not a certificate")
    tbs, outer_algorithm, signature = parts
    fields = der.children(data, tbs.content, tbs.end, _MAX_TBS_FIELDS)
    version = 1
    if fields and fields[0].tag == _VERSION:
        number = der.expect(data, fields[0].content, fields[0].end, der.INTEGER)
        version = der.unsigned(data, number) + 1
        fields = fields[1:]
    if not 1 <= version <= 3:
        raise der.DerError("its version is not 1, 2 or 3")
    tags = [field.tag for field in fields]
    if tags[:6] != [der.INTEGER, *[der.SEQUENCE] * 5]:
        raise der.DerError("its fields are not those of a certificate")
    serial, algorithm, issuer, validity, subject, key = fields[:6]
    if data[algorithm.start : algorithm.end] != data[outer_algorithm.start : outer_algorithm.end]:
        raise der.DerError("the signature's algorithm differs from the signed one")
    if data[signature.content : signature.content + 1] != b"\0":
        raise der.DerError("its signature is not of whole bytes")
    times = der.children(data, validity.content, validity.end, 2)
    if len(times) != 2:
        raise der.DerError("its validity is not two times")
    return Certificate(
        der=data,
        tbs=data[tbs.start : tbs.end],
        version=version,
        serial=data[serial.content : serial.end].lstrip(b"\0") or b"\0",
        algorithm=data[algorithm.start : algorithm.end],
        issuer=data[issuer.start : issuer.end],
        subject=data[subject.start : subject.end],
        not_before=der.time(data, times[0]),
        not_after=der.time(data, times[1]),
        spki=data[key.start : key.end],
        signature=data[signature.content + 1 : signature.end],
        extensions=_extensions(data, fields[6:]) if version == 3 else {},
    )


def _extensions(data: bytes, fields: list[der.Element]) -> dict[bytes, bytes]:
    values: dict[bytes, bytes] = {}
    rest = [field for field in fields if field.tag not in _UNIQUE_IDS]
    if not rest:
        return values
    if len(rest) > 1 or rest[0].tag != _EXTENSIONS:
        raise der.DerError("its last fields are not those of a certificate")
    outer = der.expect(data, rest[0].content, rest[0].end, der.SEQUENCE)
    for item in der.children(data, outer.content, outer.end, _MAX_EXTENSIONS):
        identifier = der.expect(data, item.content, item.end, der.OBJECT_IDENTIFIER)
        name = data[identifier.content : identifier.end]
        if name not in _LABELS:
            continue
        value = der.read(data, identifier.end, item.end)
        if value.tag == der.BOOLEAN:  # critical or not: nats-server has checked
            value = der.read(data, value.end, item.end)
        if value.tag != der.OCTET_STRING or value.end != item.end or name in values:
            raise der.DerError("an extension is malformed or given twice")
        values[name] = data[value.content : value.end]
    return values
