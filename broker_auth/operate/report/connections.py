"""Who is connected, on every server of every configured broker (fact 20).

Servers answer in the system account. A broker whose system account does not open to the configuration
(an edge: it asks for no certificate, and its system account is not linked with the fleet's) is seen
through the provisioning account instead, where a provisioner's request crosses the leaf link.

nats-server does not tell which rule admitted a connection; audit records do, and where there are none
the rule is left open, except for users that are let in without the service.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from typing import Final

import msgspec
from nats.aio.client import Client

from broker_auth.errors import OperationError
from broker_auth.natsio.nkey import public_nkey
from broker_auth.operate.access import Access, AccessError
from broker_auth.operate.report.gathering import Answer, Ask, Row, Server, ask_system, gather
from broker_auth.settings.model import BrokerSettings, Role, Settings

AUTH_USER: Final = "auth_user"  # the service itself: listed in `auth_users`, never called out for
BREAK_GLASS: Final = "break_glass"

Rules = Mapping[tuple[str, int], str]
"""Rule by server id and connection id, as audit records tell."""


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
                gathered = await ask_system(client, ask)
            except OperationError as error:
                unseen.append((broker, str(error)))
                continue
            missing += [f"broker {broker.name}: {line}" for line in gathered.missing]
            found |= known.connections(gathered.answers, broker.name)
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
            gathered = await gather(client, "$SYS.REQ.ACCOUNT.PING.CONNZ", ask)
        except OperationError as error:
            how = f"nor does the provisioning account, for which --certificate and --key of a provisioner: {error}"
            return {}, [*lines, *(f"{said}; {how}" for _, said in edges)]
        through = "+".join(broker.name for broker, _ in edges)
        lines += [f"over the leaf link of {through}: {line}" for line in gathered.missing]
        mentioned = [answer for answer in gathered.answers if answer.server.id not in known.seen]
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

    def connections(self, answers: Iterable[Answer], broker: str) -> dict[tuple[str, int], Connection]:
        """The rows of these answers, by server and connection id."""
        rows = {}
        for answer in answers:
            self.seen.add(answer.server.id)
            for row in answer.data.connections if answer.data else ():
                rows[answer.server.id, row.cid] = self._connection(answer.server, row, broker)
        return rows

    def _connection(self, server: Server, row: Row, broker: str) -> Connection:
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

    def _rule(self, server: Server, row: Row) -> str | None:
        for zone in self.settings.zones:
            if row.authorized_user and row.authorized_user == zone.break_glass_nkey:
                return BREAK_GLASS
            if zone.nkey_seed is not None and row.authorized_user == public_nkey(zone.nkey_seed.reveal()):
                return AUTH_USER
        return self.rules.get((server.id, row.cid))
