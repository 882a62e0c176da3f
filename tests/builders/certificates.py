"""Certificates of every form, encoded by hand: forms that ``cryptography`` and openssl do not write, and forgeries.

:func:`make` makes a valid leaf or CA; a test changes one property.
"""

from __future__ import annotations

import base64
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cache
from typing import Final

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat

from broker_auth.certificates.certificate import Certificate, parse_certificate
from tests.builders.clock import NOW, YEAR

Key = rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey

# For tests at NOW and for tests of running servers alike.
NOT_BEFORE: Final = 1_577_836_800
NOT_AFTER: Final = NOW + 10 * YEAR

UTF8, PRINTABLE, TELETEX, IA5, BMP, UNIVERSAL = 0x0C, 0x13, 0x14, 0x16, 0x1E, 0x1C
CLIENT_AUTH, SERVER_AUTH, ANY_USAGE = "2b06010505070302", "2b06010505070301", "551d2500"
SHA256_RSA, SHA1_RSA, MD5_RSA = "2a864886f70d01010b", "2a864886f70d010105", "2a864886f70d010104"
SHA256_EC, SHA1_EC, ED25519 = "2a8648ce3d040302", "2a8648ce3d0401", "2b6570"
_ATTRIBUTES: Final = {"CN": "550403", "O": "55040a", "OU": "55040b", "DC": "0992268993f22c640119"}


