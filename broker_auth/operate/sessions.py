"""Ends the sessions that something revoked let in, on every server that can be asked (facts 20 and 21).

nats-server shows of a session the name in its user JWT, its address and the fingerprint of its certificate, but neither
its token nor the tags of its user JWT (fact 20). For tokens, chain issuers and signers the audit records of this host
say which sessions they let in; a session without a record is reported.
"""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import Final

from broker_auth.audit.record import AuditRecord
from broker_auth.certificates.peer import PeerIdentity
from broker_auth.errors import OperationError
from broker_auth.natsio.client import SecuredClient
from broker_auth.natsio.nkey import public_nkey
from broker_auth.operate.access import Access, refusal, request_json
from broker_auth.operate.report.gathering import Ask, Row, Server, ask_system
from broker_auth.policy.decision import Rule
from broker_auth.policy.revocations import Revocation, RevocationKind, Revocations
from broker_auth.settings.model import BrokerSettings, Role

_SETTLE_SECONDS: Final = 2.0  # a client is admitted within this time after it was decided about (fact 10)
_GONE_SECONDS: Final = 0.5
_AT_ONCE: Final = 32  # requests to end a session, to one broker
_FINGERPRINT: Final = re.compile(r"[0-9a-f]{64}")
_BY_RECORD: Final = frozenset({RevocationKind.TOKEN_ID, RevocationKind.CHAIN_ISSUER, RevocationKind.SIGNER})
_BY_ROW: Final = frozenset(
    {RevocationKind.IDENTITY, RevocationKind.CERTIFICATE, RevocationKind.NODE, RevocationKind.NETWORK}
)
_NEVER_AT_EDGES: Final = frozenset(
    {RevocationKind.KEY, RevocationKind.CHAIN_ISSUER, RevocationKind.CERTIFICATE, RevocationKind.SERIAL}
)

