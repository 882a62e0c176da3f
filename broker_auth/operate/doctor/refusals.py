"""Why nats-server refuses connections, as it tells the callout account (fact 13)."""

from __future__ import annotations

import asyncio
import secrets
import ssl
from dataclasses import dataclass
from typing import Any, Final

import msgspec
from nats.aio.client import Client
from nats.aio.msg import Msg

from broker_auth.natsio.subjects import AUTH_ERROR_SUBJECT
from broker_auth.operate.access import CANARY
from broker_auth.operate.doctor.finding import Case
from broker_auth.operate.doctor.probe import Outcome, Target, Verdict, attempt
from broker_auth.printable import printable
from broker_auth.times import parse_server_time

_MAX_PENDING_BYTES: Final = 4 * 1024 * 1024
EVENT_SECONDS: Final = 2.0


class _Client(msgspec.Struct):
    name: str = ""


class _Server(msgspec.Struct):
    time: str = ""


class _Event(msgspec.Struct):
    """What nats-server tells in the callout account of a connection it refused."""

    reason: str = ""
    client: _Client = msgspec.field(default_factory=_Client)
    server: _Server = msgspec.field(default_factory=_Server)


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why a connection was refused, and how far the server's clock is ahead of ours, in seconds."""

    reason: str
    ahead: float | None


class Refusals:
    """Hears why nats-server refuses connections."""

    def __init__(self, service: Client, case: Case) -> None:
        self._service = service
        self._case = case
        self._waiting: dict[str, asyncio.Future[Refusal]] = {}

    async def start(self) -> None:
        """From now on."""
        await self._service.subscribe(AUTH_ERROR_SUBJECT, cb=self._hear, pending_bytes_limit=_MAX_PENDING_BYTES)
        await self._service.flush()

    async def attempt(
        self, target: Target, tls: ssl.SSLContext | None, said: dict[str, Any]
    ) -> tuple[Outcome, Refusal | None]:
        """What became of a connection, and why, if nats-server told in time."""
        name = f"{CANARY}-{secrets.token_hex(6)}"
        future: asyncio.Future[Refusal] = asyncio.get_running_loop().create_future()
        self._waiting[name] = future
        outcome = await attempt(target, tls, {"name": name} | said)
        if outcome.verdict is not Verdict.REFUSED:
            return outcome, None
        try:
            return outcome, await asyncio.wait_for(future, EVENT_SECONDS)
        except TimeoutError:
            return outcome, None
        finally:
            del self._waiting[name]

    def named(self, name: str) -> asyncio.Future[Refusal]:
        """To hear about a connection that is made elsewhere."""
        future: asyncio.Future[Refusal] = asyncio.get_running_loop().create_future()
        self._waiting[name] = future
        return future

    async def _hear(self, message: Msg) -> None:
        arrived = self._case.now()
        try:
            event = msgspec.json.decode(message.data, type=_Event)
        except (msgspec.DecodeError, RecursionError):
            return
        future = self._waiting.get(event.client.name)
        if future is not None and not future.done():
            future.set_result(Refusal(printable(event.reason, 256), _ahead(event.server.time, arrived)))


def _ahead(text: str, arrived: float) -> float | None:
    moment = parse_server_time(text)
    return None if moment is None else moment.timestamp() - arrived