def tlv(tag: int, *parts: bytes) -> bytes:
    """Return an element."""
    content = b"".join(parts)
    size = len(content)
    if size < 0x80:
        return bytes((tag, size)) + content
    length = size.to_bytes((size.bit_length() + 7) // 8, "big")
    return bytes((tag, 0x80 | len(length))) + length + content


def integer(value: int) -> bytes:
    """Return an INTEGER, negative ones too."""
    return tlv(0x02, value.to_bytes((value.bit_length() + 8) // 8, "big", signed=True))


def oid(hexadecimal: str) -> bytes:
    """Return an OBJECT IDENTIFIER from the hex of its content."""
    return tlv(0x06, bytes.fromhex(hexadecimal))


def sequence(*parts: bytes) -> bytes:
    """Return a SEQUENCE."""
    return tlv(0x30, *parts)


def name(*attributes: tuple[str, str | bytes] | tuple[str, str | bytes, int]) -> bytes:
    """Return a distinguished name of (attribute, text[, string type])."""
    groups = []
    for attribute, text, *kind in attributes:
        tag = kind[0] if kind else UTF8
        encoding = {UTF8: "utf-8", BMP: "utf-16-be", UNIVERSAL: "utf-32-be"}.get(tag, "latin-1")
        value = text if isinstance(text, bytes) else text.encode(encoding)
        groups.append(tlv(0x31, sequence(oid(_ATTRIBUTES[attribute]), tlv(int(tag), value))))
    return sequence(*groups)


def extension(identifier: str, value: bytes, *, critical: bool = False) -> bytes:
    """Return an extension from the hex of its object identifier."""
    return sequence(oid(identifier), tlv(0x01, b"\xff") if critical else b"", tlv(0x04, value))


def basic_constraints(*, ca: bool, path_length: int | None = None) -> bytes:
    """Return the CA flag."""
    length = b"" if path_length is None else integer(path_length)
    return extension("551d13", sequence(tlv(0x01, b"\xff") if ca else b"", length), critical=True)


def usages(*identifiers: str) -> bytes:
    """Return extended key usages."""
    return extension("551d25", sequence(*map(oid, identifiers)))


def dns(text: str) -> bytes:
    """Return a DNS name, for :func:`alternative_names`."""
    return tlv(0x82, text.encode("latin-1"))


def email(text: str) -> bytes:
    """Return an e-mail address."""
    return tlv(0x81, text.encode("latin-1"))


def uri(text: str) -> bytes:
    """Return a URI."""
    return tlv(0x86, text.encode("latin-1"))


def alternative_names(*names: bytes) -> bytes:
    """Return alternative names."""
    return extension("551d11", sequence(*names))


def utc_time(moment: float) -> bytes:
    """Return a UTCTime."""
    return tlv(0x17, datetime.fromtimestamp(moment, UTC).strftime("%y%m%d%H%M%SZ").encode())


def generalized_time(moment: float) -> bytes:
    """Return a GeneralizedTime."""
    return tlv(0x18, datetime.fromtimestamp(moment, UTC).strftime("%Y%m%d%H%M%SZ").encode())


@cache
def key(kind: str = "ec", number: int = 0) -> Key:
    """Return a private key, cached in the process: ``ec``, ``p224``, ``p384``, ``p521``, ``ed25519`` or ``rsaBITS``."""
    del number
    if kind.startswith("rsa"):
        return rsa.generate_private_key(public_exponent=65537, key_size=int(kind[3:]))
    if kind == "ed25519":
        return ed25519.Ed25519PrivateKey.generate()
    curves = {"ec": ec.SECP256R1(), "p224": ec.SECP224R1(), "p384": ec.SECP384R1(), "p521": ec.SECP521R1()}
    return ec.generate_private_key(curves[kind])


def public(of: Key) -> bytes:
    """Return its SubjectPublicKeyInfo."""
    return of.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)


def rsa_public(modulus: int, exponent: int) -> bytes:
    """Return the SubjectPublicKeyInfo of any RSA key, also without a private key."""
    numbers = sequence(integer(modulus), integer(exponent))
    return sequence(sequence(oid("2a864886f70d010101"), tlv(0x05)), tlv(0x03, b"\0" + numbers))


@dataclass(frozen=True, slots=True)
class Made:
    """A certificate with its key and its subject's DER."""

    der: bytes
    subject: bytes
    key: Key = field(repr=False)

    @property
    def pem(self) -> str:
        """The certificate as nats-server writes it."""
        text = base64.b64encode(self.der).decode("ascii")
        lines = "\n".join(text[at : at + 64] for at in range(0, len(text), 64))
        return f"-----BEGIN CERTIFICATE-----\n{lines}\n-----END CERTIFICATE-----\n"

    @property
    def key_pem(self) -> bytes:
        """The private key."""
        return self.key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())

    @property
    def parsed(self) -> Certificate:
        """The certificate as the service parses it."""
        return parse_certificate(self.der)


DEFAULT_NAME: Final = name(("CN", "node1.example.net"))
CA_NAME: Final = name(("O", "Example"), ("CN", "handmade CA"))
CLIENT: Final = (basic_constraints(ca=False), usages(CLIENT_AUTH))
CA: Final = (basic_constraints(ca=True),)


def make(
    issuer: Made | None = None,
    *,
    subject: bytes = DEFAULT_NAME,
    extensions: Sequence[bytes] | None = CLIENT,
    version: int = 3,
    serial: bytes | None = None,
    not_before: bytes | None = None,
    not_after: bytes | None = None,
    own: Key | None = None,
    spki: bytes | None = None,
    issuer_name: bytes | None = None,
    signs: Key | None = None,
    algorithm: bytes | None = None,
    outer_algorithm: bytes | None = None,
    pss: hashes.HashAlgorithm | None = None,
    end: bytes = b"",
) -> Made:
    """Return a certificate by ``issuer``, or by itself. ``signs`` replaces the issuer's key, ``end`` is appended."""
    own = own or key()
    signer = signs or (issuer.key if issuer else own)
    named = algorithm or algorithm_of(signer)
    whole = sequence(*extensions) if extensions else b""
    tbs = sequence(
        tlv(0xA0, integer(version - 1)) if version > 1 else b"",
        serial or integer(int.from_bytes(sequence(subject)[:8], "big") + len(whole)),
        named,
        issuer_name or (issuer.subject if issuer else subject),
        sequence(not_before or utc_time(NOT_BEFORE), not_after or utc_time(NOT_AFTER)),
        subject,
        spki or public(own),
        tlv(0xA3, whole) if whole and version == 3 else b"",
    )
    signature = tlv(0x03, b"\0" + signature_of(signer, tbs, pss))
    return Made(sequence(tbs, outer_algorithm or named, signature) + end, subject, own)


def root(subject: bytes = CA_NAME, number: int = 1, **changes: object) -> Made:
    """Return a self-signed CA; ``number`` chooses its key."""
    return make(subject=subject, own=key("ec", number), **({"extensions": CA} | changes))  # type: ignore[arg-type]


def pss_algorithm(digest: str = "608648016503040201", salt: int = 32) -> bytes:
    """Return the AlgorithmIdentifier of RSA-PSS with one hash for all."""
    hashed = sequence(oid(digest), tlv(0x05))
    mask = sequence(oid("2a864886f70d010108"), hashed)
    parameters = sequence(tlv(0xA0, hashed), tlv(0xA1, mask), tlv(0xA2, integer(salt)))
    return sequence(oid("2a864886f70d01010a"), parameters)


def rsa_algorithm(identifier: str = SHA256_RSA) -> bytes:
    """Return the AlgorithmIdentifier of RSA with PKCS #1 v1.5."""
    return sequence(oid(identifier), tlv(0x05))


def algorithm_of(signer: Key) -> bytes:
    """Return the AlgorithmIdentifier of a key's usual signatures."""
    if isinstance(signer, rsa.RSAPrivateKey):
        return rsa_algorithm()
    return sequence(oid(ED25519 if isinstance(signer, ed25519.Ed25519PrivateKey) else SHA256_EC))


def signature_of(signer: Key, tbs: bytes, pss: hashes.HashAlgorithm | None) -> bytes:
    """Return a signature."""
    if isinstance(signer, rsa.RSAPrivateKey):
        if pss is not None:
            return signer.sign(tbs, padding.PSS(padding.MGF1(pss), pss.digest_size), pss)
        return signer.sign(tbs, padding.PKCS1v15(), hashes.SHA256())
    if isinstance(signer, ed25519.Ed25519PrivateKey):
        return signer.sign(tbs)
    return signer.sign(tbs, ec.ECDSA(hashes.SHA256()))
