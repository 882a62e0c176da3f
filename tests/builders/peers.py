"""TLS peers: certificates, and the verified chains as nats-server reports them (PEM, leaf first).

Certificates hold from 2020 until :data:`NOT_AFTER`, for tests at ``NOW`` and for tests of running
servers alike.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from functools import cache
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from broker_auth.certificates.certificate import Certificate, certificates_from_pem
from broker_auth.certificates.verifier import PeerVerifier
from broker_auth.deploy.pki import CertificateAuthority, Pair, PrivateKey, Validity, private_key
from tests.builders.clock import NOW, YEAR

NOT_AFTER: Final = NOW + 10 * YEAR
FLEET_NAME: Final = "node1.example.net"
PROVISIONER_NAME: Final = "provisioner.example.net"
Chain = tuple[str, ...]


def validity(not_before: float, not_after: float) -> Validity:
    """Return a validity period from Unix seconds."""
    return Validity(
        not_before=datetime.fromtimestamp(not_before, UTC), not_after=datetime.fromtimestamp(not_after, UTC)
    )


LONG: Final = validity(1_577_836_800, NOT_AFTER)


def authority(name: str = "fleet CA") -> CertificateAuthority:
    """Return the CA of this name, made once per process."""
    return _authority(name)  # a cache distinguishes a default from the same explicit argument


@cache
def _authority(name: str) -> CertificateAuthority:
    return CertificateAuthority.create(name, validity=LONG)


@cache
def intermediate() -> CertificateAuthority:
    """Return a CA signed by the fleet's."""
    return authority().intermediate("fleet intermediate", validity=LONG)


def client(name: str = FLEET_NAME, names: tuple[str, ...] | None = None, ca: str = "fleet CA") -> Pair:
    """Return a client certificate of the fleet, or of another CA."""
    return _client(name, names, ca)


@cache
def _client(name: str, names: tuple[str, ...] | None, ca: str) -> Pair:
    return authority(ca).client(name, names=names, validity=LONG)


def pem(pair: Pair | CertificateAuthority) -> str:
    """Return a certificate as PEM text."""
    return pair.certificate_pem.decode("ascii")


def chain(*certificates: Pair | CertificateAuthority) -> Chain:
    """Return a chain as nats-server reports it: leaf first, the root last."""
    return tuple(pem(certificate) for certificate in certificates)


def fleet_chain(name: str = FLEET_NAME, names: tuple[str, ...] | None = None) -> Chain:
    """Return the verified chain of a fleet member."""
    return chain(client(name, names), authority())


def foreign_chain(name: str = FLEET_NAME) -> Chain:
    """Return a chain that nats-server verified against a CA which is not the fleet's."""
    return chain(client(name, ca="foreign CA"), authority("foreign CA"))


def parsed(pair: Pair | CertificateAuthority) -> Certificate:
    """Return a certificate as the service reads it."""
    return certificates_from_pem(pair.certificate_pem)[0]


def verifier(*roots: CertificateAuthority | Pair) -> PeerVerifier:
    """Return a new verifier of the fleet's peers, or of others'."""
    chosen: Sequence[CertificateAuthority | Pair] = roots or (authority(),)
    return PeerVerifier([parsed(root) for root in chosen])


def custom(
    issuer: Pair | None,
    *,
    subject: Sequence[tuple[x509.ObjectIdentifier, str]] = ((NameOID.COMMON_NAME, FLEET_NAME),),
    sans: Sequence[x509.GeneralName] = (),
    usages: Sequence[x509.ObjectIdentifier] = (ExtendedKeyUsageOID.CLIENT_AUTH,),
    ca: bool = False,
    key: PrivateKey | None = None,
    holds: Validity = LONG,
) -> Pair:
    """Return a certificate of any shape, signed by ``issuer``, or by itself."""
    own = key or private_key("ec")
    name = x509.Name([x509.NameAttribute(oid, value) for oid, value in subject])
    builder = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(issuer.certificate.subject if issuer else name)
        .public_key(own.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(holds.not_before)
        .not_valid_after(holds.not_after)
        .add_extension(x509.BasicConstraints(ca=ca, path_length=None), critical=True)
    )
    if usages and not ca:
        builder = builder.add_extension(x509.ExtendedKeyUsage(list(usages)), critical=False)
    if sans:
        builder = builder.add_extension(x509.SubjectAlternativeName(list(sans)), critical=False)
    signs = issuer.key if issuer else own
    return Pair(builder.sign(signs, None if isinstance(signs, Ed25519PrivateKey) else SHA256()), own)


@cache
def ed25519_authority(name: str = "Ed25519 CA") -> Pair:
    """Return a CA with an Ed25519 key."""
    return custom(None, subject=((NameOID.COMMON_NAME, name),), ca=True, key=private_key("ed25519"))
