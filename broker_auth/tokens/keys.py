"""Keys that verify tokens, and how they are read from files.

A key is bound to its algorithms, so that a token's header can never choose how its signature is checked
(RFC 8725, section 3.1; docs/policy.md#what-is-accepted-as-a-token).
"""

from __future__ import annotations

import binascii
import codecs
import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

import nacl.bindings
import nacl.exceptions
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.asymmetric.types import PublicKeyTypes
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_der_public_key
from jwt.algorithms import ECAlgorithm, RSAAlgorithm

from broker_auth.certificates import pem
from broker_auth.certificates import signatures as issued
from broker_auth.certificates.certificate import Certificate, CertificateError
from broker_auth.certificates.pem import Block
from broker_auth.certificates.pemfile import certificate_of
from broker_auth.encoding import is_hex_key
from broker_auth.errors import InputError

MIN_RSA_BITS: Final = 2048  # RFC 7518, section 3.3
MAX_RSA_BITS: Final = 8192  # verification time grows with the modulus; larger keys are not in use
MAX_RSA_EXPONENT: Final = 2**31 - 1  # as in Go's crypto/rsa; verification time grows with the exponent
MAX_KEY_FILE_BYTES: Final = 64 * 1024

_PUBLIC_LABELS: Final = ("PUBLIC KEY", "RSA PUBLIC KEY")
_ED25519_SPKI: Final = bytes.fromhex("302a300506032b6570032100")  # RFC 8410, section 4; the raw key follows

Check = Callable[[bytes, bytes], bool]
"""A check of a signature; takes the message and the signature."""


@dataclass(frozen=True, slots=True, kw_only=True)
class VerificationKey:
    """A public key, bound to the JWS algorithms it may verify.

    Attributes:
        name: the signer in audit records.
        kind: ``RSA``, ``Ed25519``, ``P-256`` or ``P-384``.
        checks: the check for each algorithm name; the only way to use the key.
        hex: the raw key as lower-case hex, for Ed25519 keys only.
        not_after: expiry of the certificate that the key was read from (Unix seconds); None for a bare key.
        fingerprint: SHA-256 of the public key (DER, SubjectPublicKeyInfo), hex: the same for a key in any file.
    """

    name: str
    kind: str
    checks: dict[str, Check]
    fingerprint: str
    hex: str | None = None
    not_after: float | None = None

    def verify(self, algorithm: str, message: bytes, signature: bytes) -> bool:
        """Return whether ``signature`` over ``message`` is by this key; False for an algorithm that does not fit."""
        check = self.checks.get(algorithm)
        return check is not None and check(message, signature)


def verify_ed25519(public: bytes, message: bytes, signature: bytes) -> bool:
    """Verify Ed25519 (RFC 8032) with libsodium, which also refuses small-order keys and malleable signatures."""
    if len(signature) != nacl.bindings.crypto_sign_BYTES or len(public) != 32:
        return False
    try:
        nacl.bindings.crypto_sign_open(signature + message, public)
    except nacl.exceptions.BadSignatureError:
        return False
    return True


def ed25519_key(public_hex: str, name: str) -> VerificationKey:
    """Return an Ed25519 key from 64 hex characters.

    Raises:
        InputError: the text is not 64 hex characters.
    """
    if not is_hex_key(public_hex):
        raise InputError(f"{name}: an Ed25519 public key is 64 hex characters, got {len(public_hex)} characters")
    return _ed25519(binascii.unhexlify(public_hex), name, None)


def load_verification_key(data: bytes, name: str) -> VerificationKey:
    """Return the key in a file's ``data``: a PEM certificate, a PEM public key or 64 hex characters.

    Text around PEM is ignored. A certificate may be followed by those of its issuers, which are not trusted as
    signers. Any other key is refused, because which key counts must not depend on the order. ``name`` is used in
    errors and becomes the key's name.

    Raises:
        InputError: there is no usable key, or a second signer; the message says what the file holds.
    """
    if len(data) > MAX_KEY_FILE_BYTES:
        raise InputError(f"{name}: too large for a key or certificate (more than {MAX_KEY_FILE_BYTES} bytes)")
    if not data.strip():
        raise InputError(f"{name}: the file is empty; give a PEM certificate, a PEM public key or 64 hex characters")
    blocks = pem.split(data)
    if any(block.is_private_key for block in blocks):
        raise InputError(f"{name}: holds a private key; give the certificate or public key that belongs to it")
    if blocks:
        return _from_blocks(blocks, name)
    text = data.removeprefix(codecs.BOM_UTF8).strip().decode("ascii", "replace")
    if not is_hex_key(text):
        what = pem.what_else(data)
        raise InputError(f"{name}: neither PEM nor 64 hex characters: it {what}")
    return _ed25519(binascii.unhexlify(text), name, None)


