"""A single login attempt, over real TLS, without retries."""

from __future__ import annotations

import ssl
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from nats.aio.client import Client

from broker_auth.operate import logins
from broker_auth.operate.logins import AccessError as ConnectRefusedError
from broker_auth.operate.logins import Login
from broker_auth.secret import Secret

CONNECT_SECONDS: Final = 15.0  # longer than nats-server needs to refuse, even if no service answers


@dataclass(frozen=True, slots=True, kw_only=True)
class Credentials:
    """Credentials of a connection.

    Attributes:
        ca: the CA that verifies the server.
        certificate: client certificate, with :attr:`key`; None for TLS without one.
        seed: Ed25519 seed (32 bytes) that signs the server's nonce.
    """

    ca: Path
    certificate: Path | None = None
    key: Path | None = None
    user: str = ""
    password: str = field(default="", repr=False)
    token: str = field(default="", repr=False)
    seed: bytes = field(default=b"", repr=False)

    def tls(self) -> ssl.SSLContext:
        """Return a TLS context for a client."""
        context = ssl.create_default_context(cafile=self.ca)
        if self.certificate is not None:
            context.load_cert_chain(self.certificate, self.key)
        return context


async def connect(
    url: str, name: str, credentials: Credentials, *, inbox: str = "_INBOX", seconds: float = CONNECT_SECONDS
) -> Client:
    """Connect once, and give up after ``seconds``.

    Raises:
        ConnectRefusedError: TLS or the broker refused.
    """
    login = Login(
        what=name,
        user=credentials.user,
        password=Secret(credentials.password),
        token=Secret(credentials.token) if credentials.token else None,
        token_seed=credentials.seed,
        name=name,
        inbox=inbox,
    )
    return await logins.connect(url, login, credentials.tls(), seconds=seconds)


__all__ = ["CONNECT_SECONDS", "ConnectRefusedError", "Credentials", "connect"]
