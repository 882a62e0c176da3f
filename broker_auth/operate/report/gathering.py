"""Queries servers for their connections, with bounds on the time, size and number of their answers.

A compromised broker answers in its own system account, and over its leaf link in the provisioning account. Its answers
are shown as claims of that broker; their cost is bounded here, and exceeded bounds are reported.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Any, Final

import msgspec
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.errors import Error as NatsError

from broker_auth.errors import OperationError
from broker_auth.operate.answers import decode, part, refusal, request_json
from broker_auth.printable import printable

PAGE: Final = 1024  # connections in one answer
GATHER_SECONDS: Final = 2.0  # for announced servers that do not answer
QUIET_SECONDS: Final = 0.5  # without an answer, if the number of servers is unknown
ANSWER_SECONDS: Final = 10.0  # for the first page of all servers of one broker
TOTAL_SECONDS: Final = 60.0  # for all further pages
MAX_SERVERS: Final = 256  # of one broker
MAX_CONNECTIONS: Final = 200_000  # of one broker
MAX_BYTES: Final = 256 * 1024 * 1024  # of answers of one broker
_SHOWN: Final = 256  # characters of a text that a server sent
_MAX_SUBJECTS: Final = 1024  # of one connection


class State(IntEnum):
    """The state of connections to be listed."""

    OPEN = 0
    CLOSED = 1
    ALL = 2


class Peer(msgspec.Struct):
    subject: str = ""
    cert_sha256: str = ""


class Row(msgspec.Struct):
    """A connection in nats-server's CONNZ."""

    cid: int
    kind: str = ""
    type: str = ""
    ip: str = ""
    port: int = 0
    start: str = ""
    stop: str = ""
    reason: str = ""
    rtt: str = ""
    uptime: str = ""
    idle: str = ""
    pending_bytes: int = 0
    in_msgs: int = 0
    out_msgs: int = 0
    in_bytes: int = 0
    out_bytes: int = 0
    subscriptions: int = 0
    name: str = ""
    lang: str = ""
    version: str = ""
    tls_version: str = ""
    tls_peer_certs: list[Peer] = []
    authorized_user: str = ""
    account: str = ""
    subscriptions_list: list[str] = []


class Server(msgspec.Struct):
    id: str
    name: str = ""
    cluster: str = ""


class Page(msgspec.Struct):
    """A part of a server's connections; null if the server does not know the account."""

    total: int = 0
    connections: list[Row] | None = None


class Answer(msgspec.Struct):
    server: Server
    data: Page | None = None

    @property
    def rows(self) -> list[Row]:
        """The connections in this answer."""
        return (self.data and self.data.connections) or []


@dataclass(frozen=True, slots=True, kw_only=True)
class Ask:
    """A query to servers."""

    account: str | None = None
    state: State = State.OPEN
    subjects: bool = False

    def options(self, offset: int = 0) -> dict[str, Any]:
        """Return the options of nats-server's CONNZ."""
        options: dict[str, Any] = {"auth": True, "limit": PAGE, "offset": offset, "state": int(self.state)}
        options |= {"subscriptions": True} if self.subjects else {}
        return options | ({"acc": self.account} if self.account else {})


@dataclass(frozen=True, slots=True)
class Gathered:
    """The answers, and a line for each problem that made them incomplete."""

    answers: list[Answer]
    missing: list[str] = field(default_factory=list)


class _Bounds:
    """The remaining bounds for one broker."""

    def __init__(self, seconds: float) -> None:
        self.deadline = asyncio.get_running_loop().time() + seconds
        self.bytes = 0
        self.connections = 0

    @property
    def seconds(self) -> float:
        """Remaining seconds."""
        return max(0.0, self.deadline - asyncio.get_running_loop().time())

    def take(self, answer: Answer, size: int) -> None:
        """Count an answer.

        Raises:
            OperationError: a bound is exceeded.
        """
        self.bytes += size
        self.connections += len(answer.rows)
        if self.bytes > MAX_BYTES:
            raise OperationError(f"its servers answer with more than {MAX_BYTES >> 20} MiB; the rest is not shown")
        if self.connections > MAX_CONNECTIONS:
            raise OperationError(f"its servers list more than {MAX_CONNECTIONS} connections; the rest is not shown")


async def ask_system(client: Client, ask: Ask) -> Gathered:
    """Return all pages of all servers that share the system account.

    Raises:
        OperationError: no answer, or an invalid one.
    """
    ping = await request_json(client, "$SYS.REQ.SERVER.PING")
    announced = part(ping, "statsz").get("active_servers")
    expected = announced if isinstance(announced, int) and announced > 0 else 1
    gathered = await gather(client, "$SYS.REQ.SERVER.PING.CONNZ", ask, expected=min(expected, MAX_SERVERS))
    bounds = _Bounds(TOTAL_SECONDS)
    for answer in gathered.answers:
        bounds.take(answer, 0)
    missing = list(gathered.missing)
    if len(gathered.answers) < expected and not missing:
        missing.append(f"{len(gathered.answers)} of {expected} servers answered")
    pages = list(gathered.answers)
    for answer in gathered.answers:
        try:
            await _further_pages(client, ask, answer, pages, bounds)
        except OperationError as error:
            missing.append(str(error))
            break
    return Gathered(pages, missing)


