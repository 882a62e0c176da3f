"""Sessions whose credential ends soon, or has ended: who can connect again only with another credential, and when.

nats-server does not report when a session ends; audit records do. A session without a record is counted as unknown.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from itertools import groupby
from typing import Final

from broker_auth.audit.record import AuditRecord, Record
from broker_auth.operate.report.auth_users import AUTH_USER, BREAK_GLASS, KICK, READER
from broker_auth.operate.report.connections import Connection
from broker_auth.policy.decision import Rule

HORIZONS: Final = (1, 7, 30)  # days, of metrics
_RULES: Final = (Rule.PROVISIONER, Rule.SYSTEM, Rule.CLIENT, Rule.SERVER, Rule.PROVISIONING, Rule.VERIFIED_TLS)

SessionKey = tuple[str, int]
"""Server id and connection id."""


@dataclass(frozen=True, slots=True)
class ExpiringSession:
    """A session, and the record of its admission."""

    connection: Connection
    record: AuditRecord
    credential_ends: datetime
    session_ends: datetime

    @property
    def credential(self) -> str:
        """The credential, for operators."""
        if self.record.token_id:
            return f"token {self.record.token_id} of {self.record.signer}"
        return f"certificate sha256:{self.record.fingerprint}" if self.record.fingerprint else ""


@dataclass(frozen=True, slots=True)
class Wave:
    """The sessions whose credentials end on one day (UTC), at least one."""

    day: date
    sessions: tuple[ExpiringSession, ...]

    @property
    def identities(self) -> int:
        """The number of identities that have these sessions."""
        return len({one.connection.identity for one in self.sessions})

    @property
    def first(self) -> datetime:
        """The time at which the first of the credentials ends."""
        return self.sessions[0].credential_ends

    @property
    def last(self) -> datetime:
        """The time at which the last of the credentials ends."""
        return self.sessions[-1].credential_ends


@dataclass(frozen=True, slots=True)
class ExpiryReport:
    """All sessions whose end is known, by the end of their credential, and the number of the others."""

    sessions: tuple[ExpiringSession, ...]
    unknown: int = 0

    def within(self, until: datetime) -> tuple[ExpiringSession, ...]:
        """Return the sessions whose credential ends by ``until``, or has ended."""
        return tuple(one for one in self.sessions if one.credential_ends <= until)


def admissions(records: Iterable[Record], sessions: Iterable[SessionKey]) -> dict[SessionKey, AuditRecord]:
    """Return the records that admitted these sessions, without keeping any other in memory."""
    expected = frozenset(sessions)
    return {
        key: record
        for record in records
        if isinstance(record, AuditRecord)
        and record.decision == "admit"
        and (key := (record.server_id, record.cid)) in expected
    }


def expiry_report(connections: Iterable[Connection], records: Mapping[SessionKey, AuditRecord]) -> ExpiryReport:
    """Return when the credentials of these connections end, except the command's own and those that never end."""
    sessions: list[ExpiringSession] = []
    unknown = 0
    for item in connections:
        if item.own:
            continue
        record = records.get((item.server_id, item.cid))
        if record is None:
            unknown += item.kind == "Client" and item.rule not in (AUTH_USER, BREAK_GLASS, KICK, READER)
        elif record.expires is not None and record.credential_ends is not None:
            sessions.append(ExpiringSession(item, record, record.credential_ends, record.expires))
    sessions.sort(key=lambda one: (one.credential_ends, one.connection.identity, one.connection.cid))
    return ExpiryReport(tuple(sessions), unknown)


def waves(sessions: Sequence[ExpiringSession]) -> tuple[Wave, ...]:
    """Return sessions, sorted by the end of their credential, by day."""
    return tuple(Wave(day, tuple(some)) for day, some in groupby(sessions, lambda one: one.credential_ends.date()))


@dataclass(frozen=True, slots=True)
class ExpiryMetrics:
    """The numbers of sessions.

    Attributes:
        expiring: those whose credential ends, by rule and :data:`HORIZONS`.
        expired: those whose credential has ended, by rule.
    """

    expiring: Mapping[tuple[Rule, int], int]
    expired: Mapping[Rule, int]


def expiry_metrics(report: ExpiryReport, now: datetime) -> ExpiryMetrics:
    """Count the sessions of each rule."""
    expiring: Counter[tuple[Rule, int]] = Counter({(rule, days): 0 for rule in _RULES for days in HORIZONS})
    expired: Counter[Rule] = Counter(dict.fromkeys(_RULES, 0))
    for one in report.sessions:
        if (rule := _rule(one.record)) is None:
            continue
        left = one.credential_ends - now
        if left <= timedelta(0):
            expired[rule] += 1
            continue
        for days in HORIZONS:
            expiring[rule, days] += left <= timedelta(days=days)
    return ExpiryMetrics(expiring, expired)


def _rule(record: AuditRecord) -> Rule | None:
    return next((rule for rule in _RULES if rule == record.rule), None)
