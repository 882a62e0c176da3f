"""Who is connected, on every server of every configured broker (NATS_FACTS 20).

Servers answer in the system account. A broker whose system account does not open to the configuration
(an edge: it asks for no certificate, and its system account is not linked with the fleet's) is seen
through the provisioning account instead, where a provisioner's request crosses the leaf link.

nats-server does not tell which rule admitted a connection; audit records do, and where there are none
the rule is left open, except for users that are let in without the service.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Any, Final

import msgspec
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.errors import Error as NatsError

from broker_auth.errors import OperationError
from broker_auth.nkey import public_nkey
from broker_auth.observe.access import Access, AccessError, decode, request_json
from broker_auth.settings.model import BrokerSettings, Role, Settings

AUTH_USER: Final = "auth_user"  # the service itself: listed in `auth_users`, never called out for
BREAK_GLASS: Final = "break_glass"
PAGE: Final = 1024  # connections in one answer
GATHER_SECONDS: Final = 2.0  # for servers that were announced and do not answer
QUIET_SECONDS: Final = 0.5  # without an answer, where nobody says how many servers there are

Rules = Mapping[tuple[str, int], str]
"""Rule by server id and connection id, as audit records tell."""


class State(IntEnum):
    """Which connections nats-server shall list."""

    OPEN = 0
    CLOSED = 1
    ALL = 2


class _Peer(msgspec.Struct):
    subject: str = ""


class _Row(msgspec.Struct):
    """A connection as nats-server's CONNZ writes it."""

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
    tls_cipher_suite: str = ""
    tls_peer_certs: list[_Peer] = []
    authorized_user: str = ""
    account: str = ""
    subscriptions_list: list[str] = []


class _Server(msgspec.Struct):
    id: str
    name: str = ""
    cluster: str = ""


class _Page(msgspec.Struct):
    total: int = 0
    connections: list[_Row] = []


class _Answer(msgspec.Struct):
    server: _Server
    data: _Page | None = None


class Connection(msgspec.Struct, frozen=True, kw_only=True):
    """One connection, as ``report conns --json`` shows it.

    Attributes:
        broker: the configured broker it was seen through.
        identity: who nats-server knows it as: the user JWT's name, or an nkey.
        tls: TLS version, None without TLS.
        peer: subject of the client certificate, None if it showed none.
        connected: when it began, RFC 3339.
        rule: what admitted it, None if no record tells.
        subjects: what it listens to, if that was asked for.
    """

    server: str
    server_id: str
    cluster: str
    broker: str
    account: str
    name: str
    identity: str
    ip: str
    port: int
    tls: str | None
    peer: str | None
    connected: str
    rule: str | None
    cid: int
    kind: str
    type: str
    lang: str
    version: str
    uptime: str
    idle: str
    rtt: str
    pending_bytes: int
    in_msgs: int
    out_msgs: int
    in_bytes: int
    out_bytes: int
    subscriptions: int
    subjects: tuple[str, ...] = ()
    stopped: str | None = None
    reason: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """Connections, and what is missing from them: one line for each broker or server not seen."""

    connections: tuple[Connection, ...]
    missing: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Ask:
    """What to ask servers for."""

    account: str | None = None
    state: State = State.OPEN
    subjects: bool = False

    def options(self, offset: int = 0) -> dict[str, Any]:
        """As nats-server's CONNZ takes them."""
        asked: dict[str, Any] = {"auth": True, "limit": PAGE, "offset": offset, "state": int(self.state)}
        asked |= {"subscriptions": True} if self.subjects else {}
        return asked | ({"acc": self.account} if self.account else {})


class Observer:
    """Keeps connections to the brokers between reports, for ``--watch``; an async context manager."""

    def __init__(self, access: Access) -> None:
        self.access = access
        self._stack = AsyncExitStack()
        self._system: dict[str, Client] = {}
        self._provisioner: Client | None = None

    async def __aenter__(self) -> Observer:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._stack.aclose()

    async def report(self, ask: Ask, rules: Rules | None = None) -> Report:
        """Everything seen now. What cannot be seen is said in the report, not raised."""
        found: dict[tuple[str, int], Connection] = {}
        missing: list[str] = []
        unseen: list[tuple[BrokerSettings, str]] = []
        known = Known(settings=self.access.settings, rules=rules or {})
        for broker in self.access.settings.brokers:
            try:
                client = await self._system_client(broker)
                answers, lost = await ask_system(client, ask)
            except OperationError as error:
                unseen.append((broker, str(error)))
                continue
            missing += [f"broker {broker.name}: {line}" for line in lost]
            found |= known.connections(answers, broker.name)
        if unseen:
            found_there, lines = await self._through_provisioning(ask, unseen, known)
            found = found_there | found
            missing += lines
        return Report(connections=tuple(found.values()), missing=tuple(missing))

    async def _system_client(self, broker: BrokerSettings) -> Client:
        client = self._system.get(broker.name)
        if client is None or client.is_closed:
            client = await self.access.system(broker)
            self._stack.push_async_callback(client.close)
            self._system[broker.name] = client
        return client

    async def _through_provisioning(
        self, ask: Ask, unseen: Sequence[tuple[BrokerSettings, str]], known: Known
    ) -> tuple[dict[tuple[str, int], Connection], list[str]]:
        """What a provisioner sees of brokers that hold the provisioning account alone."""
        provisioning = self.access.settings.accounts.provisioning
        edges = [item for item in unseen if item[0].role is Role.EDGE]
        lines = [said for broker, said in unseen if broker.role is not Role.EDGE]
        if not edges or ask.account not in (None, provisioning):
            return {}, lines  # nothing else than the provisioning account is on an edge
        try:
            client = await self._provisioner_client()
            answers = await _gather(client, "$SYS.REQ.ACCOUNT.PING.CONNZ", ask.options())
        except OperationError as error:
            how = f"nor does the provisioning account, for which --certificate and --key of a provisioner: {error}"
            return {}, [*lines, *(f"{said}; {how}" for _, said in edges)]
        through = "+".join(broker.name for broker, _ in edges)
        mentioned = [answer for answer in answers if answer.server.id not in known.seen]
        if not mentioned:
            return {}, [*lines, *(f"{said}; nor does it answer over the leaf link" for _, said in edges)]
        return known.connections(mentioned, through), lines

    async def _provisioner_client(self) -> Client:
        if self._provisioner is None or self._provisioner.is_closed:
            fleet = next((item for item in self.access.settings.brokers if item.role is Role.FLEET), None)
            if fleet is None:
                raise AccessError("no broker of role fleet is configured")
            self._provisioner = await self.access.provisioner(fleet)
            self._stack.push_async_callback(self._provisioner.close)
        return self._provisioner