Records = Mapping[tuple[str, int], AuditRecord]
"""The record that admitted each session, by server id and connection id."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Session:
    """A session to be ended.

    Attributes:
        broker: the configured broker that it was seen through.
        identity: the name in its user JWT.
    """

    broker: str
    server: str
    server_id: str
    cid: int
    identity: str
    account: str
    ip: str

    @property
    def description(self) -> str:
        """One line for operators."""
        return f"{self.identity or 'unnamed'} in account {self.account}, from {self.ip}, on {self.server}"


@dataclass(frozen=True, slots=True)
class EndedSessions:
    """The sessions that were ended, and a line for each thing that may be left."""

    ended: tuple[Session, ...]
    missing: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class SessionTarget:
    """The sessions to end.

    Attributes:
        entries: what was revoked.
        token_ids: the id of a token that was revoked by its SHA-256.
        everybody: end every session; those that may come back do.
    """

    entries: Sequence[Revocation]
    token_ids: Mapping[str, str]
    everybody: bool = False


class SessionEnder:
    """Connections to the system account of every broker, made before anything is revoked; an async context manager."""

    def __init__(self, access: Access, target: SessionTarget, records: Callable[[], Records]) -> None:
        """Connect to nothing yet.

        Args:
            access: how to log in.
            target: which sessions to end.
            records: reads the audit records of this host.
        """
        self._access = access
        self._records = records
        self._everybody = target.everybody
        self._by_row = Revocations.of(entry for entry in target.entries if entry.kind in _BY_ROW)
        self._kinds = {entry.kind for entry in target.entries}
        self._by_record = {(e.kind, e.value) for e in target.entries if e.kind in _BY_RECORD}
        self._unknown: list[str] = []
        for entry in target.entries:
            if entry.value in target.token_ids:
                self._by_record.add((RevocationKind.TOKEN_ID, target.token_ids[entry.value]))
            elif entry.kind not in _BY_RECORD | _BY_ROW and not target.everybody:
                self._unknown.append(
                    f"sessions of {entry.kind} {entry.value} cannot be told from others; give --sessions all to end "
                    "every session: those that may come back do"
                )
        self._clients: dict[str, SecuredClient] = {}
        self._unreached: list[str] = []
        self._stack = AsyncExitStack()

    async def __aenter__(self) -> SessionEnder:
        """Log in to each broker whose sessions may be concerned."""
        for broker in self._access.settings.brokers:
            if broker.role is Role.EDGE and not self._concerns_edges:
                continue
            await self._log_in(broker)
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._stack.aclose()

    @property
    def _concerns_edges(self) -> bool:
        """Whether a waiting node, or a provisioner at an edge, may be concerned."""
        never = _NEVER_AT_EDGES
        if self._access.settings.provisioning.require_mtls:
            never |= {RevocationKind.IDENTITY}
        return self._everybody or not self._kinds <= never

    async def _log_in(self, broker: BrokerSettings) -> None:
        try:
            client = await self._access.ender(broker)
        except OperationError as error:
            self._unreached.append(f"broker {broker.name} was not asked: {error}")
            return
        assert isinstance(client, SecuredClient)
        self._clients[broker.name] = client
        self._stack.push_async_callback(client.close)

    async def find(self) -> EndedSessions:
        """Return the sessions that would be ended now."""
        matching, missing = await self._find()
        return EndedSessions(tuple(matching), (*self._unreached, *self._unknown, *missing))

    async def end(self) -> EndedSessions:
        """End the sessions, after every worker has confirmed; twice, because some logins were still in progress."""
        ended: dict[tuple[str, int], Session] = {}
        for wait in (_SETTLE_SECONDS,) if self._everybody else (0.0, _SETTLE_SECONDS):
            await asyncio.sleep(wait)
            matching, _ = await self._find()
            await self._kick(matching)
            ended |= {(one.server_id, one.cid): one for one in matching}
        await asyncio.sleep(_GONE_SECONDS)
        left, missing = await self._find()
        if self._everybody:
            left = [one for one in left if (one.server_id, one.cid) in ended]
        lines = [f"remains, or is let in by a service that does not know yet: {one.description}" for one in left]
        return EndedSessions(tuple(ended.values()), (*self._unreached, *self._unknown, *missing, *lines))

    async def _find(self) -> tuple[list[Session], list[str]]:
        records = self._records() if self._by_record else {}
        matching: list[Session] = []
        missing: list[str] = []
        for name, client in self._clients.items():
            try:
                gathered = await ask_system(client, Ask())
            except OperationError as error:
                missing.append(f"broker {name}: {error}")
                continue
            missing += [f"broker {name}: {line}" for line in gathered.missing]
            unrecorded = 0
            for answer in gathered.answers:
                for row in answer.rows:
                    record = records.get((answer.server.id, row.cid))
                    if self._is_other(answer.server, row, client):
                        continue
                    if self._everybody or self._matches(row, record):
                        matching.append(_session(name, answer.server, row))
                    elif self._by_record and record is None:
                        unrecorded += 1
            if unrecorded:
                missing.append(
                    f"broker {name}: {unrecorded} sessions have no audit record on this host, so what let them in is "
                    "not known; give --sessions all to end every session: those that may come back do"
                )
        return matching, missing

    def _is_other(self, server: Server, row: Row, own: SecuredClient) -> bool:
        """Return whether a connection is this command's, or none that the service admitted."""
        if row.kind != "Client" or (server.id, row.cid) == (own.server_id, own.client_id):
            return True
        zones = self._access.settings.zones
        users = {user for zone in zones for user in (zone.break_glass_nkey, zone.kick_nkey) if user is not None}
        users |= {public_nkey(zone.nkey_seed.reveal()) for zone in zones if zone.nkey_seed is not None}
        return row.authorized_user in users

    def _matches(self, row: Row, record: AuditRecord | None) -> bool:
        is_node = self._is_node(row, record)
        shown = row.tls_peer_certs[0].cert_sha256 if row.tls_peer_certs else ""
        names = () if is_node else (row.authorized_user,)
        peer = PeerIdentity(
            common_name="",
            sans=(),
            names=names,
            not_after=0.0,
            fingerprint=shown if _FINGERPRINT.fullmatch(shown) else "",
        )
        if self._by_row.find(None, peer, row.name if is_node else "", row.ip, time.time()) is not None:
            return True
        return record is not None and any(self._recorded(kind, value, record) for kind, value in self._by_record)

    def _is_node(self, row: Row, record: AuditRecord | None) -> bool:
        if record is not None:
            return record.rule == Rule.PROVISIONING
        in_account = row.account == self._access.settings.accounts.provisioning
        return in_account and not row.tls_peer_certs and row.name == row.authorized_user

    @staticmethod
    def _recorded(kind: RevocationKind, value: str, record: AuditRecord) -> bool:
        match kind:
            case RevocationKind.TOKEN_ID:
                return record.token_id == value
            case RevocationKind.CHAIN_ISSUER:
                return record.issuer_id == value
            case _:
                return record.signer == value or record.signer.startswith(f"{value} via ")

    async def _kick(self, sessions: Iterable[Session]) -> None:
        """Ask the server of each session to end it; what does not end is matching again."""
        places = asyncio.Semaphore(_AT_ONCE)

        async def kick(session: Session) -> None:
            async with places:
                try:
                    subject = f"$SYS.REQ.SERVER.{session.server_id}.KICK"
                    refusal(await request_json(self._clients[session.broker], subject, {"cid": session.cid}))
                except OperationError:
                    return

        await asyncio.gather(*(kick(session) for session in sessions))


def admitted(records: Iterable[AuditRecord]) -> Records:
    """Return the records of admissions by session, the latest of each."""
    return {(item.server_id, item.cid): item for item in records if item.decision == "admit"}


def _session(broker: str, server: Server, row: Row) -> Session:
    return Session(
        broker=broker,
        server=server.name,
        server_id=server.id,
        cid=row.cid,
        identity=row.authorized_user,
        account=row.account,
        ip=row.ip,
    )
