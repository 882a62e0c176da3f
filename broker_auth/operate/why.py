"""``why``: recent decisions about a client, from audit records, with causes and remedies."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

import msgspec

from broker_auth.audit.record import AuditRecord, Record, ServerErrorRecord
from broker_auth.cache import BoundedCache
from broker_auth.operate.remedies import REMEDIES, Remedy

_MAX_MATCHES: Final = 50_000  # connections; the oldest are forgotten
_Key = tuple[str, str, int]

_ALONE: Final = Remedy(
    "nats-server refused the connection, and no decision is recorded for it: no service answered in time, or the "
    "client gave up or sent nothing usable before the callout.",
    "Check whether a service is subscribed at this broker (`/readyz`, `ready brokers=` in the log), check "
    "`broker_auth_unanswered_total`, and look for a decision in the records of other hosts.",
)
_LOST: Final = Remedy(
    "The service admitted it, but nats-server refused it: the answer was late, or nats-server could not use it.",
    "Compare the clocks, check `broker_auth_in_flight`, and read nats-server's log for the reason.",
)
_IN: Final = Remedy("It was admitted.", "")


@dataclass(frozen=True, slots=True)
class ConnectionHistory:
    """The records of one connection: the decision, nats-server's report, or both."""

    decision: AuditRecord | None
    error: ServerErrorRecord | None

    @property
    def time(self) -> datetime:
        """Time of the decision, else of the refusal."""
        return self.record.time

    @property
    def remedy(self) -> Remedy:
        """Cause and remedy."""
        if self.decision is None:
            return _ALONE
        if self.decision.decision == "admit":
            return _LOST if self.error else _IN
        unknown = Remedy(
            "This version does not know the code.", "See the documentation of the version that the service runs."
        )
        return REMEDIES.get(self.decision.code, unknown)

    @property
    def record(self) -> Record:
        """The decision, else nats-server's report."""
        record = self.decision or self.error
        assert record is not None  # there is at least one of them
        return record

    def document(self) -> dict[str, Any]:
        """Return the document for ``--json``."""
        return {
            "decision": None if self.decision is None else msgspec.to_builtins(self.decision),
            "server_error": None if self.error is None else msgspec.to_builtins(self.error),
            "cause": self.remedy.cause,
            "remedy": self.remedy.remedy or None,
        }


def find_connections(records: Iterable[Record], identity: str) -> list[ConnectionHistory]:
    """Return the connections of a name, user, host, connection, token or chain issuer id, newest last."""
    decisions: BoundedCache[_Key, AuditRecord] = BoundedCache(_MAX_MATCHES)
    errors: BoundedCache[_Key, ServerErrorRecord] = BoundedCache(_MAX_MATCHES)
    for record in records:
        key = (
            record.zone,
            record.server_id,
            record.cid,
        )  # within a zone a broker may report about another broker's server
        if isinstance(record, ServerErrorRecord):
            errors.put(key, record)
        elif _is_about(record, identity):
            decisions.put(key, record)
    matches = [ConnectionHistory(decision, errors.get(key)) for key, decision in decisions.items()]
    matches += [
        ConnectionHistory(None, error)
        for key, error in errors.items()
        if decisions.get(key) is None and _is_about(error, identity)
    ]
    return sorted(matches, key=lambda history: history.time)


def _is_about(record: Record, identity: str) -> bool:
    names = [record.name, record.user, record.host, str(record.cid)]
    if isinstance(record, AuditRecord):
        names += [record.client, record.token_id, record.issuer_id, record.fingerprint, f"sha256:{record.fingerprint}"]
        names += record.certificate_names
    return identity.casefold() in (name.casefold() for name in names if name)
