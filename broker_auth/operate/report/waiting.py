"""Nodes that wait to be provisioned: connected but not provisioned yet, or still trying to connect.

Connections show the nodes that wait now; audit records, if available, add since when, how often they tried, and why
they were refused last. Without records a node is recognized by not having a certificate.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from broker_auth.audit.record import AuditRecord
from broker_auth.operate.logins import CANARY
from broker_auth.operate.report.connections import Connection
from broker_auth.policy.decision import Rule
from broker_auth.times import parse_server_time

RECENT: Final = timedelta(hours=1)  # refused nodes without a recent attempt are not considered as waiting
_UNCLAIMED: Final = frozenset({Rule.PROVISIONING.value, Rule.TOKEN.value, Rule.NONE.value})


@dataclass(frozen=True, slots=True, kw_only=True)
class Denial:
    """A refusal of a node."""

    time: datetime
    code: str
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Waiting:
    """A waiting node.

    Attributes:
        connected: whether it is in the provisioning account now; if not, it was refused.
        since: its first known attempt.
        attempts: number of its attempts, including the current connection.
    """

    name: str
    connected: bool
    server: str
    ip: str
    since: datetime
    attempts: int
    last_denial: Denial | None = None

    def age(self, now: datetime) -> timedelta:
        """Return how long the node has been waiting."""
        return now - self.since


def waiting_nodes(
    connections: Iterable[Connection], records: Sequence[AuditRecord], now: datetime, *, account: str
) -> tuple[Waiting, ...]:
    """Return the waiting nodes, longest first.

    Args:
        connections: all connections, of every account.
        records: decisions, oldest first; may be empty.
        now: the current time.
        account: the provisioning account.
    """
    everybody = [item for item in connections if item.kind == "Client"]
    inside = [item for item in everybody if item.account == account and _is_node(item)]
    elsewhere = {name for item in everybody if item.account != account for name in (item.name, item.identity)}
    attempts = _attempts(records)
    nodes = [_connected(item, attempts.pop(item.name, []), now) for item in inside]
    for name, tried in attempts.items():
        last = tried[-1]
        if last.decision == "deny" and now - last.time <= RECENT and name not in elsewhere:
            nodes.append(_refused(name, tried))
    return tuple(sorted(nodes, key=lambda node: (node.since, node.name)))


def _is_node(item: Connection) -> bool:
    """Return whether a connection is a node's; provisioners in the account have another rule, and a certificate."""
    return item.rule == Rule.PROVISIONING.value if item.rule is not None else item.peer is None


def _attempts(records: Sequence[AuditRecord]) -> dict[str, list[AuditRecord]]:
    """Return the records about nodes by client name; clients with a certificate are not nodes."""
    by_name: dict[str, list[AuditRecord]] = {}
    for record in records:
        denied = record.decision == "deny" and record.rule in _UNCLAIMED and record.tls == "unverified"
        admitted = record.decision == "admit" and record.rule == Rule.PROVISIONING.value
        if record.name and not record.name.startswith(CANARY) and (denied or admitted):
            by_name.setdefault(record.name, []).append(record)
    return by_name


def _connected(item: Connection, tried: Sequence[AuditRecord], now: datetime) -> Waiting:
    began = min(parse_server_time(item.connected) or now, now)
    return Waiting(
        name=item.name,
        connected=True,
        server=item.server,
        ip=item.ip,
        since=min([began, *(record.time for record in tried)]),
        attempts=max(1, len(tried)),
        last_denial=_last_denial(tried),
    )


def _refused(name: str, tried: Sequence[AuditRecord]) -> Waiting:
    last = tried[-1]
    return Waiting(
        name=name,
        connected=False,
        server=last.server,
        ip=last.host,
        since=tried[0].time,
        attempts=len(tried),
        last_denial=_last_denial(tried),
    )


def _last_denial(tried: Sequence[AuditRecord]) -> Denial | None:
    for record in reversed(tried):
        if record.decision == "deny":
            return Denial(time=record.time, code=record.code, reason=record.reason)
    return None
