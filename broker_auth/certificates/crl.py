"""Certificate revocation lists (CRLs, RFC 5280 section 5) in a file: complete, and signed by a trusted CA.

A list is used only if everything in it is understood, because it would be wrong to use a part of one. Its signature is
verified before its entries are read. Reading takes a second for the longest list, so :func:`parse_crls` does it in
steps, between which its caller can do other work.
"""

from __future__ import annotations

import hashlib
from bisect import bisect_right
from collections.abc import Generator, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Final

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm

from broker_auth.certificates import der, names, pem
from broker_auth.certificates.authorities import authority
from broker_auth.certificates.certificate import Certificate, CertificateError
from broker_auth.certificates.pemfile import certificate_of
from broker_auth.certificates.signatures import MAX_ROOT_RSA_BITS, is_signed_by, issued_by, public_key

MAX_BYTES: Final = 16 * 1024 * 1024  # of a file; 200,000 entries with reasons need 10 MB, or 14 MB as PEM
MAX_ENTRIES: Final = 200_000
MAX_SERIAL: Final = 64  # bytes; RFC 5280 allows 20
MAX_CRLS: Final = 64
_MAX_BLOCKS: Final = 2 * MAX_CRLS  # in a file
_MAX_LINES: Final = 500_000  # 225,000 with 64 characters each are the longest file
_BOUNDARIES: Final = (b"-----BEGIN ", b"-----END ")
_STEP: Final = 1000  # entries
_BLOCK: Final = 64  # serial numbers
_MAX_FIELDS: Final = 10  # RFC 5280 5.1 has seven
_LABELS: Final = ("X509 CRL", "CRL")
_UNDERSTOOD: Final = (x509.CRLNumber, x509.AuthorityKeyIdentifier, x509.IssuingDistributionPoint)
_MALFORMED: Final = (
    ValueError,
    TypeError,
    OverflowError,
    UnsupportedAlgorithm,
    x509.DuplicateExtension,
    x509.UnsupportedGeneralNameType,
)
_USE_COMPLETE: Final = "configure the complete list that the CA publishes about its own certificates"


class CrlError(ValueError):
    """A file of CRLs cannot be used: ``what`` follows the file's name, ``remedy`` says what to do."""

    def __init__(self, what: str, remedy: str) -> None:
        self.what = what
        self.remedy = remedy
        super().__init__(f"{what}; {remedy}")


@dataclass(frozen=True, slots=True)
class SerialNumbers:
    """A set of serial numbers in one string of bytes, sorted: a fifth of the memory of a set of numbers.

    Attributes:
        width: bytes of each number.
        packed: the numbers, filled up with zero bytes in front.
    """

    width: int = 1
    packed: bytes = b""
    _firsts: tuple[bytes, ...] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        """Prepare an index of the first number of each block."""
        width, packed = self.width, self.packed
        firsts = tuple(packed[at : at + width] for at in range(0, len(packed), _BLOCK * width))
        object.__setattr__(self, "_firsts", firsts)

    @classmethod
    def of(cls, serials: Iterable[bytes]) -> SerialNumbers:
        """Return the set of numbers, written as :attr:`.Certificate.serial`."""
        numbers = set(serials)
        width = max(map(len, numbers), default=1)
        return cls(width, b"".join(sorted(number.rjust(width, b"\0") for number in numbers)))

    def __len__(self) -> int:
        return len(self.packed) // self.width

    def __contains__(self, serial: object) -> bool:
        width = self.width
        if not isinstance(serial, bytes) or len(serial) > width:
            return False
        number = serial.rjust(width, b"\0")
        block = bisect_right(self._firsts, number) - 1
        if block < 0:
            return False
        start, end = block * _BLOCK * width, (block + 1) * _BLOCK * width
        at = self.packed.find(number, start, end)
        while at >= 0 and at % width:  # parts of two numbers
            at = self.packed.find(number, at + 1, end)
        return at >= 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Crl:
    """The certificates that one CRL revokes.

    Attributes:
        issuer: SHA-256 of the issuer's name (DER), as in :attr:`.Certificate.issuer_and_serial`.
        name: the issuer's name, readable.
        serials: serial numbers of the revoked certificates.
        this_update: when it was issued (Unix seconds).
        next_update: by when the next one is issued; None if the list does not say.
        file: the file that it was read from.
        version: names the content of that file.
    """

    issuer: bytes
    name: str
    serials: SerialNumbers
    this_update: float
    next_update: float | None
    file: str = ""
    version: str = ""


