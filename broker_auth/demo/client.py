"""A NATS client for one attempt to get in: real TLS, real CONNECT, no second try.

nats-py sends a token or a user, not both; Choria's clients may send user, password, token and the
signed nonce together, so CONNECT is completed here.
"""

from __future__ import annotations

import asyncio
import base64
import json
import ssl
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import nacl.signing
from nats.aio.client import Client
from nats.errors import Error as NatsError

from broker_auth.errors import OperationError

CONNECT_SECONDS: Final = 8.0  # more than nats-server needs to refuse, even when no service answers


@dataclass(frozen=True, slots=True, kw_only=True)
class Credentials:
    """What a connection presents.

    Attributes:
        ca: by what it knows the server.
        certificate: its own certificate, with :attr:`key`; None for TLS without one.
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
        """A client's TLS context."""
        context = ssl.create_default_context(cafile=self.ca)
        if self.certificate is not None:
            context.load_cert_chain(self.certificate, self.key)
        return context


class ConnectRefusedError(OperationError):
    """The connection did not get in; the message is nats-server's, or TLS's."""


class _Client(Client):
    """A client that says in CONNECT exactly what its credentials say."""

    credentials: Credentials

    def _connect_command(self) -> bytes:
        verb, _, options = super()._connect_command().partition(b" ")
        said: dict[str, Any] = json.loads(options)
        given = self.credentials
        said.update({"user": given.user, "pass": given.password} if given.user else {})
        said.update({"auth_token": given.token} if given.token else {})
        nonce = self._server_info.get("nonce")
        if given.seed and nonce:
            signature = nacl.signing.SigningKey(given.seed).sign(nonce.encode()).signature
            said["sig"] = base64.urlsafe_b64encode(signature).rstrip(b"=").decode()
        return verb + b" " + json.dumps(said).encode() + b"\r\n"


async def connect(url: str, name: str, credentials: Credentials, *, inbox: str = "_INBOX") -> Client:
    """Connect once.

    Raises:
        ConnectRefusedError: TLS or the broker refused.
    """
    client = _Client()
    client.credentials = credentials
    errors: list[Exception] = []

    async def remember(error: Exception) -> None:
        errors.append(error)

    try:
        async with asyncio.timeout(CONNECT_SECONDS):
            await client.connect(
                url,
                name=name,
                tls=credentials.tls(),
                error_cb=remember,
                allow_reconnect=False,
                max_reconnect_attempts=1,
                connect_timeout=int(CONNECT_SECONDS),
                inbox_prefix=inbox,
            )
            await client.flush()  # TLS 1.3 tells a client that its certificate is missing only now
    except (NatsError, OSError, TimeoutError, asyncio.IncompleteReadError) as error:
        await client.close()
        reason = next((text for text in map(str, [error, *errors]) if text), type(error).__name__)
        raise ConnectRefusedError(reason) from error
    return client
