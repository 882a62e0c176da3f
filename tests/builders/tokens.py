"""Keys, claims, signed tokens and trust chains, made without the code under test.

claims = client_claims(permissions={"org_admin": True}, exp=ABSENT)
token = sign(claims, ORG)
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cache
from typing import Any, Final

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat

from broker_auth.tokens.keys import VerificationKey, load_verification_key
from tests.builders.clock import HOUR, NOW

ABSENT: Final = object()
"""As a claim's value: the claim is omitted."""

ORGANIZATION: Final = "choria"
NONCE: Final = "eLWfYQmGjJjmH0Y"
Claims = dict[str, Any]
_Private = rsa.RSAPrivateKey | ed25519.Ed25519PrivateKey | ec.EllipticCurvePrivateKey
_ALPHABET: Final = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
_HASHES: Final[dict[str, Callable[[], hashes.HashAlgorithm]]] = {
    "256": hashes.SHA256,
    "384": hashes.SHA384,
    "512": hashes.SHA512,
}


@dataclass(frozen=True, slots=True)
class Key:
    """A private key that signs tokens; ``algorithm`` is its default algorithm."""

    name: str
    private: _Private = field(repr=False)
    algorithm: str

    @property
    def hex(self) -> str:
        """The raw public key in hex (Ed25519 only), as Choria writes it."""
        return self.private.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw).hex()

    @property
    def public_pem(self) -> bytes:
        """The public key as PEM."""
        return self.private.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)

    @property
    def private_pem(self) -> bytes:
        """The private key as PKCS #8 PEM."""
        return self.private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())

    @property
    def verifies(self) -> VerificationKey:
        """The key as a policy holds it, named like this one."""
        return load_verification_key(self.public_pem, self.name)

    def signature(self, message: bytes, algorithm: str | None = None) -> bytes:
        """Return the signature over ``message`` as a JWS holds it; ``algorithm`` may be any this key type can do."""
        digits = (algorithm or self.algorithm)[-3:]
        match self.private:
            case ed25519.Ed25519PrivateKey():
                return self.private.sign(message)
            case rsa.RSAPrivateKey():
                return self.private.sign(message, padding.PKCS1v15(), _HASHES[digits]())
            case ec.EllipticCurvePrivateKey():
                size = (self.private.curve.key_size + 7) // 8
                r, s = decode_dss_signature(self.private.sign(message, ec.ECDSA(_HASHES[digits]())))
                return r.to_bytes(size, "big") + s.to_bytes(size, "big")


@cache
def ed25519_key(name: str) -> Key:
    """Return the Ed25519 key of this name; the same in every run."""
    seed = hashlib.sha256(f"test key {name}".encode()).digest()
    return Key(name, ed25519.Ed25519PrivateKey.from_private_bytes(seed), "EdDSA")


def rsa_key(name: str, bits: int = 2048) -> Key:
    """Return the RSA key of this name, made once per process."""
    return _rsa_key(name, bits)


@cache
def _rsa_key(name: str, bits: int) -> Key:
    return Key(name, rsa.generate_private_key(public_exponent=65537, key_size=bits), "RS256")


def ec_key(name: str, bits: int = 256) -> Key:
    """Return the EC key of this name on P-256, P-384 or P-521, made once per process."""
    return _ec_key(name, bits)


@cache
def _ec_key(name: str, bits: int) -> Key:
    curve = {256: ec.SECP256R1(), 384: ec.SECP384R1(), 521: ec.SECP521R1()}[bits]
    return Key(name, ec.generate_private_key(curve), {256: "ES256", 384: "ES384", 521: "ES512"}[bits])


ORG: Final = ed25519_key("organization")  # the issuer of ORGANIZATION
FOREIGN: Final = ed25519_key("foreign")  # not trusted
CLIENT_SIGNER: Final = ed25519_key("client signer")
SERVER_SIGNER: Final = ed25519_key("server signer")
HOLDER: Final = ed25519_key("holder")  # the subject of client and server tokens
CREATOR: Final = ed25519_key("creator")  # a chain issuer


def provisioning_signer() -> Key:
    """Return the RSA key behind ``signer_cert``."""
    return rsa_key("provisioning signer")


# --- Claims


def provisioning_claims(**changes: Any) -> Claims:
    """Return a valid provisioning token's claims."""
    valid = {"cht": "s3cret", "chs": True, "chu": "wss://127.0.0.1:4222", "chpd": False, "ou": ORGANIZATION}
    return _changed(_common("choria_provisioning", ksuid(), "Choria Provisioning") | valid, changes)


