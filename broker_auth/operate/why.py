"""``why``: recent decisions about a client, from audit records, with causes and remedies."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

import msgspec

from broker_auth.audit.record import AuditRecord, Record, ServerErrorRecord
from broker_auth.cache import BoundedCache
from broker_auth.callout.chain_issuers import warning
from broker_auth.callout.skew import describe
from broker_auth.operate.remedies import REMEDIES, Remedy
from broker_auth.policy.decision import Rule
from broker_auth.tokens.chain import WARNING_SECONDS

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
_USER_SUFFIX: Final = ".mcollective"
_NOT_ROOT: Final = (
    "this is the name of a Choria Server that does not run as root: it subscribes under its identity, which isolation "
    "denies (nats-server logs a permissions violation), so no provisioner reaches it; run it as root, use protocol 2, "
    "or set plugin.broker_auth.provisioning.isolate_nodes = false"
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
        return self._record.time

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
    def _record(self) -> Record:
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

    def lines(self) -> Iterator[str]:
        """Yield the lines of the text output."""
        record, decision = self._record, self.decision
        verdict = "REFUSED" if decision is None else {"admit": "admitted", "deny": "DENIED"}[decision.decision]
        user = f" as user {record.user}" if record.user else ""
        where = f"connection {record.cid} on {record.server or 'an unknown server'}{_by(record)}"
        yield (
            f"{record.time:%Y-%m-%d %H:%M:%S} UTC  {verdict}  {record.name or 'unnamed'}{user} "
            f"from {record.host or 'an unknown host'}, {where}"
        )
        if decision is not None:
            yield f"  rule {decision.rule_number} ({decision.rule}): {decision.reason}"
            yield from _facts(decision)
            yield from _chain_issuer(decision)
            if decision.certificate_problem:
                yield f"  the certificate: {decision.certificate_problem}"
            if _is_named_after_its_user(decision):
                yield f"  note: {_NOT_ROOT}"
        if record.clock_skew:
            yield f"  first: {describe(record.clock_skew, record.server)}; synchronize both clocks"
        if self.error is not None:
            yield f"  nats-server: {self.error.reason or 'no reason, which means that no answer came in time'}"
        if decision is None or decision.decision == "deny" or self.error is not None:
            yield f"  why: {self.remedy.cause}"
            yield f"  what to do: {self.remedy.remedy}"


def _is_named_after_its_user(decision: AuditRecord) -> bool:
    """Return whether a waiting node connected under the certificate name of an ordinary user (protocol 1)."""
    return decision.decision == "admit" and decision.rule == Rule.PROVISIONING and decision.name.endswith(_USER_SUFFIX)


def _by(record: Record) -> str:
    """Return the reporting broker: only that is verified, the server's name is a claim of the broker."""
    if not record.broker:
        return ""
    return f" (reported by broker {record.broker}{f' of zone {record.zone}' if record.zone else ''})"


def _facts(decision: AuditRecord) -> Iterator[str]:
    facts = (
        ("account", decision.account),
        ("calls itself", decision.client),
        ("token", decision.token_id),
        ("signed by", decision.signer),
        ("chain issuer", decision.issuer_id),
        ("certificate", decision.fingerprint and f"sha256:{decision.fingerprint}"),
        ("of", ", ".join(decision.certificate_names)),
        ("until", decision.expires and f"{decision.expires:%Y-%m-%d %H:%M:%S} UTC"),
        ("TLS", decision.tls),
    )
    shown = ", ".join(f"{name} {value}" for name, value in facts if value)
    if shown:
        yield f"  {shown}"


def _chain_issuer(decision: AuditRecord) -> Iterator[str]:
    """Yield a warning if the chain issuer had ended or was about to end at the time of the decision."""
    if decision.issuer_ends is None:
        return
    now, ends = decision.time.timestamp(), decision.issuer_ends.timestamp()
    if ends - now < WARNING_SECONDS:
        yield f"  {warning(decision.issuer_id, ends, now)}"


def find_connections(records: Iterable[Record], identity: str, last: int) -> list[ConnectionHistory]:
    """Return the ``last`` connections of a name, user, host, connection, token or chain issuer id, newest last."""
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
    return sorted(matches, key=lambda history: history.time)[-last:]


def _is_about(record: Record, identity: str) -> bool:
    names = [record.name, record.user, record.host, str(record.cid)]
    if isinstance(record, AuditRecord):
        names += [record.client, record.token_id, record.issuer_id, record.fingerprint, f"sha256:{record.fingerprint}"]
        names += record.certificate_names
    return identity.casefold() in (name.casefold() for name in names if name)
