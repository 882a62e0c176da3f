"""The connections on every server of every configured broker (fact 20).

Servers are queried in the system account. A broker whose system account is not accessible with the configured
credentials (an edge, whose system account is separate from the fleet's) is queried through the provisioning account
instead, where a provisioner's request crosses the leaf link.

nats-server does not report which rule admitted a connection, but audit records do. Without a record the rule is
unknown, except for users that are admitted without the service.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field

import msgspec
from nats.aio.client import Client

from broker_auth.errors import OperationError
from broker_auth.natsio.natspy import ExtendedClient
from broker_auth.operate.access import Access
from broker_auth.operate.logins import AccessError
from broker_auth.operate.report.auth_users import auth_user
from broker_auth.operate.report.gathering import Answer, Ask, Row, Server, ask_system, gather
from broker_auth.settings.model import BrokerSettings, Role, Settings

Rules = Mapping[tuple[str, int], str]
"""Rules from audit records, by server id and connection id."""


class Connection(msgspec.Struct, frozen=True, kw_only=True):
    """A connection, as shown by ``report conns --json``.

    Attributes:
        broker: the configured broker that reported it.
        identity: nats-server's name for it: the user JWT's name, or an nkey.
        tls: TLS version, None without TLS.
        peer: subject of the client certificate, None without one.
        connected: start time, RFC 3339.
        rule: the rule that admitted it, None if unknown.
        own: whether it is a connection of this command.
        subjects: its subscriptions, if requested.
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
    own: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class ConnectionsReport:
    """Connections, and what the report lacks.

    Attributes:
        missing: a line for each broker or server that could not be queried.
        partial: the brokers of which only the provisioning account is visible.
    """

    connections: tuple[Connection, ...]
    missing: tuple[str, ...] = ()
    partial: tuple[str, ...] = ()


class Observer:
    """A client that queries the brokers and keeps its connections for ``--watch``; an async context manager."""

    def __init__(self, access: Access) -> None:
        self.access = access
        self._stack = AsyncExitStack()
        self._system: dict[str, Client] = {}
        self._provisioner: Client | None = None

    async def __aenter__(self) -> Observer:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._stack.aclose()

    async def report(self, ask: Ask, rules: Rules | None = None) -> ConnectionsReport:
        """Return the current connections; errors are part of the report, not raised."""
        connections: dict[tuple[str, int], Connection] = {}
        missing: list[str] = []
        unseen: list[tuple[BrokerSettings, str]] = []
        partial: tuple[str, ...] = ()
        known = ConnectionReader(settings=self.access.settings, rules=rules or {})
        for broker in self.access.settings.brokers:
            try:
                client = await self._system_client(broker)
                gathered = await ask_system(client, ask)
            except OperationError as error:
                unseen.append((broker, str(error)))
                continue
            missing += [f"broker {broker.name}: {line}" for line in gathered.missing]
            connections |= known.connections(gathered.answers, broker.name)
        if unseen:
            over_leaf, lines, partial = await self._through_provisioning(ask, unseen, known)
            connections = over_leaf | connections
            missing += lines
        own = self._own()
        return ConnectionsReport(
            connections=tuple(
                msgspec.structs.replace(item, own=True) if key in own else item for key, item in connections.items()
            ),
            missing=tuple(missing),
            partial=partial,
        )

    def _own(self) -> set[tuple[str, int | None]]:
        """Return server id and connection id of each connection of this command."""
        clients = [*self._system.values(), *([self._provisioner] if self._provisioner else [])]
        return {(client.server_id, client.client_id) for client in clients if isinstance(client, ExtendedClient)}

    async def _system_client(self, broker: BrokerSettings) -> Client:
        client = self._system.get(broker.name)
        if client is None or client.is_closed:
            client = await self.access.system(broker)
            self._stack.push_async_callback(client.close)
            self._system[broker.name] = client
        return client

    async def _through_provisioning(
        self, ask: Ask, unseen: Sequence[tuple[BrokerSettings, str]], known: ConnectionReader
    ) -> tuple[dict[tuple[str, int], Connection], list[str], tuple[str, ...]]:
        """Return what a provisioner can query about edges, what is missing, and the edges that are seen in part."""
        provisioning = self.access.settings.accounts.provisioning
        edges = [item for item in unseen if item[0].role is Role.EDGE]
        lines = [problem for broker, problem in unseen if broker.role is not Role.EDGE]
        partial = tuple(broker.name for broker, _ in edges) if ask.account != provisioning else ()
        if not edges or ask.account not in (None, provisioning):
            return {}, lines, partial  # a provisioner sees only the provisioning account
        try:
            client = await self._provisioner_client()
            gathered = await gather(client, "$SYS.REQ.ACCOUNT.PING.CONNZ", ask)
        except OperationError as error:
            how = f"--certificate and --key of a provisioner would show their provisioning accounts, but: {error}"
            return {}, [*lines, *self._invisible(edges, how)], ()
        through = "+".join(broker.name for broker, _ in edges)
        lines += [f"over the leaf link of {through}: {line}" for line in gathered.missing]
        mentioned = [answer for answer in gathered.answers if answer.server.id not in known.seen]
        if not mentioned:
            return {}, [*lines, *self._invisible(edges, "no server answers over a leaf link")], ()
        return known.connections(mentioned, through), lines, partial

    def _invisible(self, edges: Sequence[tuple[BrokerSettings, str]], how: str) -> list[str]:
        """Return one line for all edges without break-glass seed, and one for each login that failed."""
        without = [broker.name for broker, _ in edges if self.access.break_glass_of(broker) is None]
        lines = [problem for broker, problem in edges if broker.name not in without]
        if without:
            lines.append(f"{', '.join(without)}: invisible without --break-glass SEED of each zone; {how}")
        return lines

    async def _provisioner_client(self) -> Client:
        if self._provisioner is None or self._provisioner.is_closed:
            fleet = next((item for item in self.access.settings.brokers if item.role.verifies_clients), None)
            if fleet is None:
                raise AccessError(
                    "no broker of role fleet or mixed is configured; add one to plugin.broker_auth.brokers"
                )
            self._provisioner = await self.access.provisioner(fleet)
            self._stack.push_async_callback(self._provisioner.close)
        return self._provisioner


@dataclass(frozen=True, slots=True, kw_only=True)
class ConnectionReader:
    """A converter of nats-server's rows to :class:`Connection`.

    Attributes:
        seen: ids of servers that answered.
    """

    settings: Settings
    rules: Rules
    seen: set[str] = field(default_factory=set)

    def connections(self, answers: Iterable[Answer], broker: str) -> dict[tuple[str, int], Connection]:
        """Return the connections in these answers, by server and connection id."""
        rows = {}
        for answer in answers:
            self.seen.add(answer.server.id)
            for row in answer.rows:
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
        users = (auth_user(zone, row, self.settings.accounts.system) for zone in self.settings.zones)
        return next(filter(None, users), None) or self.rules.get((server.id, row.cid))
