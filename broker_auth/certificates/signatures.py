"""Verification of certificate signatures, with the algorithms that Go's ``crypto/x509`` accepts.

Accepted are RSA (PKCS #1 v1.5 and PSS) and ECDSA with SHA-256, SHA-384 and SHA-512, and Ed25519; SHA-1, MD5 and DSA
are refused, as in Go. Key sizes are checked before ``cryptography`` is called: a modulus of 16384 bits with a 64-bit
exponent costs a second per signature.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Protocol

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa
from cryptography.hazmat.primitives.serialization import load_der_public_key

from broker_auth.certificates import der
from broker_auth.certificates.certificate import Certificate, CertificateError
from broker_auth.certificates.der import BIT_STRING, INTEGER, NULL, OBJECT_IDENTIFIER, SEQUENCE, encode

PublicKey = rsa.RSAPublicKey | ec.EllipticCurvePublicKey | ed25519.Ed25519PublicKey

MIN_RSA_BITS: Final = 1024  # crypto/rsa refuses smaller keys since Go 1.24
MAX_RSA_BITS: Final = 8192  # crypto/tls refuses larger keys from a peer
MAX_ROOT_RSA_BITS: Final = 16384  # for a configured root, which a peer cannot choose; OpenSSL's limit
MAX_RSA_EXPONENT: Final = 2**31 - 1  # crypto/rsa's limit
_MAX_OTHER_KEY: Final = 256  # bytes of any other SubjectPublicKeyInfo; P-521 needs 158

_RSA: Final = bytes.fromhex("2a864886f70d010101")
_EC: Final = bytes.fromhex("2a8648ce3d0201")
_ED25519: Final = bytes.fromhex("2b6570")
_PSS: Final = bytes.fromhex("2a864886f70d01010a")
_MGF1: Final = bytes.fromhex("2a864886f70d010108")
_CURVES: Final = (ec.SECP224R1, ec.SECP256R1, ec.SECP384R1, ec.SECP521R1)

_Hash = hashes.SHA256 | hashes.SHA384 | hashes.SHA512
_HASHES: Final[dict[str, _Hash]] = {
    "608648016503040201": hashes.SHA256(),
    "608648016503040202": hashes.SHA384(),
    "608648016503040203": hashes.SHA512(),
}
_PKCS1: Final[dict[bytes, _Hash]] = {
    bytes.fromhex("2a864886f70d01010b"): hashes.SHA256(),
    bytes.fromhex("2a864886f70d01010c"): hashes.SHA384(),
    bytes.fromhex("2a864886f70d01010d"): hashes.SHA512(),
}
_ECDSA: Final[dict[bytes, _Hash]] = {
    bytes.fromhex("2a8648ce3d040302"): hashes.SHA256(),
    bytes.fromhex("2a8648ce3d040303"): hashes.SHA384(),
    bytes.fromhex("2a8648ce3d040304"): hashes.SHA512(),
}
_REFUSED: Final = {
    bytes.fromhex("2a864886f70d010105"): "RSA with SHA-1",
    bytes.fromhex("2b0e03021d"): "RSA with SHA-1",
    bytes.fromhex("2a864886f70d010104"): "RSA with MD5",
    bytes.fromhex("2a864886f70d010102"): "RSA with MD2",
    bytes.fromhex("2a8648ce3d0401"): "ECDSA with SHA-1",
    bytes.fromhex("2a8648ce380403"): "DSA",
}


class Signed(Protocol):
    """A certificate or a CRL; attributes as in :class:`.Certificate`."""

    @property
    def algorithm(self) -> bytes: ...
    @property
    def tbs(self) -> bytes: ...
    @property
    def signature(self) -> bytes: ...


def _pss_algorithms() -> dict[bytes, _Hash]:
    """Return each RSA-PSS AlgorithmIdentifier that Go accepts: the same hash throughout, salt as long as the hash."""
    algorithms: dict[bytes, _Hash] = {}
    null, trailer = encode(NULL), encode(0xA3, encode(INTEGER, b"\x01"))
    for oid, chosen in _HASHES.items():
        identifier = encode(OBJECT_IDENTIFIER, bytes.fromhex(oid))
        salt = encode(0xA2, encode(INTEGER, bytes((chosen.digest_size,))))
        for own in (null, b""):
            for inner in (null, b""):
                for end in (b"", trailer):
                    mask = encode(SEQUENCE, encode(OBJECT_IDENTIFIER, _MGF1), encode(SEQUENCE, identifier, inner))
                    digest = encode(0xA0, encode(SEQUENCE, identifier, own))
                    parameters = encode(SEQUENCE, digest, encode(0xA1, mask), salt, end)
                    algorithms[encode(SEQUENCE, encode(OBJECT_IDENTIFIER, _PSS), parameters)] = chosen
    return algorithms


_PSS_ALGORITHMS: Final = _pss_algorithms()
_ED25519_ALGORITHM: Final = encode(SEQUENCE, encode(OBJECT_IDENTIFIER, _ED25519))


@dataclass(frozen=True, slots=True)
class KeyBounds:
    """The size of a public key, read without loading the key; ``bits`` and ``exponent`` are 0 unless RSA."""

    algorithm: bytes
    bits: int = 0
    exponent: int = 0


def key_bounds(certificate: Certificate) -> KeyBounds:
    """Read the size of a certificate's key, without arithmetic on the key.

    Raises:
        CertificateError: the key cannot be read.
    """
    data = certificate.spki
    try:
        outer = der.only(data, SEQUENCE)
        parts = der.children(data, outer.content, outer.end, 2)
        if [part.tag for part in parts] != [SEQUENCE, BIT_STRING]:
            raise der.DerError("not a public key")
        algorithm = der.expect(data, parts[0].content, parts[0].end, OBJECT_IDENTIFIER)
        name = data[algorithm.content : algorithm.end]
        if name != _RSA:
            return KeyBounds(name)
        key = der.expect(data, parts[1].content + 1, parts[1].end, SEQUENCE)
        numbers = der.children(data, key.content, key.end, 2)
        if [number.tag for number in numbers] != [INTEGER, INTEGER]:
            raise der.DerError("not an RSA key")
        modulus, exponent = numbers
        size = modulus.end - modulus.content
        exponent_size = exponent.end - exponent.content
        bits = 8 * size if size > 1 + MAX_ROOT_RSA_BITS // 8 else der.unsigned(data, modulus).bit_length()
        value = 1 << (8 * exponent_size) if exponent_size > 8 else der.unsigned(data, exponent)
    except der.DerError as error:
        raise CertificateError(f"its public key cannot be read: {error}") from error
    return KeyBounds(name, bits, value)


def check_key(certificate: Certificate, max_rsa_bits: int = MAX_RSA_BITS) -> None:
    """Check the bounds of an RSA key; other keys are checked when they are loaded.

    Raises:
        CertificateError: the key's size or exponent is out of bounds.
    """
    key = key_bounds(certificate)
    if key.algorithm != _RSA:
        return
    if not MIN_RSA_BITS <= key.bits <= max_rsa_bits:
        raise CertificateError(f"its RSA key has {key.bits} bits; {MIN_RSA_BITS} to {max_rsa_bits} are accepted")
    if not 3 <= key.exponent <= MAX_RSA_EXPONENT or key.exponent % 2 == 0:
        raise CertificateError("its RSA key's public exponent is not an odd number from 3 to 2147483647")


def public_key(certificate: Certificate, max_rsa_bits: int = MAX_RSA_BITS) -> PublicKey:
    """Load a certificate's public key after checking its bounds.

    Raises:
        CertificateError: the key is out of bounds, cannot be read, or is of a type that Go does not accept.
    """
    check_key(certificate, max_rsa_bits)
    kind = key_bounds(certificate).algorithm
    if kind not in (_RSA, _EC, _ED25519) or (kind != _RSA and len(certificate.spki) > _MAX_OTHER_KEY):
        raise CertificateError("its public key is of a kind that is not accepted")
    try:
        key = load_der_public_key(certificate.spki)
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise CertificateError("its public key cannot be used") from error
    if isinstance(key, ec.EllipticCurvePublicKey) and isinstance(key.curve, _CURVES):
        return key
    if isinstance(key, rsa.RSAPublicKey | ed25519.Ed25519PublicKey):
        return key
    raise CertificateError("its public key is of a kind that is not accepted")


def is_signed_by(issued: Signed, key: PublicKey) -> bool:
    """Return whether ``key`` made the signature of ``issued``.

    Raises:
        CertificateError: the signature's algorithm is not accepted.
    """
    algorithm, name = issued.algorithm, _algorithm_name(issued.algorithm)
    try:
        if isinstance(key, rsa.RSAPublicKey):
            if (pss := _PSS_ALGORITHMS.get(algorithm)) is not None:
                key.verify(issued.signature, issued.tbs, padding.PSS(padding.MGF1(pss), pss.digest_size), pss)
                return True
            if (chosen := _PKCS1.get(name)) is not None:
                key.verify(issued.signature, issued.tbs, padding.PKCS1v15(), chosen)
                return True
        elif isinstance(key, ec.EllipticCurvePublicKey):
            if (chosen := _ECDSA.get(name)) is not None:
                key.verify(issued.signature, issued.tbs, ec.ECDSA(chosen))
                return True
        elif algorithm == _ED25519_ALGORITHM:
            key.verify(issued.signature, issued.tbs)
            return True
    except (InvalidSignature, ValueError):
        return False
    if name in (*_PKCS1, *_ECDSA, _ED25519):
        return False  # made by a key of another type
    raise CertificateError(f"its signature algorithm ({_REFUSED.get(name, 'unknown')}) is not accepted")


def _algorithm_name(algorithm: bytes) -> bytes:
    try:
        outer = der.only(algorithm, SEQUENCE)
        element = der.expect(algorithm, outer.content, outer.end, OBJECT_IDENTIFIER)
    except der.DerError:
        return b""
    return algorithm[element.content : element.end]


def issued_by(issued: Certificate, issuer: Certificate) -> bool:
    """Return whether ``issued`` names ``issuer`` and is signed by it. Does not check whether ``issuer`` is a CA."""
    if issued.issuer != issuer.subject:
        return False
    try:
        return is_signed_by(issued, public_key(issuer, MAX_ROOT_RSA_BITS))
    except CertificateError:
        return False
