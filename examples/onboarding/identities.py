"""Checks of a node's request, and signers of its identity: a CA for certificates, a chain issuer for tokens."""

from __future__ import annotations

import datetime
import time
from collections.abc import Collection
from pathlib import Path
from typing import Protocol

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding, load_pem_private_key
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID
from session import FatalError

from broker_auth.errors import BrokerAuthError
from broker_auth.tokens.issue import issue_under, load_signing_key, server_claims
from broker_auth.tokens.jws import parse

PublicKey = ed25519.Ed25519PublicKey | ec.EllipticCurvePublicKey
CAKey = ed25519.Ed25519PrivateKey | ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey
CLOCK_SECONDS = 60  # certificates begin a little earlier, for clocks that are behind
KEY_USAGES = (
    "digital_signature",
    "content_commitment",
    "key_encipherment",
    "data_encipherment",
    "key_agreement",
    "key_cert_sign",
    "crl_sign",
    "encipher_only",
    "decipher_only",
)


class RefusalError(Exception):
    """A refusal to give a node an identity; the text is the reason."""


class Signer(Protocol):
    """A signer of one kind of identity, until it expires itself."""

    path: Path
    ends: float

    def sign(self, identity: str, key: PublicKey, seconds: float) -> tuple[dict[str, str], float]:
        """Return the identity for the node's configuration, and the time at which it expires (Unix seconds)."""


def read_csr(identity: str, pem: str) -> PublicKey:
    """Return the key in a certificate signing request, which must request only the node's own name.

    The CA decides the content of a certificate, so nothing of the request is copied. But a request for more indicates a
    wrong configuration or an attack.

    Raises:
        RefusalError: it requests another name or extensions, or has an unsupported type of key.
    """
    csr = x509.load_pem_x509_csr(pem.encode())
    if not csr.is_signature_valid:
        raise RefusalError("the CSR is not signed by its own key")
    subject = [(attribute.oid, attribute.value) for attribute in csr.subject]
    if subject != [(NameOID.COMMON_NAME, identity)]:
        raise RefusalError(f"the CSR asks for the name {csr.subject.rfc4514_string()}")
    for extension in csr.extensions:
        if extension.value != x509.SubjectAlternativeName([x509.DNSName(identity)]):
            raise RefusalError(f"the CSR asks for {extension.oid._name}")
    key = csr.public_key()
    if isinstance(key, ed25519.Ed25519PublicKey):
        return key
    if isinstance(key, ec.EllipticCurvePublicKey) and isinstance(key.curve, ec.SECP256R1 | ec.SECP384R1):
        return key
    raise RefusalError("the CSR's key is neither Ed25519 nor EC on P-256 or P-384")


class CertificateSigner:
    """A CA for nodes, ideally an intermediate CA limited to the names of nodes."""

    def __init__(self, path: Path) -> None:
        """Read the CA's certificate, followed by those above it, and the key next to it.

        Raises:
            ValueError: they cannot be used.
        """
        chain = x509.load_pem_x509_certificates(path.read_bytes())
        key = load_pem_private_key(path.with_suffix(".key").read_bytes(), None)
        if not isinstance(key, CAKey) or key.public_key() != chain[0].public_key():
            raise ValueError(f"{path} and {path.with_suffix('.key').name} do not belong together")
        self.path, self._ca, self._key = path, chain[0], key
        self.ends = min(certificate.not_valid_after_utc for certificate in chain).timestamp()
        self._above = [certificate for certificate in chain if certificate.issuer != certificate.subject]

    def sign(self, identity: str, key: PublicKey, seconds: float) -> tuple[dict[str, str], float]:
        """Return a certificate for a TLS client of this name, with the CAs between it and the root."""
        now = time.time()
        ends = int(min(now + seconds, self.ends))
        usages = dict.fromkeys(KEY_USAGES, False) | {"digital_signature": True}
        ca_id = self._ca.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value
        certificate = (
            x509.CertificateBuilder()
            .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, identity)]))
            .issuer_name(self._ca.subject)
            .public_key(key)
            .serial_number(x509.random_serial_number())
            .not_valid_before(_utc(now - CLOCK_SECONDS))
            .not_valid_after(_utc(ends))
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(x509.KeyUsage(**usages), critical=True)
            .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CLIENT_AUTH]), critical=False)
            .add_extension(x509.SubjectAlternativeName([x509.DNSName(identity)]), critical=False)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(ca_id), critical=False)
            .sign(self._key, None if isinstance(self._key, ed25519.Ed25519PrivateKey) else hashes.SHA256())
        )
        chain = [certificate, *self._above]
        return {"certificate": "".join(item.public_bytes(Encoding.PEM).decode() for item in chain)}, ends


