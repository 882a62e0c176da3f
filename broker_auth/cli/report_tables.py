"""The tables of ``report``: what each column is worth on a narrow terminal, and what the lines below say."""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import datetime
from typing import Final

from broker_auth.cli.tables import ESSENTIAL, Column, Table, short_bytes
from broker_auth.operate.report.connections import Connection, ConnectionsReport
from broker_auth.operate.report.waiting import Denial, Waiting
from broker_auth.times import short_duration
from broker_auth.wording import counted, short_key

_UNITS: Final = re.compile(r"(?:\d+[a-z]+){1,2}")
_MAX_DENIALS: Final = 10  # reasons that are listed below the waiting nodes


def _short_uptime(text: str) -> str:
    """Return a duration of nats-server, such as ``3d4h12m5s``, in its two largest units."""
    match = _UNITS.match(text)
    return match[0] if match else text


_CONNECTION: Final = (
    Column(name="Server", worth=ESSENTIAL + 1, fold=8),
    Column(name="Account", worth=ESSENTIAL + 2, fold=8, short=short_key),
    Column(name="Identity", worth=ESSENTIAL + 3, fold=16, short=short_key),
    Column(name="Name", worth=7),
    Column(name="Address", worth=ESSENTIAL, fold=15),
    Column(name="TLS", worth=3),
    Column(name="Rule", worth=9),
    Column(name="Up", worth=8, right=True, short=_short_uptime),
    Column(name="Idle", worth=2, right=True, short=_short_uptime),
    Column(name="Subs", worth=1, right=True),
    Column(name="In", worth=5, right=True),
    Column(name="Out", worth=4, right=True),
    Column(name="CID", worth=6, right=True),
)
_SUBJECTS: Final = Column(name="Listens to", worth=ESSENTIAL + 4, fold=20)
_WAITING: Final = (
    Column(name="Node", worth=ESSENTIAL + 5, fold=16),
    Column(name="State", worth=ESSENTIAL + 2),
    Column(name="Server", worth=ESSENTIAL, fold=8),
    Column(name="Address", worth=5, fold=15),
    Column(name="Waiting", worth=ESSENTIAL + 3, right=True),
    Column(name="Tries", worth=6, right=True),
    Column(name="Last denial", worth=ESSENTIAL + 4, fold=16),
    Column(name="Reason", worth=0),
)


def conns_table(report: ConnectionsReport, *, subs: bool = False, limit: int | None = None) -> Table:
    """Return the connections as a table, with their number below."""
    rows = [_connection(item) + ([" ".join(item.subjects)] if subs else []) for item in report.connections]
    servers = len({item.server_id for item in report.connections})
    total = f"{counted(len(rows), 'connection')} on {counted(servers, 'server')}"
    if len(rows) == limit:
        total += f", the first by --limit {limit}"
    columns = _CONNECTION + ((_SUBJECTS,) if subs else ())
    return Table(columns, rows, [total + _incomplete(report.missing)], {"Name": "Identity"})


def waiting_table(nodes: Sequence[Waiting], missing: Sequence[str], now: datetime) -> Table:
    """Return the waiting nodes as a table, with their number and the reasons of denials below."""
    rows = [
        (
            node.name,
            "connected" if node.connected else "denied",
            node.server,
            node.ip,
            short_duration(node.age(now).total_seconds()),
            node.attempts,
            node.last_denial.code if node.last_denial else None,
            _reason(node.last_denial) if node.last_denial else None,
        )
        for node in nodes
    ]
    connected = sum(node.connected for node in nodes)
    total = f"{counted(len(rows), 'node')}: {connected} connected, {len(rows) - connected} denied"
    return Table(_WAITING, rows, [total + _incomplete(missing), *_denials(nodes)])


def _denials(nodes: Sequence[Waiting]) -> list[str]:
    """Return a line for each code by which nodes were denied last, most frequent first, with one of its reasons."""
    by_code: dict[str, list[Denial]] = {}
    for node in nodes:
        if node.last_denial is not None:
            by_code.setdefault(node.last_denial.code, []).append(node.last_denial)
    by_number = sorted(by_code.items(), key=lambda item: -len(item[1]))
    lines = [f"{code} ({len(denials)}): {_reason(denials[-1])}" for code, denials in by_number[:_MAX_DENIALS]]
    if lines:
        lines.append("`broker-auth why NODE` tells what to do.")
    return lines


def _reason(denial: Denial) -> str:
    """Return the reason, which begins with the code, without it."""
    return denial.reason.removeprefix(f"{denial.code}: ")


def _incomplete(missing: Sequence[str]) -> str:
    return "; incomplete, see the error below" if missing else ""


def _connection(item: Connection) -> list[object]:
    return [
        item.server,
        item.account,
        item.identity,
        item.name,
        f"{item.ip}:{item.port}",
        item.tls,
        item.rule,
        item.uptime,
        item.idle,
        item.subscriptions,
        short_bytes(item.in_bytes),
        short_bytes(item.out_bytes),
        item.cid,
    ]
