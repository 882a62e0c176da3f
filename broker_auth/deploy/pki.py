"""A development PKI: issues certificates for the demo, the tests and ``init --dev-pki``.

Not for production: the CA's key is stored beside the certificates. Extensions follow RFC 5280 closely
enough for Go's verifier (nats-server) and for ``cryptography.x509.verification``.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Literal

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from broker_auth.files.writing import write_private

PrivateKey = ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey | ed25519.Ed25519PrivateKey
Algorithm = Literal["ec", "rsa", "ed25519"]

LOCAL_NAMES = ("localhost", "127.0.0.1", "::1")
_LIFETIME = timedelta(days=365)
_BACKDATED = timedelta(hours=1)  # for peers whose clock is a little behind
_COMMON_NAME_LENGTH = 64  # X.520's upper bound


@dataclass(frozen=True, slots=True, kw_only=True)
class Validity:
    """A validity period; by default from one hour ago until in a year."""

    not_before: datetime = field(default_factory=lambda: datetime.now(UTC) - _BACKDATED)
    not_after: datetime = field(default_factory=lambda: datetime.now(UTC) + _LIFETIME)


@dataclass(frozen=True, slots=True)
class Pair:
    """A certificate and its private key."""

    certificate: x509.Certificate
    key: PrivateKey = field(repr=False)

    @property
    def certificate_pem(self) -> bytes:
        """The certificate as PEM."""
        return self.certificate.public_bytes(serialization.Encoding.PEM)

    @property
    def key_pem(self) -> bytes:
        """The private key as unencrypted PKCS #8 PEM: a secret."""
        return self.key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )

    def write(self, directory: Path, name: str) -> tuple[Path, Path]:
        """Write ``NAME.pem`` and ``NAME.key``, the key readable by its owner only; return both paths."""
        certificate, key = directory / f"{name}.pem", directory / f"{name}.key"
        certificate.write_bytes(self.certificate_pem)
        write_private(key, self.key_pem)
        return certificate, key


class CertificateAuthority:
    """A certificate authority that issues server, client and intermediate certificates."""

    def __init__(self, pair: Pair, chain: Sequence[Pair] = ()) -> None:
        self.pair = pair
        self.chain = tuple(chain)

    @classmethod
    def create(
        cls, name: str = "broker-auth development CA", *, validity: Validity | None = None
    ) -> CertificateAuthority:
        """Create a self-signed authority (EC P-256). Two authorities of the same name are unrelated."""
        key = ec.generate_private_key(ec.SECP256R1())
        builder = _builder(name, key, validity or Validity())
        builder = _as_authority(builder.issuer_name(_name(name)), path_length=1)
        # RFC 5280 section 4.2.1.1: a self-signed certificate may omit the authority key identifier.
        return cls(Pair(builder.sign(key, hashes.SHA256()), key))

    @property
    def certificate(self) -> x509.Certificate:
        """The authority's own certificate."""
        return self.pair.certificate

    @property
    def certificate_pem(self) -> bytes:
        """The authority's own certificate as PEM, to be configured as a trusted CA."""
        return self.pair.certificate_pem

    def intermediate(self, name: str, *, validity: Validity | None = None) -> CertificateAuthority:
        """Create an authority that is signed by this one and cannot sign further authorities."""
        key = ec.generate_private_key(ec.SECP256R1())
        builder = _as_authority(_builder(name, key, validity or Validity()), path_length=0)
        return CertificateAuthority(self._sign(builder, key), (self.pair, *self.chain))

    def server(
        self,
        name: str = "nats-server",
        *,
        hosts: Sequence[str] = LOCAL_NAMES,
        routes: bool = True,
        validity: Validity | None = None,
    ) -> Pair:
        """Issue a server certificate for these DNS names and addresses.

        With ``routes`` it is valid for TLS clients too, because nats-server uses one certificate for both ends of
        cluster routes. An edge has no routes, and its certificate must not be accepted as a client elsewhere.
        """
        client = (ExtendedKeyUsageOID.CLIENT_AUTH,) if routes else ()
        return self._leaf(name, hosts, (ExtendedKeyUsageOID.SERVER_AUTH, *client), validity)

    def client(
        self,
        name: str,
        *,
        names: Sequence[str] | None = None,
        validity: Validity | None = None,
        key: PrivateKey | None = None,
    ) -> Pair:
        """Return a client certificate.

        Args:
            name: its common name.
            names: its subject alternative names, by default the common name; empty leaves the extension out.
            validity: from when until when.
            key: what it is for, by default a new EC key.
        """
        chosen = (name,) if names is None else names
        return self._leaf(name, chosen, (ExtendedKeyUsageOID.CLIENT_AUTH,), validity, key)

    def _leaf(
        self,
        name: str,
        names: Sequence[str],
        usages: Sequence[x509.ObjectIdentifier],
        validity: Validity | None,
        key: PrivateKey | None = None,
    ) -> Pair:
        key = key or private_key("ec")
        builder = (
            _builder(name, key, validity or Validity())
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(_key_usage(signing=True), critical=True)
            .add_extension(x509.ExtendedKeyUsage(list(usages)), critical=False)
        )
        if names:
            alternatives = x509.SubjectAlternativeName([general_name(item) for item in names])
            builder = builder.add_extension(alternatives, critical=False)
        return self._sign(builder, key)

    def _sign(self, builder: x509.CertificateBuilder, key: PrivateKey) -> Pair:
        own = self.certificate
        identifier = own.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value
        builder = builder.issuer_name(own.subject).add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(identifier), critical=False
        )
        return Pair(builder.sign(self.pair.key, hashes.SHA256()), key)


