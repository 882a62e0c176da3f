"""A minimal callout responder: admits every client to a chosen account.

Replaces the service where only the rendered configuration is under test.
"""

from __future__ import annotations

import asyncio
import base64
import functools
import json
import secrets
import ssl
import time
from collections.abc import Awaitable, Callable, Mapping
from types import MappingProxyType
from typing import Any

import msgspec
import nats
from nacl.public import Box, PrivateKey, PublicKey
from nacl.signing import SigningKey
from nats.aio.client import Client
from nats.aio.msg import Msg

from broker_auth.natsio.client import round_trip
from broker_auth.natsio.nkey import NkeyKind, decode_public, decode_seed, public_nkey
from broker_auth.natsio.subjects import AUTH_QUEUE
from broker_auth.policy.permissions import UNRESTRICTED, Permissions
from broker_auth.settings.model import Settings, Zone
from tests.deadlines import HANG_SECONDS

SUBJECT = "$SYS.REQ.USER.AUTH"
Choose = Callable[[dict[str, Any]], Awaitable[str] | str]


def _b64(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


class Responder:
    """A callout service that admits every client to the account that ``choose`` returns."""

    def __init__(
        self, settings: Settings, choose: Choose, permissions: Mapping[str, Permissions] = MappingProxyType({})
    ) -> None:
        """Connect to nothing yet.

        Args:
            settings: the settings.
            choose: returns the account of a request.
            permissions: of the clients of an account; by default they may do everything in it.
        """
        self._settings = settings
        self._choose = choose
        self._permissions = permissions
        self.requests: list[dict[str, Any]] = []
        self.connections: list[Client] = []

    async def serve(self, url: str, tls: ssl.SSLContext, zone: Zone) -> Client:
        """Connect to a broker and answer its requests."""
        assert zone.nkey_seed
        connection = await connect_nkey(url, tls, zone.nkey_seed.reveal())
        await connection.subscribe(SUBJECT, queue=AUTH_QUEUE, cb=functools.partial(self._answer, zone))
        await round_trip(connection)
        self.connections.append(connection)
        return connection

    async def close(self) -> None:
        """Close every connection."""
        await asyncio.gather(*(connection.close() for connection in self.connections))

    async def _answer(self, zone: Zone, message: Msg) -> None:
        data, box = message.data, None
        if zone.xkey_seed:
            raw = decode_seed(zone.xkey_seed.reveal(), NkeyKind.CURVE)
            assert message.headers
            server = decode_public(message.headers["Nats-Server-Xkey"], NkeyKind.CURVE)
            box = Box(PrivateKey(raw), PublicKey(server))
            assert data.startswith(b"xkv1")
            data = box.decrypt(data[4:])
        body = data.split(b".")[1]
        request = json.loads(base64.urlsafe_b64decode(body + b"=" * (-len(body) % 4)))["nats"]
        self.requests.append(request)
        chosen = self._choose(request)
        account = chosen if isinstance(chosen, str) else await chosen
        reply = self._response(zone, request, account)
        await message.respond(b"xkv1" + bytes(box.encrypt(reply)) if box else reply)

    def _response(self, zone: Zone, request: dict[str, Any], account: str) -> bytes:
        unlimited = {"subs": -1, "data": -1, "payload": -1, "type": "user", "version": 2}
        name = request["connect_opts"].get("name", "nobody")
        permissions = msgspec.to_builtins(self._permissions.get(account, UNRESTRICTED))
        user = self._sign(zone, account, request["user_nkey"], name, permissions | unlimited)
        answer = {"jwt": user.decode(), "type": "authorization_response", "version": 2}
        return self._sign(zone, request["server_id"]["id"], request["user_nkey"], name, answer)

    def _sign(self, zone: Zone, audience: str, subject: str, name: str, claims: dict[str, Any]) -> bytes:
        header = _b64(json.dumps({"typ": "JWT", "alg": "ed25519-nkey"}).encode())
        assert zone.issuer_seed
        seed = zone.issuer_seed.reveal()
        body: dict[str, Any] = {"iss": public_nkey(seed), "sub": subject, "aud": audience, "name": name, "nats": claims}
        body |= {"iat": int(time.time()), "jti": secrets.token_hex(8)}
        signed = f"{header}.{_b64(json.dumps(body).encode())}"
        key = SigningKey(decode_seed(seed, NkeyKind.ACCOUNT))
        return f"{signed}.{_b64(key.sign(signed.encode()).signature)}".encode()


async def connect_nkey(url: str, tls: ssl.SSLContext, seed: str, *, inbox: str = "_INBOX") -> Client:
    """Log in with an nkey, once."""

    async def quiet(_: Exception) -> None:
        """Ignore errors: connect itself raises them."""

    return await nats.connect(
        url,
        tls=tls,
        nkeys_seed_str=seed,
        allow_reconnect=False,
        error_cb=quiet,
        connect_timeout=HANG_SECONDS,
        inbox_prefix=inbox,
    )
