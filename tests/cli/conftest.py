"""Key and token files in a directory, created by the commands."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat

from tests.cli.running import TOKEN_SECRET, run

PROVISIONING = ("--token", TOKEN_SECRET, "--urls", "nats://provision.example.net:4222")


@dataclass(frozen=True)
class KeyDirectory:
    """A directory with keys, and methods that create tokens in it."""

    path: Path

    def keys(self, name: str) -> str:
        """Make ``NAME.seed`` and ``NAME.public``; returns the public key."""
        made = run("token", "keys", self.path / f"{name}.seed", self.path / f"{name}.public", "--json")
        assert made.code == 0, made.err
        public: str = made.json["public_key"]
        return public

    def token(self, kind: str, *args: object) -> Path:
        """Make a token that must not exist yet; returns its file."""
        path = self.path / f"{kind}-{sum(1 for _ in self.path.iterdir())}.jwt"
        made = run("token", kind, path, *args)
        assert made.code == 0, made.err
        return path

    def provisioning(self, *args: object) -> Path:
        """Return a provisioning token signed by the organization."""
        return self.token("provisioning", self.path / "org.seed", *PROVISIONING, *args)

    def server(self, *args: object) -> Path:
        """Return a token of ``node1.example.net`` signed by the organization."""
        return self.token("server", "node1.example.net", self.path / "holder.public", self.path / "org.seed", *args)

    def client(self, *args: object) -> Path:
        """Return a token of ``up=alice`` signed by the organization."""
        return self.token(
            "client", "up=alice", self.path / "org.seed", "--public-key", self.path / "holder.public", *args
        )

    def chain_issuer(self, *args: object) -> Path:
        """Return a token of ``aaa=login``, key ``aaa``, that may issue others."""
        return self.token(
            "client", "aaa=login", self.path / "org.seed", "--public-key", self.path / "aaa.public", "--issuer", *args
        )

    @property
    def trust(self) -> tuple[str, str]:
        """Options that make ``token check`` trust the organization."""
        return ("--issuer", f"choria={(self.path / 'org.public').read_text()}")


@pytest.fixture
def key_directory(tmp_path: Path) -> KeyDirectory:
    """Return a directory with keys of the organization, a chain issuer, a token subject and an untrusted party."""
    made = KeyDirectory(tmp_path)
    for name in ("org", "aaa", "holder", "foreign"):
        made.keys(name)
    return made


PEM_KEYS = ("rsa-pkcs1", "rsa-pkcs8", "p256", "p384", "ed25519-pem")


@pytest.fixture(scope="session")
def pem_keys(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a directory with ``NAME.key`` and ``NAME.pem`` (the public key) for each of :data:`PEM_KEYS`."""
    directory = tmp_path_factory.mktemp("pem")
    rsa_key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    keys: dict[
        str, tuple[rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey, PrivateFormat]
    ] = {
        "rsa-pkcs1": (rsa_key, PrivateFormat.TraditionalOpenSSL),
        "rsa-pkcs8": (rsa_key, PrivateFormat.PKCS8),
        "p256": (ec.generate_private_key(ec.SECP256R1()), PrivateFormat.TraditionalOpenSSL),
        "p384": (ec.generate_private_key(ec.SECP384R1()), PrivateFormat.PKCS8),
        "ed25519-pem": (ed25519.Ed25519PrivateKey.generate(), PrivateFormat.PKCS8),
    }
    for name, (key, form) in keys.items():
        private, public = directory / f"{name}.key", directory / f"{name}.pem"
        private.write_bytes(key.private_bytes(Encoding.PEM, form, NoEncryption()))
        private.chmod(0o600)
        public.write_bytes(key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))
    return directory
