"""Private keys that sign tokens, read from files in Choria's formats."""

from __future__ import annotations

import binascii
import codecs
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import jwt
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from broker_auth.certificates import pem
from broker_auth.certificates.pem import Block
from broker_auth.certificates.pemfile import PemError, read_private_key
from broker_auth.encoding import is_hex_key
from broker_auth.errors import InputError
from broker_auth.secret import Secret
from broker_auth.tokens.bounds import bounds_of
from broker_auth.tokens.claims import Purpose, typed_claims
from broker_auth.tokens.faults import TokenRejected
from broker_auth.tokens.jws import parse
from broker_auth.tokens.keys import require_rsa

PrivateKey = rsa.RSAPrivateKey | ed25519.Ed25519PrivateKey | ec.EllipticCurvePrivateKey


@dataclass(frozen=True, slots=True, kw_only=True)
class SigningKey:
    """A private key that signs tokens.

    Attributes:
        name: its name in errors.
        algorithm: its JWS algorithm.
        public_hex: the public key as lower-case hex, for Ed25519 keys only.
    """

    name: str
    algorithm: str
    public_hex: str | None
    _key: PrivateKey = field(repr=False)

    def sign(self, claims: Mapping[str, Any]) -> str:
        """Return the signed token.

        Raises:
            InputError: the token would be too large, nest too deep or hold a claim of the wrong type.
        """
        token = jwt.encode(dict(claims), self._key, algorithm=self.algorithm)
        try:
            made, purpose = parse(token).claims, Purpose(claims["purpose"])
            typed_claims(made, purpose)
            if purpose is Purpose.PROVISIONING:
                bounds_of(made)
        except TokenRejected as rejected:
            raise InputError(f"a token with these claims would be refused: {rejected.detail}") from rejected
        return token

    def sign_chain(self, text: str) -> str:
        """Return the Ed25519 signature of ``text`` as hex, for trust chains.

        Raises:
            InputError: this is not an Ed25519 key.
        """
        if not isinstance(self._key, ed25519.Ed25519PrivateKey):
            raise InputError(f"{self.name}: trust chains need an Ed25519 key; make one with 'broker-auth token keys'")
        return self._key.sign(text.encode()).hex()


def load_signing_key(data: bytes, name: str) -> SigningKey:
    """Return the key in a file: an Ed25519 seed as 64 hex characters, or a PEM private key (PKCS 1, PKCS 8, SEC 1).

    RSA signs with RS256 as Choria does, P-256 with ES256, P-384 with ES384, Ed25519 with EdDSA.

    Raises:
        InputError: the data is not one of these. Errors never quote the data.
    """
    if blocks := pem.split(data):
        return _signing_key(_pem_key(data, blocks, name), name)
    text = data.removeprefix(codecs.BOM_UTF8).strip().decode("ascii", "replace")
    if not is_hex_key(text):
        raise InputError(f"{name}: neither a PEM private key nor an Ed25519 seed of 64 hex characters")
    return _signing_key(ed25519.Ed25519PrivateKey.from_private_bytes(binascii.unhexlify(text)), name)


def new_seed() -> Secret:
    """Return a new Ed25519 seed as 64 hex characters, Choria's format."""
    return Secret(ed25519.Ed25519PrivateKey.generate().private_bytes_raw().hex())


def signing_key_from_seed(seed: Secret, name: str) -> SigningKey:
    """Return the key of a seed in hex.

    Raises:
        InputError: the seed is not 64 hex characters.
    """
    return load_signing_key(seed.reveal().encode("utf-8", "replace"), name)


def _pem_key(data: bytes, blocks: Sequence[Block], name: str) -> object:
    if not any(block.is_private_key for block in blocks):
        if any(block.is_certificate or block.label.endswith("PUBLIC KEY") for block in blocks):
            raise InputError(f"{name}: holds a public key; signing needs the private key that belongs to it")
        raise InputError(f"{name}: cannot be read as a PEM private key: it holds {blocks[0].label}")
    try:
        return read_private_key(data)
    except PemError as error:
        raise InputError(f"{name}: {error.what}; {error.remedy.replace('FILE', name)}") from None


def _signing_key(key: object, name: str) -> SigningKey:
    match key:
        case rsa.RSAPrivateKey():
            require_rsa(key.public_key(), name)
            return SigningKey(name=name, algorithm="RS256", public_hex=None, _key=key)
        case ed25519.Ed25519PrivateKey():
            public = key.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw).hex()
            return SigningKey(name=name, algorithm="EdDSA", public_hex=public, _key=key)
        case ec.EllipticCurvePrivateKey(curve=ec.SECP256R1()):
            return SigningKey(name=name, algorithm="ES256", public_hex=None, _key=key)
        case ec.EllipticCurvePrivateKey(curve=ec.SECP384R1()):
            return SigningKey(name=name, algorithm="ES384", public_hex=None, _key=key)
        case _:
            raise InputError(f"{name}: unsupported key type; use RSA, Ed25519, or EC on P-256 or P-384")
