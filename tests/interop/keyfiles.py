"""Key files in Choria's format: hex without a line end for Ed25519, PEM for RSA."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric import ed25519

from tests.builders.tokens import CREATOR, FOREIGN, HOLDER, ORG, Key, rsa_key


@dataclass(frozen=True, slots=True)
class KeyFile:
    """The files of a key's private and public halves."""

    key: Key
    private: Path
    public: Path

    @property
    def hex(self) -> str:
        """The public key in hex (Ed25519 only)."""
        return self.key.hex


class KeyFiles:
    """Keys by their purpose.

    Attributes:
        org: key of the organization issuer.
        creator: key of a chain issuer.
        subject: key of the client or server that a token is for.
        foreign: an untrusted key.
        rsa: key that signs provisioning tokens.
    """

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self.org = self._write(ORG)
        self.creator = self._write(CREATOR)
        self.subject = self._write(HOLDER)
        self.foreign = self._write(FOREIGN)
        self.rsa = self._write(rsa_key("interoperation"))

    def _write(self, key: Key) -> KeyFile:
        name = key.name.replace(" ", "-")
        private, public = self._directory / f"{name}.key", self._directory / f"{name}.public"
        if isinstance(key.private, ed25519.Ed25519PrivateKey):
            private.write_text(key.private.private_bytes_raw().hex(), encoding="ascii")
            public.write_text(key.hex, encoding="ascii")
        else:
            private.write_bytes(key.private_pem)
            public.write_bytes(key.public_pem)
        private.chmod(0o600)
        return KeyFile(key, private, public)
