"""A complete, valid configuration in a directory of its own, of which each test changes one thing."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat
from cryptography.x509.oid import NameOID

from broker_auth.settings.load import check
from broker_auth.settings.problems import ConfigurationReport, Problem

NOW = datetime.now(UTC)
PASSWORD = "hunter2-provisioner"
SYSTEM_PASSWORD = "hunter2-system"
HEX_KEY = "0f" * 32

P = "plugin.broker_auth."
CHORIA = "plugin.choria.network."
VALID = {
    f"{CHORIA}provisioning.signer_cert": "signer.pem",
    f"{CHORIA}provisioning.client_password": PASSWORD,
    f"{CHORIA}system.user": "admin",
    f"{CHORIA}system.password": "file:system.password",
    f"{P}client_ca": "ca.pem",
    f"{P}provisioner.identities": "provisioner.example.net",
    f"{P}broker.default.urls": "tls://127.0.0.1:4222",
    f"{P}tls.ca": "ca.pem",
    f"{P}tls.certificate": "service.pem",
    f"{P}tls.key": "service.key",
    f"{P}nkey_seed_file": "user.seed",
    f"{P}issuer_seed_file": "account.seed",
    f"{P}xkey_seed_file": "curve.seed",
}
ISSUER_MODE = {
    f"{CHORIA}provisioning.signer_cert": None,
    "plugin.security.issuer.names": "choria",
    "plugin.security.issuer.choria.public": HEX_KEY,
}


def certificate(name: str, days: float = 365.0) -> tuple[bytes, EllipticCurvePrivateKey]:
    """A self-signed certificate that expires in ``days`` from now, and its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    expires = NOW + timedelta(days=days)
    built = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(expires - timedelta(days=400))
        .not_valid_after(expires)
        .sign(key, SHA256())
    )
    return built.public_bytes(Encoding.PEM), key


def private_pem(key: EllipticCurvePrivateKey) -> bytes:
    """The key as unencrypted PKCS 8."""
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


def public_pem(key: EllipticCurvePrivateKey) -> bytes:
    """The public key as PEM."""
    return key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)


@dataclass
class Directory:
    """A configuration directory; ``keys`` is written as the file by :meth:`check`."""

    path: Path
    keys: dict[str, str] = field(default_factory=lambda: dict(VALID))

    @property
    def config(self) -> Path:
        """The configuration file."""
        return self.path / "broker.conf"

    def write(self, name: str, data: bytes | str, mode: int = 0o600) -> Path:
        """Writes a file of the given mode."""
        path = self.path / name
        path.write_bytes(data.encode() if isinstance(data, str) else data)
        path.chmod(mode)
        return path

    def set(self, changes: Mapping[str, str | None]) -> None:
        """Sets keys, or removes those that are None."""
        for key, value in changes.items():
            if value is None:
                self.keys.pop(key, None)
            else:
                self.keys[key] = value

    def save(self, mode: int = 0o600) -> Path:
        """Writes the configuration file."""
        return self.write("broker.conf", "".join(f"{key} = {value}\n" for key, value in self.keys.items()), mode)

    def line(self, key: str) -> int:
        """The line :meth:`save` puts a key in."""
        return list(self.keys).index(key) + 1

    def check(self, environ: Mapping[str, str] | None = None, *, serving: bool = True) -> ConfigurationReport:
        """Saves and checks."""
        return check(self.save(), environ or {}, serving=serving, now=NOW)


def check_file(directory: Directory) -> tuple[Problem, ...]:
    """The problems of the configuration file as it is now, which a test wrote by itself."""
    return check(directory.config, {}, now=NOW).problems
