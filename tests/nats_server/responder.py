"""Callout answers chosen by a test, including invalid ones that the service would never send."""

from __future__ import annotations

import asyncio
import base64
import json
import secrets
import time
from collections.abc import Awaitable, Callable
from typing import Any, Final

from nacl.signing import SigningKey
from nats.aio.client import Client
from nats.aio.msg import Msg

from broker_auth.callout.request import HEADER
from broker_auth.natsio.client import round_trip
from broker_auth.natsio.nkey import NkeyKind, decode_seed, public_nkey
from broker_auth.natsio.subjects import AUTH_REQUEST_SUBJECT
from tests.deadlines import HANG_SECONDS

Request = dict[str, Any]
Answer = Callable[[Request], bytes | Awaitable[bytes | None] | None]
UNLIMITED: Final = {"subs": -1, "data": -1, "payload": -1, "type": "user", "version": 2}


class Signer:
    """An account key that signs answers."""

    def __init__(self, seed: str) -> None:
        self.issuer = public_nkey(seed)
        self._key = SigningKey(decode_seed(seed, NkeyKind.ACCOUNT))

    def admit(
        self, request: Request, account: str = "APP", *, user: dict[str, Any] | None = None, **claims: Any
    ) -> bytes:
        """Return an admission to an account; ``user`` extends the permissions, ``claims`` the user JWT."""
        defaults = {
            "sub": request["user_nkey"],
            "aud": account,
            "nats": {"pub": {}, "sub": {}, **UNLIMITED, **(user or {})},
        }
        return self._answer(request, {"jwt": self._sign({**defaults, **claims}).decode()})

    def deny(self, request: Request, reason: str) -> bytes:
        """Return a denial with this reason."""
        return self._answer(request, {"error": reason})

    def _answer(self, request: Request, content: dict[str, Any]) -> bytes:
        content |= {"type": "authorization_response", "version": 2}
        return self._sign({"sub": request["user_nkey"], "aud": request["server_id"]["id"], "nats": content})

    def _sign(self, claims: dict[str, Any]) -> bytes:
        body = {"iss": self.issuer, "iat": int(time.time()), "jti": secrets.token_hex(8), **claims}
        signed = HEADER + b"." + base64.urlsafe_b64encode(json.dumps(body).encode()).rstrip(b"=")
        return signed + b"." + base64.urlsafe_b64encode(self._key.sign(signed).signature).rstrip(b"=")


class CalloutResponder:
    """A subscriber of one server's callout requests.

    Attributes:
        client: its connection.
        claims: the claims of every received request, in order.
        answer: called for each request; the request is not answered if it returns None.
        answered: set after an answer was sent.
    """

    def __init__(self, client: Client, answer: Answer) -> None:
        self.client = client
        self.answer = answer
        self.claims: list[dict[str, Any]] = []
        self.answered = asyncio.Event()
        self._arrived = asyncio.Condition()

    async def listen(self, queue: str = "") -> None:
        """Subscribe, and wait until the server has processed it."""
        self._subscription = await self.client.subscribe(AUTH_REQUEST_SUBJECT, queue=queue, cb=self._on_request)
        await round_trip(self.client)

    async def unsubscribe(self) -> None:
        """Unsubscribe, and wait until the server has processed it; received requests are still answered."""
        await self.client._send_unsubscribe(self._subscription._id)
        await round_trip(self.client)

    @property
    def requests(self) -> list[Request]:
        """The received requests, without the envelope."""
        return [claims["nats"] for claims in self.claims]

    async def received(self, count: int = 1) -> list[Request]:
        """Wait for at least ``count`` requests, and return all of them."""
        async with asyncio.timeout(HANG_SECONDS), self._arrived:
            await self._arrived.wait_for(lambda: len(self.claims) >= count)
        return self.requests

    async def _on_request(self, message: Msg) -> None:
        body = message.data.split(b".")[1]
        claims = json.loads(base64.urlsafe_b64decode(body + b"=" * (-len(body) % 4)))
        async with self._arrived:
            self.claims.append(claims)
            self._arrived.notify_all()
        answer = self.answer(claims["nats"])
        data = answer if answer is None or isinstance(answer, bytes) else await answer
        if data is not None:
            await self.client.publish(message.reply, data)
            await round_trip(self.client)
            self.answered.set()