def server_claims(**changes: Any) -> Claims:
    """Return a valid server token's claims, for :data:`HOLDER`."""
    valid = {"identity": "node1.example.net", "collectives": ["mcollective"], "ou": ORGANIZATION}
    return _changed(_common("choria_server", ksuid()) | valid | {"public_key": HOLDER.hex}, changes)


def client_claims(**changes: Any) -> Claims:
    """Return a valid client token's claims, for :data:`HOLDER`."""
    valid = {"callerid": "up=alice", "ou": ORGANIZATION, "opa_policy": "", "agents": ["rpcutil.*"]}
    return _changed(_common("choria_client_id", ksuid()) | valid | {"public_key": HOLDER.hex}, changes)


def _common(purpose: str, jti: str, issuer: str = "Choria") -> Claims:
    times = {"iat": NOW, "nbf": NOW, "exp": NOW + HOUR}
    return {"purpose": purpose, "jti": jti, "iss": issuer} | times


def _changed(claims: Claims, changes: Mapping[str, Any]) -> Claims:
    return {name: value for name, value in {**claims, **changes}.items() if value is not ABSENT}


def ksuid(time: int = NOW, payload: bytes = b"0123456789abcdef") -> str:
    """Return the KSUID with this time (Unix seconds) and these 16 bytes."""
    number = int.from_bytes((time - 1_400_000_000).to_bytes(4, "big") + payload, "big")
    digits = ""
    while number:
        number, digit = divmod(number, 62)
        digits = _ALPHABET[digit] + digits
    return digits.rjust(27, "0")


# --- Signing


def b64(data: bytes) -> str:
    """Encode as base64url without padding."""
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode("ascii")


def unb64(text: str) -> bytes:
    """Return the bytes of base64url without padding."""
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))


def sign(
    claims: Claims | str | bytes, key: Key, *, alg: str | None = None, header: Mapping[str, Any] | None = None
) -> str:
    """Return a token, signed truly with ``key``.

    Args:
        claims: a mapping, or JSON text that is taken as it is.
        key: signs.
        alg: header's algorithm, and the hash used; any text.
        header: additional or changed header fields.
    """
    algorithm = alg or key.algorithm
    signed_with = algorithm if algorithm[:2] == key.algorithm[:2] else key.algorithm
    head = json.dumps({"alg": algorithm, "typ": "JWT", **(header or {})})
    return sign_parts(head, claims, lambda message: key.signature(message, signed_with))


def sign_hmac(claims: Claims, secret: bytes, *, alg: str = "HS256") -> str:
    """Return a token with an HMAC in place of a signature, as algorithm confusion attacks make them."""
    digest = {"HS256": "sha256", "HS384": "sha384", "HS512": "sha512"}.get(alg, "sha256")
    head = json.dumps({"alg": alg, "typ": "JWT"})
    return sign_parts(head, claims, lambda message: hmac.digest(secret, message, digest))


def sign_parts(header: str | bytes, claims: Claims | str | bytes, signature: Callable[[bytes], bytes]) -> str:
    """Return a token of any header and claims text, signed by a function."""
    if isinstance(claims, dict):
        claims = json.dumps(claims)
    head = header.encode() if isinstance(header, str) else header
    body = claims.encode() if isinstance(claims, str) else claims
    signed = f"{b64(head)}.{b64(body)}"
    return f"{signed}.{b64(signature(signed.encode()))}"


def nonce_signature(key: Key = HOLDER, nonce: str = NONCE) -> str:
    """Return the signature a client sends in ``sig``."""
    return b64(key.signature(nonce.encode()))


# --- Trust chains


def org_issuer(claims: Claims, org: Key = ORG) -> Claims:
    """Return ``claims`` of a chain issuer; to be signed by ``org``."""
    tcs = org.signature(f"{claims['jti']}.{claims['public_key']}".encode()).hex()
    return claims | {"iss": f"I-{org.hex}", "tcs": tcs}


def creator_claims(**changes: Any) -> Claims:
    """Return a client token's claims that let :data:`CREATOR` issue others; signed by :data:`ORG`."""
    own = {"callerid": "up=creator", "public_key": CREATOR.hex, "jti": ksuid(payload=b"fedcba9876543210")}
    return org_issuer(client_claims(**(own | {"exp": NOW + 10 * HOUR} | changes)))


def issued(claims: Claims, creator: Key = CREATOR, creator_token: Claims | None = None) -> Claims:
    """Return ``claims`` of a token issued by a chain issuer; to be signed by ``creator``."""
    parent = creator_token or creator_claims()
    own = creator.signature(f"{claims['jti']}.{parent['tcs']}".encode()).hex()
    chain = {"iss": f"C-{parent['jti']}.{creator.hex}", "tcs": f"{parent['tcs']}.{own}"}
    return claims | chain | {"issexp": parent["exp"]}