async def _further_pages(client: Client, ask: Ask, first: Answer, pages: list[Answer], bounds: _Bounds) -> None:
    """Add the further pages of a server.

    Raises:
        OperationError: a page is missing, or a bound is exceeded.
    """
    subject = f"$SYS.REQ.SERVER.{first.server.id}.CONNZ"
    total = first.data.total if first.data else 0
    for offset in range(PAGE, total, PAGE):
        if not bounds.seconds:
            raise OperationError(f"its servers took more than {TOTAL_SECONDS:g} s; the rest is not shown")
        page = await _request(client, subject, ask.options(offset), bounds)
        if not page.rows or page.server.id != first.server.id:
            return
        pages.append(page)


async def _request(client: Client, subject: str, options: Mapping[str, Any], bounds: _Bounds) -> Answer:
    try:
        reply = await client.request(subject, msgspec.json.encode(options), timeout=min(5.0, bounds.seconds))
    except (NatsError, TimeoutError) as error:
        raise OperationError(f"{subject}: no answer: {error or type(error).__name__}") from error
    answer = _convert(decode(reply.data, subject), subject)
    bounds.take(answer, len(reply.data))
    return answer


async def gather(client: Client, subject: str, ask: Ask, *, expected: int | None = None) -> Gathered:
    """Return the first answer of each server to a query.

    Args:
        client: the connection.
        subject: the subject of the query.
        ask: the query.
        expected: number of servers that should answer, None if unknown.

    Raises:
        OperationError: the connection ended.
    """
    bounds = _Bounds(ANSWER_SECONDS)
    answers: dict[str, Answer] = {}
    queue: asyncio.Queue[bytes] = asyncio.Queue(MAX_SERVERS)
    missing: list[str] = []

    async def enqueue(message: Msg) -> None:
        await queue.put(message.data)  # nats-py drops messages beyond its limits

    inbox = client.new_inbox()
    try:
        subscription = await client.subscribe(
            inbox, cb=enqueue, pending_msgs_limit=MAX_SERVERS, pending_bytes_limit=MAX_BYTES // 4
        )
        await client.publish(subject, msgspec.json.encode(ask.options()), reply=inbox)
        while expected is None or len(answers) < expected:
            wait = GATHER_SECONDS if expected is not None or not answers else QUIET_SECONDS
            try:
                data = await asyncio.wait_for(queue.get(), min(wait, bounds.seconds))
            except TimeoutError:
                if not bounds.seconds:
                    missing.append(f"its servers answer for more than {ANSWER_SECONDS:g} s; the rest is not shown")
                break
            try:
                _add(answers, data, subject, bounds, missing)
            except OperationError as error:
                missing.append(str(error))
                break
        await subscription.unsubscribe()
    except NatsError as error:
        raise OperationError(f"{subject}: {error}") from error
    return Gathered(list(answers.values()), missing)


def _add(answers: dict[str, Answer], data: bytes, subject: str, bounds: _Bounds, missing: list[str]) -> None:
    """Add an answer, unless its server has answered before.

    Raises:
        OperationError: it is invalid, or a bound is exceeded.
    """
    answer = _convert(decode(data, subject), subject)
    bounds.take(answer, len(data))
    if answer.server.id in answers:
        line = f"server {printable(answer.server.name, _SHOWN)} answers more than once; the first answer is shown"
        missing[:] = dict.fromkeys([*missing, line]) if len(missing) < MAX_SERVERS else missing
        return
    if len(answers) >= MAX_SERVERS:
        raise OperationError(f"more than {MAX_SERVERS} servers answer; the rest is not shown")
    answers[answer.server.id] = answer


def _convert(answer: Mapping[str, Any], subject: str) -> Answer:
    """Return an answer with every text truncated.

    Raises:
        OperationError: it is not valid, or a refusal.
    """
    if (message := refusal(answer)) is not None:
        raise OperationError(f"{subject}: {message}")
    try:
        converted = msgspec.convert(answer, Answer, strict=False)
    except (msgspec.ValidationError, RecursionError) as error:
        text = printable(str(error), _SHOWN)
        raise OperationError(f"{subject}: the answer is not what nats-server 2.12 to 2.15 sends: {text}") from error
    for row in (converted.server, *converted.rows):
        _cut(row)
    return converted


def _cut(row: msgspec.Struct) -> None:
    for name in row.__struct_fields__:
        value = getattr(row, name)
        if isinstance(value, str) and len(value) > _SHOWN:
            setattr(row, name, value[:_SHOWN])
    if isinstance(row, Row):
        row.subscriptions_list = [subject[:_SHOWN] for subject in row.subscriptions_list[:_MAX_SUBJECTS]]
        row.tls_peer_certs = [
            Peer(peer.subject[: 4 * _SHOWN], peer.cert_sha256[:_SHOWN]) for peer in row.tls_peer_certs[:1]
        ]
