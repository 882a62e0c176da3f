"""Chooses the sessions that would not be admitted now, for ``broker-auth sweep``.

A session is judged by its audit record: with its request by every rule of the configuration, without it by what was
revoked. Sessions that cannot be judged are neither chosen nor spared, but counted.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Final

from broker_auth.audit.admissions import BY_RECORD, recorded, shown_by_record
from broker_auth.audit.record import AuditRecord
from broker_auth.hosts.questions import Place
from broker_auth.operate.replay.judge import Judge, Judgement
from broker_auth.operate.report.gathering import Row, Server
from broker_auth.operate.session_records import ReadRecords, SessionRecords, is_node, revoked_by_row
from broker_auth.operate.sessions import Choice
from broker_auth.policy.decide import explained
from broker_auth.policy.decision import Admit, DenyCode
from broker_auth.policy.revocation_index import Revocations
from broker_auth.policy.revocations import RevocationKind, Revoked
from broker_auth.settings.model import BrokerSettings, Settings

OTHER_ACCOUNT: Final = "other_account"  # beside the denial codes: it would be placed in another account
_SPARED: Final = Choice(ends=False)
_NO_RECORD: Final = Choice(
    ends=False, unknown="without an audit record in these files; name those of the other hosts with --audit"
)
_NO_REQUEST: Final = Choice(
    ends=False, unknown="whose audit record holds no request; set plugin.broker_auth.audit.requests = sample"
)
_FULL: Final = Choice(
    ends=False, unknown="of waiting nodes that a lower limit of connections may keep out, depending on who is first"
)


class UnadmittedSessions:
    """A selector of the sessions that a configuration and the revocations in force would not admit now."""

    everybody: Final = False

    def __init__(self, settings: Settings, read: ReadRecords, clock: Callable[[], float] = time.time) -> None:
        """Prepare the policies; read no record yet.

        Args:
            settings: the configuration.
            read: reads audit records.
            clock: returns Unix seconds.

        Raises:
            InputError: a file that the configuration names cannot be used.
        """
        self._settings = settings
        self._records = SessionRecords(read)
        self._clock = clock
        self._judge = Judge(settings)
        self._revoked: Mapping[str, tuple[Revocations, dict[tuple[RevocationKind, str], float]]] = {
            zone.name: _revocations(self._judge, zone.name) for zone in settings.zones
        }

    def concerns(self, broker: BrokerSettings) -> bool:
        """Return whether the broker's sessions are admitted by the service."""
        return self._settings.zone(broker.zone).served

    def refresh(self) -> None:
        """Read the audit records again."""
        self._records.refresh()

    async def inquire(self, _: Sequence[Place], /) -> bool:
        """Ask nobody: other hosts do not send the requests in their records, which are too large for that."""
        return False

    def choose(self, broker: BrokerSettings, server: Server, row: Row) -> Choice:
        """Return whether a session would not be admitted now."""
        record = self._records.of(broker.zone, server, row)
        now = self._clock()
        node = is_node(row, record, self._settings.accounts)
        index, terms = self._revoked[broker.zone]
        revoked = revoked_by_row(index, row, node=node, now=now)
        if revoked is None and record is not None:
            shown = (key for key in shown_by_record(record) if now < terms.get(key, 0.0))
            revoked = next((Revoked(kind, value) for kind, value in shown), None)
        if revoked is not None:
            return Choice(ends=True, code=DenyCode.REVOKED, reason=f"{DenyCode.REVOKED}: {revoked.detail}")
        if record is None:
            return _NO_RECORD
        stored = self._records.request_of(record, row)
        return _NO_REQUEST if stored is None else _judged(self._judge.decide(stored, _moment(record, now)), row)


def _moment(record: AuditRecord, now: float) -> float:
    """Return the time to decide for: that of the session's grace is granted, so its credential counts as valid."""
    if not record.grace or record.credential_ends is None:
        return now
    return min(now, record.credential_ends.timestamp() - 1)


def _revocations(judge: Judge, zone: str) -> tuple[Revocations, dict[tuple[RevocationKind, str], float]]:
    """Return a zone's revocations, and the ends of those that a record alone shows to apply."""
    policy = judge.policy(zone)
    assert policy is not None
    index = policy.revocations
    whole = ((kind, value, term) for kind, value, term in index.items() if kind in BY_RECORD)
    return index, {recorded(kind, value): term.until for kind, value, term in whole if term.before == float("inf")}


def _judged(judgement: Judgement, row: Row) -> Choice:
    decision = judgement.decision
    if decision is None or judgement.unknown:
        return Choice(ends=False, unknown=f"about which the audit record does not say: {', '.join(judgement.unknown)}")
    if not isinstance(decision, Admit):
        if decision.code is DenyCode.PROVISIONING_FULL:
            return _FULL
        return Choice(ends=True, code=decision.code.value, reason=explained(decision))
    if decision.account != row.account:
        reason = f"{OTHER_ACCOUNT}: it would be placed in the account {decision.account}"
        return Choice(ends=True, code=OTHER_ACCOUNT, reason=reason)
    return _SPARED