def parse_crls(data: bytes, authorities: Sequence[Certificate]) -> Generator[None, None, tuple[Crl, ...]]:
    """Read every CRL of a file, PEM or DER, in steps. Certificates of CAs below ``authorities`` may stand beside them.

    Returns:
        The CRLs; the generator yields None between steps.

    Raises:
        CrlError: the file is not usable as a whole.
    """
    contents, certificates = _contents(data)
    trusted = [*authorities, *_below(certificates, authorities)]
    crls = []
    left = MAX_ENTRIES
    for place, content in contents:
        yield
        try:
            outline = _Outline.of(content)
            _check_signature(outline, trusted, authorities)
            entries = x509.load_der_x509_crl(content)
            if (left := left - len(entries)) < 0:
                raise _too_many_entries()
            _check_extensions(entries.extensions)
            serials = yield from _serials(entries)
        except CrlError as error:
            raise CrlError(f"{place}{error.what}", error.remedy) from error
        except (*_MALFORMED, der.DerError) as error:
            reason = str(error).partition("\n")[0] or type(error).__name__
            raise CrlError(f"{place}cannot be read: {reason}", "get it from its CA again") from error
        crls.append(
            Crl(
                issuer=hashlib.sha256(outline.issuer).digest(),
                name=names.readable(outline.issuer),
                serials=SerialNumbers.of(serials),
                this_update=outline.this_update,
                next_update=outline.next_update,
            )
        )
    return tuple(crls)


def too_many(crls: Sequence[Crl]) -> CrlError | None:
    """Return the problem of CRLs that are too many, or have too many entries together; None if they are few."""
    if sum(len(one.serials) for one in crls) > MAX_ENTRIES:
        return _too_many_entries()
    return CrlError(f"makes more than {MAX_CRLS} CRLs", "configure fewer CAs") if len(crls) > MAX_CRLS else None


def _too_many_entries() -> CrlError:
    what = f"makes more than {MAX_ENTRIES} entries of CRLs"
    return CrlError(what, "have the CA leave out certificates that have expired, or replace the CA")


def _contents(data: bytes) -> tuple[list[tuple[str, bytes]], list[tuple[str, Certificate]]]:
    """Return the CRLs and the certificates of a file, each with its place for messages."""
    if data[:1] == b"\x30":
        return [("", data)], []
    crls: list[tuple[str, bytes]] = []
    certificates: list[tuple[str, Certificate]] = []
    if sum(map(data.count, _BOUNDARIES)) > 2 * _MAX_BLOCKS:  # of which each costs time to look at
        raise CrlError(f"has more than {_MAX_BLOCKS} PEM blocks", "use several files")
    if max(map(data.count, (b"\n", b"\r"))) > _MAX_LINES:
        raise CrlError(f"has more than {_MAX_LINES} lines", "write it as DER")
    blocks = [block for block in pem.split(data) if block.label in _LABELS or block.is_certificate]
    for block in blocks:
        place = f"line {block.line}: "
        if block.fault:
            raise CrlError(f"{place}cannot be read: {block.fault}", "get it from its CA again")
        if block.is_certificate:
            try:
                certificates.append((place, certificate_of(block)))
            except CertificateError as error:
                raise CrlError(f"{place}cannot be read: {error}", "replace or remove the certificate") from error
        else:
            crls.append((place, block.body))
    if not crls:
        what = "it holds certificates only" if certificates else f"it {pem.what_else(data)}"
        raise CrlError(f"holds no CRL: {what}", "configure a CRL, PEM (BEGIN X509 CRL) or DER")
    return crls, certificates


def _below(certificates: list[tuple[str, Certificate]], authorities: Sequence[Certificate]) -> list[Certificate]:
    """Return the CAs among these certificates, each of which an authority or another of them has signed."""
    trusted: list[Certificate] = []
    left = [(place, one) for place, one in certificates if one not in authorities]
    before = len(left) + 1
    while 0 < len(left) < before:
        before = len(left)
        for place, one in left:
            if any(issued_by(one, issuer) for issuer in (*authorities, *trusted)):
                if problem := authority(one, is_root=False).problem:
                    raise CrlError(f"{place}the certificate of {one.subject_text!r} {problem}", "remove it")
                trusted.append(one)
        left = [(place, one) for place, one in left if one not in trusted]
    if left:
        place, one = left[0]
        what = f"{place}the certificate of {one.subject_text!r} is not signed by a CA in client_ca"
        raise CrlError(what, "remove it, or add the CAs above it")
    return trusted


