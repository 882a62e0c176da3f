"""The text of ``why``: equal decisions about the same client are one entry, and each remedy is printed once."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from broker_auth.audit.record import AuditRecord, Record
from broker_auth.callout.chain_issuers import warning
from broker_auth.callout.skew import describe
from broker_auth.operate.logins import CANARY, COMMAND
from broker_auth.operate.remedies import Remedy
from broker_auth.operate.why import ConnectionHistory
from broker_auth.policy.decision import Rule
from broker_auth.times import short_duration
from broker_auth.tokens.chain import WARNING_SECONDS
from broker_auth.wording import ago, counted

_SERVERS: Final = 5  # named in one entry
_USER_SUFFIX: Final = ".mcollective"
_NOT_ROOT: Final = (
    "this is the name of a Choria Server that does not run as root: it subscribes under its identity, which isolation "
    "denies (nats-server logs a permissions violation), so no provisioner reaches it; run it as root, use protocol 2, "
    "or set plugin.broker_auth.provisioning.isolate_nodes = false"
)


@dataclass(frozen=True, slots=True)
class Repeated:
    """Connections with equal decisions, newest last."""

    histories: Sequence[ConnectionHistory]

    @property
    def last(self) -> ConnectionHistory:
        """The newest connection."""
        return self.histories[-1]

    @property
    def needs_remedy(self) -> bool:
        """Whether the client was denied, or refused by nats-server."""
        decision = self.last.decision
        return decision is None or decision.decision == "deny" or self.last.error is not None

    def lines(self, now: datetime) -> Iterator[str]:
        """Yield the lines about these connections, without the remedy; the first one is not indented."""
        record, decision = self.last.record, self.last.decision
        verdict = "REFUSED" if decision is None else {"admit": "admitted", "deny": "DENIED"}[decision.decision]
        times = f" {counted(len(self.histories), 'time')}" if len(self.histories) > 1 else ""
        user = f" as user {record.user}" if record.user else ""
        yield (
            f"{record.time:%Y-%m-%d %H:%M:%S} UTC ({ago(record.time, now)})  {verdict}{times}  "
            f"{record.name or 'unnamed'}{user} from {record.host or 'an unknown host'}, {_connection(record)}"
        )
        yield from self._repetitions()
        if _is_command(record):
            yield "  note: by its name, which it chose itself, this is a broker-auth command such as doctor or report"
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
        if self.last.error is not None:
            yield f"  nats-server: {self.last.error.reason or 'no reason, which means that no answer came in time'}"

    def _repetitions(self) -> Iterator[str]:
        if len(self.histories) == 1:
            return
        first = self.histories[0].record
        servers = list(dict.fromkeys(history.record.server or "an unknown server" for history in self.histories))
        more = " and others" if len(servers) > _SERVERS else ""
        where = f", on {', '.join(servers[:_SERVERS])}{more}" if len(servers) > 1 else ""
        yield f"  since {first.time:%Y-%m-%d %H:%M:%S} UTC{where}; the last one is shown"


def repeated(histories: Sequence[ConnectionHistory]) -> list[Repeated]:
    """Return the connections grouped by what was decided about whom, the group with the newest connection last."""
    groups: dict[tuple[object, ...], list[ConnectionHistory]] = {}
    for history in histories:
        groups.setdefault(_key(history), []).append(history)
    return sorted(map(Repeated, groups.values()), key=lambda group: group.last.time)


def text(groups: Sequence[Repeated], now: datetime) -> Iterator[str]:
    """Yield the lines of the text output: a remedy follows the last group that needs it."""
    owners: dict[Remedy, Repeated] = {group.last.remedy: group for group in groups if group.needs_remedy}
    for group in groups:
        yield from group.lines(now)
        remedy = group.last.remedy
        if owners.get(remedy) is group:
            yield f"  why: {remedy.cause}"
            yield f"  what to do: {remedy.remedy}"
        elif group.needs_remedy:
            yield "  why, and what to do: see below"


def _key(history: ConnectionHistory) -> tuple[object, ...]:
    record, decision, error = history.record, history.decision, history.error
    name = CANARY if record.name.startswith(CANARY) else record.name
    about = (name, record.user, record.host, record.zone, record.broker, error and error.reason)
    if decision is None:
        return about
    outcome = (decision.decision, decision.rule, decision.code, decision.account, decision.certificate_problem)
    return (*about, *outcome, decision.client, decision.token_id, decision.fingerprint, decision.issuer_id)


def _is_command(record: Record) -> bool:
    names = (record.name, record.client) if isinstance(record, AuditRecord) else (record.name,)
    return any(name.startswith((COMMAND, CANARY)) for name in names)


def _connection(record: Record) -> str:
    return f"connection {record.cid} on {record.server or 'an unknown server'}{_by(record)}"


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
        ("of", ", ".join(dict.fromkeys(decision.certificate_names))),
        ("until", decision.expires and f"{decision.expires:%Y-%m-%d %H:%M:%S} UTC"),
        ("which is after its credential by", decision.grace and short_duration(decision.grace)),
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