def _from_blocks(blocks: Sequence[Block], name: str) -> VerificationKey:
    signer: VerificationKey | None = None
    first = b""
    issuers: set[bytes] = set()
    for block in blocks:
        if not (block.is_certificate or block.label in _PUBLIC_LABELS):
            continue
        public, certificate = _public_key(block, name)
        encoded = public.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
        if signer is None:
            fingerprint = hashlib.sha256(encoded).hexdigest()
            signer = _from_public_key(public, name, fingerprint, certificate.not_after if certificate else None)
            first = encoded
        elif encoded != first and (certificate is None or certificate.subject not in issuers):
            whose = certificate.subject_text if certificate else "a public key"
            raise InputError(
                f"{name}: holds a second signer in line {block.line} ({whose}), which does not count; "
                "write each signer into a separate file, and list the files separated by commas"
            )
        if certificate is not None and certificate.subject != certificate.issuer:
            issuers.add(certificate.issuer)
    if signer is None:
        raise InputError(f"{name}: holds {blocks[0].label}, neither a certificate nor a public key")
    return signer


def _public_key(block: Block, name: str) -> tuple[PublicKeyTypes, Certificate | None]:
    reason = block.fault
    try:
        if not reason and block.is_certificate:
            certificate = certificate_of(block)
            return issued.public_key(certificate), certificate
        if not reason:
            return load_der_public_key(block.body), None
    except CertificateError as error:
        reason = str(error)
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        reason = _first_line(error)
    raise InputError(f"{name}: cannot be read as PEM: line {block.line}: {reason}")


def _from_public_key(key: object, name: str, fingerprint: str, not_after: float | None) -> VerificationKey:
    match key:
        case rsa.RSAPublicKey():
            require_rsa(key, name)
            return VerificationKey(
                name=name, kind="RSA", checks=_rsa_checks(key), fingerprint=fingerprint, not_after=not_after
            )
        case ed25519.Ed25519PublicKey():
            return _ed25519(key.public_bytes(Encoding.Raw, PublicFormat.Raw), name, not_after)
        case ec.EllipticCurvePublicKey(curve=ec.SECP256R1() | ec.SECP384R1() as curve):
            kind, algorithm = ("P-256", "ES256") if curve.name == "secp256r1" else ("P-384", "ES384")
            checks = {algorithm: _ec_check(algorithm, key)}
            return VerificationKey(name=name, kind=kind, checks=checks, fingerprint=fingerprint, not_after=not_after)
        case _:
            raise InputError(f"{name}: unsupported key type; use RSA, Ed25519, or EC on P-256 or P-384")


def require_rsa(key: rsa.RSAPublicKey, name: str) -> None:
    """Refuse an RSA key that is too weak, or too slow to verify with.

    Raises:
        InputError: the size or the exponent is out of bounds.
    """
    if not MIN_RSA_BITS <= key.key_size <= MAX_RSA_BITS:
        raise InputError(f"{name}: RSA keys must have {MIN_RSA_BITS} to {MAX_RSA_BITS} bits, this has {key.key_size}")
    exponent = key.public_numbers().e
    if exponent > MAX_RSA_EXPONENT:
        bits = exponent.bit_length()
        raise InputError(f"{name}: the exponent of this RSA key has {bits} bits, more than 31; make a key with 65537")


def _rsa_checks(key: rsa.RSAPublicKey) -> dict[str, Check]:
    hashes = {"RS256": RSAAlgorithm.SHA256, "RS384": RSAAlgorithm.SHA384, "RS512": RSAAlgorithm.SHA512}

    def check_with(algorithm: RSAAlgorithm) -> Check:
        return lambda message, signature: algorithm.verify(message, key, signature)

    return {name: check_with(RSAAlgorithm(hash_)) for name, hash_ in hashes.items()}


def _ec_check(name: str, key: ec.EllipticCurvePublicKey) -> Check:
    algorithm = ECAlgorithm(ECAlgorithm.SHA256 if name == "ES256" else ECAlgorithm.SHA384)
    return lambda message, signature: algorithm.verify(message, key, signature)


def _ed25519(public: bytes, name: str, not_after: float | None) -> VerificationKey:
    return VerificationKey(
        name=name,
        kind="Ed25519",
        checks={"EdDSA": lambda message, signature: verify_ed25519(public, message, signature)},
        fingerprint=hashlib.sha256(_ED25519_SPKI + public).hexdigest(),
        hex=public.hex(),
        not_after=not_after,
    )


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]