@dataclass(frozen=True, slots=True)
class _Outline:
    """A CRL without its entries. ``algorithm``, ``tbs`` and ``signature`` are as in :class:`.Certificate`."""

    tbs: bytes
    algorithm: bytes
    signature: bytes
    issuer: bytes
    this_update: float
    next_update: float | None

    @classmethod
    def of(cls, data: bytes) -> _Outline:
        """Read it; ``cryptography`` does not show the bytes of the issuer's name, by which certificates name it."""
        outer = der.only(data, der.SEQUENCE)
        parts = der.children(data, outer.content, outer.end, 3)
        if [part.tag for part in parts] != [der.SEQUENCE, der.SEQUENCE, der.BIT_STRING]:
            raise der.DerError("it is not a CRL")
        tbs, outer_algorithm, signature = parts
        fields = der.children(data, tbs.content, tbs.end, _MAX_FIELDS)
        if fields and fields[0].tag == der.INTEGER:  # the version
            fields = fields[1:]
        times = (der.UTC_TIME, der.GENERALIZED_TIME)
        if [field.tag for field in fields[:2]] != [der.SEQUENCE] * 2 or len(fields) < 3 or fields[2].tag not in times:
            raise der.DerError("it is not a CRL")
        algorithm, issuer, this_update = fields[:3]
        if data[algorithm.start : algorithm.end] != data[outer_algorithm.start : outer_algorithm.end]:
            raise der.DerError("the signature's algorithm differs from the signed one")
        if data[signature.content : signature.content + 1] != b"\0":
            raise der.DerError("its signature is not of whole bytes")
        has_next = len(fields) > 3 and fields[3].tag in times
        return cls(
            tbs=data[tbs.start : tbs.end],
            algorithm=data[algorithm.start : algorithm.end],
            signature=data[signature.content + 1 : signature.end],
            issuer=data[issuer.start : issuer.end],
            this_update=der.time(data, this_update),
            next_update=der.time(data, fields[3]) if has_next else None,
        )


def _check_signature(outline: _Outline, trusted: Sequence[Certificate], roots: Sequence[Certificate]) -> None:
    issuer = names.readable(outline.issuer)
    problem = ""
    for ca in trusted:
        if ca.subject != outline.issuer:
            continue
        rights = authority(ca, is_root=ca in roots)
        try:
            if rights.problem:
                problem = f"was issued by {issuer!r}, and {rights.name} {rights.problem}"
            elif not ca.may_sign_lists:
                problem = f"was issued by {issuer!r}, which may not sign CRLs (keyUsage cRLSign)"
            elif is_signed_by(outline, public_key(ca, MAX_ROOT_RSA_BITS)):
                return
            else:
                problem = problem or f"is not signed by {issuer!r}, which it names as its issuer"
        except CertificateError as error:
            problem = f"cannot be verified: {error}"
    if problem:
        raise CrlError(problem, "get it from its CA again")
    remedy = "configure the CRL of a CA in client_ca; add the certificate of an intermediate CA to the same PEM file"
    raise CrlError(f"was issued by {issuer!r}, which is not a CA in client_ca", remedy)


def _check_extensions(extensions: x509.Extensions) -> None:
    for extension in extensions:
        value = extension.value
        if isinstance(value, x509.DeltaCRLIndicator):
            raise CrlError("is a delta CRL, which names changes only", _USE_COMPLETE)
        if isinstance(value, x509.IssuingDistributionPoint):
            if value.indirect_crl:
                raise CrlError("is an indirect CRL, which covers certificates of other CAs", _USE_COMPLETE)
            if value.only_contains_attribute_certs:
                raise CrlError("is about attribute certificates", _USE_COMPLETE)
        if extension.critical and not isinstance(value, _UNDERSTOOD):
            what = f"has the critical extension {extension.oid.dotted_string}, which is not known"
            raise CrlError(what, _USE_COMPLETE)


def _serials(entries: x509.CertificateRevocationList) -> Generator[None, None, list[bytes]]:
    serials = []
    for number, entry in enumerate(entries):
        if number % _STEP == 0:
            yield
        serial = _serial(entry.serial_number)
        if len(serial) > MAX_SERIAL:
            raise CrlError(f"has a serial number of more than {MAX_SERIAL} bytes", "get it from its CA again")
        if _is_revoked(entry):
            serials.append(serial)
    return serials


def _is_revoked(entry: x509.RevokedCertificate) -> bool:
    """Return whether an entry revokes. A certificate on hold is revoked, until a later list leaves it out."""
    revoked = True
    for extension in entry.extensions:
        value = extension.value
        if isinstance(value, x509.CertificateIssuer):
            raise CrlError("is an indirect CRL: an entry names another CA", _USE_COMPLETE)
        if isinstance(value, x509.CRLReason):
            revoked = value.reason is not x509.ReasonFlags.remove_from_crl
        elif extension.critical and not isinstance(value, x509.InvalidityDate):
            what = f"has an entry with the critical extension {extension.oid.dotted_string}, which is not known"
            raise CrlError(what, _USE_COMPLETE)
    return revoked


def _serial(number: int) -> bytes:
    """Return a serial number as :attr:`.Certificate.serial` has it: its DER content without leading zero bytes."""
    size = (number if number >= 0 else ~number).bit_length() // 8 + 1
    return number.to_bytes(size, "big", signed=True).lstrip(b"\0") or b"\0"