def signer(
    name: str = "provisioning signer", *, algorithm: Algorithm = "rsa", validity: Validity | None = None
) -> Pair:
    """Create a self-signed certificate for a key that signs tokens: RSA 2048, Ed25519 or EC P-256.

    Such a certificate is only a container for its key (docs/policy.md#what-is-accepted-as-a-token).
    """
    key = private_key(algorithm)
    builder = (
        _builder(name, key, validity or Validity())
        .issuer_name(_name(name))
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_key_usage(signing=True), critical=True)
    )
    return Pair(builder.sign(key, None if isinstance(key, ed25519.Ed25519PrivateKey) else hashes.SHA256()), key)


def private_key(algorithm: Algorithm) -> PrivateKey:
    """Return a new private key: RSA 2048 (a tenth of a second), Ed25519 or EC P-256."""
    if algorithm == "rsa":
        return rsa.generate_private_key(public_exponent=65537, key_size=2048)
    if algorithm == "ed25519":
        return ed25519.Ed25519PrivateKey.generate()
    return ec.generate_private_key(ec.SECP256R1())


def general_name(text: str) -> x509.GeneralName:
    """Return a subject alternative name: an IP address if the text is one, else a DNS name."""
    try:
        return x509.IPAddress(ipaddress.ip_address(text))
    except ValueError:
        return x509.DNSName(text.removesuffix("."))  # certificates contain host names without the final dot


def _builder(name: str, key: PrivateKey, validity: Validity) -> x509.CertificateBuilder:
    public = key.public_key()
    return (
        x509.CertificateBuilder()
        .subject_name(_name(name))
        .public_key(public)
        .serial_number(x509.random_serial_number())
        .not_valid_before(validity.not_before)
        .not_valid_after(validity.not_after)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(public), critical=False)
    )


def _as_authority(builder: x509.CertificateBuilder, *, path_length: int) -> x509.CertificateBuilder:
    return builder.add_extension(x509.BasicConstraints(ca=True, path_length=path_length), critical=True).add_extension(
        _key_usage(signing=False), critical=True
    )


def _key_usage(*, signing: bool) -> x509.KeyUsage:
    """Return the key usage of a leaf certificate, which signs handshakes and tokens, or of an authority."""
    return x509.KeyUsage(
        digital_signature=signing,
        key_cert_sign=not signing,
        crl_sign=not signing,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def _name(name: str) -> x509.Name:
    """Return a subject with this CN, truncated to X.520's limit; the alternative names contain the full name."""
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name[:_COMMON_NAME_LENGTH])])
