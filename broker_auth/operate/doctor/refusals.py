"""Reasons for refused connections, which nats-server reports to the callout account (fact 13)."""

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
from broker_auth.operate.doctor.finding import Context
from broker_auth.operate.doctor.probe import ProbeResult, ProbeTarget, Verdict, attempt
from broker_auth.operate.logins import CANARY
from broker_auth.printable import printable
from broker_auth.times import parse_server_time

_MAX_PENDING_BYTES: Final = 4 * 1024 * 1024
EVENT_SECONDS: Final = 2.0


class _RefusedClient(msgspec.Struct):
    name: str = ""


class _ReportingServer(msgspec.Struct):
    time: str = ""


class _Event(msgspec.Struct):
    """nats-server's report about a refused connection."""

    reason: str = ""
    client: _RefusedClient = msgspec.field(default_factory=_RefusedClient)
    server: _ReportingServer = msgspec.field(default_factory=_ReportingServer)


@dataclass(frozen=True, slots=True)
class Refusal:
    """The reason of a refusal, and by how many seconds the server's clock is ahead of ours."""

    reason: str
    ahead: float | None


class Refusals:
    """A subscription to the reasons of refused connections."""

    def __init__(self, service: Client, context: Context) -> None:
        self._service = service
        self._context = context
        self._waiting: dict[str, asyncio.Future[Refusal]] = {}

    async def start(self) -> None:
        """Subscribe."""
        await self._service.subscribe(AUTH_ERROR_SUBJECT, cb=self._receive, pending_bytes_limit=_MAX_PENDING_BYTES)
        await self._service.flush()

    async def attempt(
        self, target: ProbeTarget, tls: ssl.SSLContext | None, credentials: dict[str, Any]
    ) -> tuple[ProbeResult, Refusal | None]:
        """Make a connection attempt; return its result, and the reason if nats-server reported it in time."""
        name = f"{CANARY}-{secrets.token_hex(6)}"
        future: asyncio.Future[Refusal] = asyncio.get_running_loop().create_future()
        self._waiting[name] = future
        outcome = await attempt(target, tls, {"name": name} | credentials)
        if outcome.verdict is not Verdict.REFUSED:
            return outcome, None
        try:
            return outcome, await asyncio.wait_for(future, EVENT_SECONDS)
        except TimeoutError:
            return outcome, None
        finally:
            del self._waiting[name]

    def named(self, name: str) -> asyncio.Future[Refusal]:
        """Return a future for the refusal of a connection that is made elsewhere."""
        future: asyncio.Future[Refusal] = asyncio.get_running_loop().create_future()
        self._waiting[name] = future
        return future

    async def _receive(self, message: Msg) -> None:
        arrived = self._context.now()
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
