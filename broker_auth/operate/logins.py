"""One login to one address, with exactly the credentials that are given."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import hashlib
import json
import ssl
from dataclasses import dataclass, field
from typing import Any, Final

import nacl.signing
from nats.errors import Error as NatsError

from broker_auth import encoding
from broker_auth.errors import InputError, OperationError
from broker_auth.natsio.client import SecuredClient
from broker_auth.secret import Secret

CONNECT_SECONDS: Final = 5.0  # a service answers within 2 or not at all (fact 10)
_CLOSE_SECONDS: Final = 1.0
COMMAND: Final = "broker-auth-cli"  # name of the connections of commands
CANARY: Final = "broker-auth-doctor"  # prefix of the names of connections that test a refusal


class AccessError(OperationError):
    """A broker is unreachable or refused the login."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Login:
    """Credentials of a connection, in addition to its certificate.

    Attributes:
        what: name of the identity, for messages.
        nkey_seed: seed of an nkey user; then no other credential is sent.
        token_seed: 32 byte seed that signs the nonce, for ``token``.
        name: name of the connection.
    """

    what: str
    user: str = ""
    password: Secret | None = None
    token: Secret | None = None
    token_seed: bytes = field(default=b"", repr=False)
    nkey_seed: Secret | None = None
    name: str = COMMAND
    inbox: str = "_INBOX"

    def called(self, name: str) -> Login:
        """Return this login with another connection name."""
        return dataclasses.replace(self, name=name)


@dataclass(frozen=True, slots=True, kw_only=True)
class Proof:
    """A client token and the Ed25519 seed of its public key, as ``--token`` and ``--seed`` give them."""

    token: Secret
    seed: bytes = field(repr=False)

    @property
    def inbox(self) -> str:
        """Inbox prefix that every client token may subscribe to (docs/policy.md#client)."""
        return f"choria.reply.{hashlib.md5(_caller_id(self.token).encode()).hexdigest()}"  # noqa: S324 - Choria's subject


async def connect(
    url: str, login: Login, tls: ssl.SSLContext | None, *, seconds: float = CONNECT_SECONDS
) -> SecuredClient:
    """Connect once.

    Raises:
        AccessError: TLS or the broker refused, or did not answer in time; contains nats-server's message.
    """
    client = _LoginClient(login)
    errors: list[Exception] = []

    async def remember(error: Exception) -> None:
        errors.append(error)

    try:
        async with asyncio.timeout(seconds):
            await client.connect(
                url,
                name=login.name,
                tls=tls,
                nkeys_seed_str=login.nkey_seed.reveal() if login.nkey_seed else None,
                error_cb=remember,
                allow_reconnect=False,
                max_reconnect_attempts=1,
                reconnect_time_wait=0,  # nats-py would wait before it reports that nothing listens
                connect_timeout=int(seconds),
                inbox_prefix=login.inbox,
            )
            await client.flush()  # with TLS 1.3 a client learns only now that its certificate is missing
    except (NatsError, OSError, TimeoutError, asyncio.IncompleteReadError) as error:
        client.abort()
        with contextlib.suppress(NatsError, OSError, TimeoutError):  # the connection is already aborted
            async with asyncio.timeout(_CLOSE_SECONDS):
                await client.close()
        reasons = [str(item) for item in (*errors, error)]
        raise AccessError(next(filter(None, reasons), f"no answer within {seconds:g} s")) from error
    return client


class _LoginClient(SecuredClient):
    """A client that sends exactly the credentials of its login.

    nats-py sends either a token or a user, and signs nonces only for nkeys; Choria's rules need user, password, token
    and nonce signature together.
    """

    max_message_bytes = 64 * 1024 * 1024  # a page of connections with all their subscriptions has about 5 MB

    def __init__(self, login: Login) -> None:
        super().__init__()
        self._login = login

    def connect_options(self) -> dict[str, Any]:
        """Return the options that the login adds to CONNECT."""
        options: dict[str, Any] = {}
        login, nonce = self._login, self.nonce
        if login.user and login.password is not None:
            options |= {"user": login.user, "pass": login.password.reveal()}
        if login.token is not None:
            options["auth_token"] = login.token.reveal()
        if login.token_seed and nonce:
            signature = nacl.signing.SigningKey(login.token_seed).sign(nonce.encode()).signature
            options["sig"] = encoding.encode(signature).decode()
        return options


def _caller_id(token: Secret) -> str:
    """Return the caller id in a token, without verification, which is up to the service."""
    try:
        body = token.reveal().strip().split(".")[1]
        claims = json.loads(encoding.decode(body.encode()))
        return str(claims["callerid"])
    except (IndexError, ValueError, KeyError, TypeError) as error:
        raise InputError(
            "--token: the file does not contain a client token; give one issued by broker-auth token client"
        ) from error