class TokenSigner:
    """A chain issuer, which signs server tokens (docs/policy.md#the-chain-of-trust)."""

    def __init__(self, path: Path) -> None:
        """Read the chain issuer's token, and the seed next to it."""
        seed = path.with_suffix(".seed")
        self.path, self._token = path, path.read_text().strip()
        self._key = load_signing_key(seed.read_bytes(), str(seed))
        self.ends = float(parse(self._token).claims["exp"])

    def sign(self, identity: str, key: PublicKey, seconds: float) -> tuple[dict[str, str], float]:
        """Return a server token for the key, which must sign the broker's nonce whenever the token is presented.

        Raises:
            RefusalError: the key is not Ed25519.
        """
        if not isinstance(key, ed25519.Ed25519PublicKey):
            raise RefusalError("a token needs an Ed25519 key")
        claims = server_claims(
            now=time.time(),
            validity=seconds,
            identity=identity,
            public_key=key.public_bytes_raw().hex(),
            collectives=["mcollective"],
        )
        claims = issue_under(claims, self._token, self._key)
        return {"token": self._key.sign(claims)}, claims["exp"]


def read_signers(directory: Path) -> list[Signer]:
    """Return the signers of nodes' identities in this directory.

    Raises:
        FatalError: a signer cannot be used or has expired, or there is no signer.
    """
    signers: list[Signer] = []
    try:
        if (directory / "nodes-ca.pem").exists():
            signers.append(CertificateSigner(directory / "nodes-ca.pem"))
        if (directory / "provisioner.jwt").exists():
            signers.append(TokenSigner(directory / "provisioner.jwt"))
    except (ValueError, BrokerAuthError) as error:
        raise FatalError(f"{directory}: {error}") from error
    for signer in signers:
        require_unexpired(signer.path, signer.ends)
    if not signers:
        raise FatalError(f"{directory} has neither nodes-ca.pem nor provisioner.jwt, so it cannot issue identities")
    return signers


def read_seed(path: Path) -> ed25519.Ed25519PrivateKey:
    """Return the key that signs nonces, from a seed as `broker-auth token keys` writes it."""
    try:
        return ed25519.Ed25519PrivateKey.from_private_bytes(bytes.fromhex(path.read_text().strip()))
    except ValueError as error:
        raise FatalError(f"{path} is not an Ed25519 seed of 64 hex characters") from error


def check_certificate(path: Path, inventory: Collection[str]) -> None:
    """Raise FatalError if our own certificate has expired, or if the inventory contains one of its names."""
    try:
        certificate = x509.load_pem_x509_certificate(path.read_bytes())
    except ValueError as error:
        raise FatalError(f"{path} is not a certificate: {error}") from error
    require_unexpired(path, certificate.not_valid_after_utc.timestamp())
    names = {str(attribute.value) for attribute in certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)}
    for extension in certificate.extensions:
        if isinstance(extension.value, x509.SubjectAlternativeName):
            names.update(extension.value.get_values_for_type(x509.DNSName))
    if own := names & set(inventory):
        raise FatalError(f"the inventory names {', '.join(own)}, which is the provisioner itself")


def require_unexpired(path: Path, ends: float) -> None:
    """Raise FatalError if this file has expired."""
    if ends <= time.time():
        raise FatalError(f"{path} has expired; put a new one there")


def _utc(seconds: float) -> datetime.datetime:
    return datetime.datetime.fromtimestamp(int(seconds), datetime.UTC)
