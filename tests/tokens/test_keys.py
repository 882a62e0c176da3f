"""Key files: accepted keys, and the errors for everything else."""

from __future__ import annotations

import base64
from datetime import UTC, datetime, timedelta

import pytest
from cryptography.hazmat.primitives.asymmetric import dsa, ed448, x25519
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey, RSAPublicNumbers
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from broker_auth.deploy.pki import Algorithm, Validity, signer
from broker_auth.errors import InputError
from broker_auth.tokens.keys import MAX_KEY_FILE_BYTES, VerificationKey, ed25519_key, load_verification_key
from tests.builders.tokens import ORG, ec_key
from tests.builders.tokens import rsa_key as rsa

HEX = ORG.hex.encode()


def pem(key: dsa.DSAPublicKey | ed448.Ed448PublicKey | x25519.X25519PublicKey) -> bytes:
    return key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)


def load(data: bytes) -> VerificationKey:
    return load_verification_key(data, "signer.pem")


KINDS = {
    "RSA": (rsa("client").public_pem, {"RS256", "RS384", "RS512"}),
    "Ed25519": (ORG.public_pem, {"EdDSA"}),
    "P-256": (ec_key("client").public_pem, {"ES256"}),
    "P-384": (ec_key("client", 384).public_pem, {"ES384"}),
}


@pytest.mark.parametrize("kind", KINDS)
def test_a_public_key_is_bound_to_its_algorithms(kind: str) -> None:
    data, algorithms = KINDS[kind]
    for text in (data, b"\n\n" + data + b"\n", data.replace(b"\n", b"\r\n"), data + data):
        key = load(text)
        assert (key.kind, set(key.checks), key.name, key.not_after) == (kind, algorithms, "signer.pem", None)


@pytest.mark.parametrize("data", [HEX, HEX.upper(), HEX + b"\n", b"  " + HEX + b"\r\n"])
def test_hex_is_an_ed25519_key(data: bytes) -> None:
    key = load(data)
    assert (key.kind, key.hex) == ("Ed25519", ORG.hex)
    assert key.verify("EdDSA", b"x", ORG.signature(b"x"))
    assert not key.verify("EdDSA", b"y", ORG.signature(b"x"))
    assert not key.verify("none", b"x", ORG.signature(b"x"))


@pytest.mark.parametrize("algorithm", ["rsa", "ed25519", "ec"])
def test_certificate_key_is_used_even_if_expired(algorithm: Algorithm) -> None:
    ended = datetime.now(UTC).replace(microsecond=0) - timedelta(days=1)
    made = signer(algorithm=algorithm, validity=Validity(not_before=ended - timedelta(days=1), not_after=ended))
    key = load(made.certificate_pem)
    assert key.not_after == ended.timestamp()
    assert key.kind == {"rsa": "RSA", "ed25519": "Ed25519", "ec": "P-256"}[algorithm]


CERTIFICATE = signer(algorithm="ec").certificate_pem
VERSION = bytes.fromhex("a003020102")


def odd_version() -> bytes:
    der = base64.b64decode(b"".join(CERTIFICATE.splitlines()[1:-1])).replace(VERSION, VERSION[:-1] + b"\x08", 1)
    return b"-----BEGIN CERTIFICATE-----\n" + base64.encodebytes(der) + b"-----END CERTIFICATE-----\n"


def rsa_exponent(exponent: int) -> bytes:
    """Return an RSA public key of 2048 bits with this exponent."""
    private = rsa("client").private
    assert isinstance(private, RSAPrivateKey)
    numbers = RSAPublicNumbers(exponent, private.public_key().public_numbers().n)
    return numbers.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)


def test_the_largest_exponent_is_accepted() -> None:
    assert load(rsa_exponent(2**31 - 1)).kind == "RSA"


REFUSED: dict[str, tuple[bytes, str]] = {
    "empty": (b"", "the file is empty"),
    "white space": (b" \n\t", "the file is empty"),
    "too large": (b"x" * (MAX_KEY_FILE_BYTES + 1), "too large"),
    "private key": (rsa("client").private_pem, "holds a private key"),
    "private key after a certificate": (CERTIFICATE + ec_key("client").private_pem, "holds a private key"),
    "RSA with an exponent of 32 bits": (rsa_exponent(2**31 + 1), "exponent of this RSA key has 32 bits"),
    "RSA of 1024 bits": (rsa("small", 1024).public_pem, "2048 to 8192 bits, this has 1024"),
    "P-521": (ec_key("client", 521).public_pem, "unsupported key type"),
    "DSA": (pem(dsa.generate_private_key(2048).public_key()), "unsupported key type"),
    "Ed448": (pem(ed448.Ed448PrivateKey.generate().public_key()), "unsupported key type"),
    "X25519": (pem(x25519.X25519PrivateKey.generate().public_key()), "unsupported key type"),
    "broken PEM": (b"-----BEGIN PUBLIC KEY-----\n!!!!\n-----END PUBLIC KEY-----\n", "cannot be read as PEM"),
    "unfinished PEM": (b"-----BEGIN CERTIFICATE-----\nMIIB", "cannot be read as PEM"),
    "not a certificate": (
        b"-----BEGIN CERTIFICATE-----\nMAA=\n-----END CERTIFICATE-----\n",
        "cannot be read as PEM",
    ),
    "certificate of an odd version": (odd_version(), "cannot be read as PEM"),
    "63 digits": (HEX[:-1], "neither PEM nor 64 hex characters"),
    "65 digits": (HEX + b"0", "neither PEM nor 64 hex characters"),
    "not hex": (b"g" + HEX[1:], "neither PEM nor 64 hex characters"),
    "not text": (b"\xff\xfe" + HEX, "neither PEM nor 64 hex characters"),
    "DER": (base64.b64decode(b"".join(CERTIFICATE.splitlines()[1:-1])), "neither PEM nor 64 hex characters"),
}


@pytest.mark.parametrize(("data", "message"), REFUSED.values(), ids=REFUSED)
def test_anything_else_is_refused_in_one_line(data: bytes, message: str) -> None:
    with pytest.raises(InputError) as raised:
        load(data)
    text = str(raised.value)
    assert text.startswith("signer.pem: ")
    assert message in text
    assert "\n" not in text
    assert "PRIVATE" not in text


@pytest.mark.parametrize("text", ["", ORG.hex[:-1], ORG.hex + "0", "x" * 64, f" {ORG.hex[1:]}", "\u0660" * 64])
def test_inline_keys_are_64_hex_characters(text: str) -> None:
    with pytest.raises(InputError, match=r"^issuer: .*64 hex characters"):
        ed25519_key(text, "issuer")
    assert ed25519_key(ORG.hex, "issuer").hex == ORG.hex