@dataclass(frozen=True, slots=True, kw_only=True)
class Known:
    """What turns nats-server's rows into :class:`Connection`.

    Attributes:
        seen: ids of servers that answered.
    """

    settings: Settings
    rules: Rules
    seen: set[str] = field(default_factory=set)

    def connections(self, answers: Iterable[_Answer], broker: str) -> dict[tuple[str, int], Connection]:
        """The rows of these answers, by server and connection id."""
        rows = {}
        for answer in answers:
            self.seen.add(answer.server.id)
            for row in answer.data.connections if answer.data else ():
                rows[answer.server.id, row.cid] = self._connection(answer.server, row, broker)
        return rows

    def _connection(self, server: _Server, row: _Row, broker: str) -> Connection:
        return Connection(
            server=server.name,
            server_id=server.id,
            cluster=server.cluster,
            broker=broker,
            account=row.account,
            name=row.name,
            identity=row.authorized_user,
            ip=row.ip,
            port=row.port,
            tls=row.tls_version or None,
            peer=row.tls_peer_certs[0].subject if row.tls_peer_certs else None,
            connected=row.start,
            rule=self._rule(server, row),
            cid=row.cid,
            kind=row.kind,
            type=row.type,
            lang=row.lang,
            version=row.version,
            uptime=row.uptime,
            idle=row.idle,
            rtt=row.rtt,
            pending_bytes=row.pending_bytes,
            in_msgs=row.in_msgs,
            out_msgs=row.out_msgs,
            in_bytes=row.in_bytes,
            out_bytes=row.out_bytes,
            subscriptions=row.subscriptions,
            subjects=tuple(sorted(row.subscriptions_list)),
            stopped=row.stop or None,
            reason=row.reason or None,
        )

    def _rule(self, server: _Server, row: _Row) -> str | None:
        for zone in self.settings.zones:
            if row.authorized_user and row.authorized_user == zone.break_glass_nkey:
                return BREAK_GLASS
            if zone.nkey_seed is not None and row.authorized_user == public_nkey(zone.nkey_seed.reveal()):
                return AUTH_USER
        return self.rules.get((server.id, row.cid))


async def ask_system(client: Client, ask: Ask) -> tuple[list[_Answer], list[str]]:
    """Every page of every server that shares the system account, and a line for each that is silent."""
    heard = await request_json(client, "$SYS.REQ.SERVER.PING")
    expected = int((heard.get("statsz") or {}).get("active_servers") or 1)
    answers = await _gather(client, "$SYS.REQ.SERVER.PING.CONNZ", ask.options(), expected=expected)
    lost = [] if len(answers) >= expected else [f"{len(answers)} of {expected} servers answered"]
    pages = list(answers)
    for answer in answers:
        total = answer.data.total if answer.data else 0
        for offset in range(PAGE, total, PAGE):
            subject = f"$SYS.REQ.SERVER.{answer.server.id}.CONNZ"
            pages.append(_convert(await request_json(client, subject, ask.options(offset)), subject))
    return pages, lost


async def _gather(
    client: Client, subject: str, options: Mapping[str, Any], *, expected: int | None = None
) -> list[_Answer]:
    """The answers of several servers to one question, one of each."""
    answers: dict[str, _Answer] = {}
    queue: asyncio.Queue[bytes] = asyncio.Queue()

    async def keep(message: Msg) -> None:
        queue.put_nowait(message.data)

    inbox = client.new_inbox()
    try:
        subscription = await client.subscribe(inbox, cb=keep)
        await client.publish(subject, msgspec.json.encode(options), reply=inbox)
        while expected is None or len(answers) < expected:
            patience = GATHER_SECONDS if expected is not None or not answers else QUIET_SECONDS
            try:
                data = await asyncio.wait_for(queue.get(), patience)
            except TimeoutError:
                break
            answer = _convert(decode(data, subject), subject)
            answers[answer.server.id] = answer
        await subscription.unsubscribe()
    except NatsError as error:
        raise OperationError(f"{subject}: {error}") from error
    return list(answers.values())


def _convert(answer: Mapping[str, Any], subject: str) -> _Answer:
    if said := answer.get("error"):
        raise OperationError(f"{subject}: {said.get('description', 'refused')}")
    try:
        return msgspec.convert(answer, _Answer, strict=False)
    except msgspec.ValidationError as error:
        raise OperationError(f"{subject}: the answer is not what nats-server 2.12 to 2.15 sends: {error}") from error
