"""The tables of ``report`` are readable at 80 columns: a line for each connection or node, and a summary."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

from broker_auth.cli.report_tables import conns_table, waiting_table
from broker_auth.operate.report.connections import Connection, ConnectionsReport
from broker_auth.operate.report.waiting import Denial, Waiting

NOW = datetime(2027, 1, 15, 8, tzinfo=UTC)
NKEY = "U" + "B" * 55


def connection(**more: Any) -> Connection:
    values: dict[str, Any] = {
        "server": "fleet1",
        "server_id": "N1",
        "cluster": "fleet",
        "broker": "fleet",
        "account": "provisioning",
        "name": "device0001.factory.example.net",
        "identity": "device0001.factory.example.net",
        "ip": "192.0.2.117",
        "port": 50092,
        "tls": "1.3",
        "peer": None,
        "connected": "2027-01-12T08:00:00Z",
        "rule": "provisioning",
        "cid": 7,
        "kind": "Client",
        "type": "nats",
        "lang": "go",
        "version": "1",
        "uptime": "3d4h12m5s",
        "idle": "0s",
        "rtt": "1ms",
        "pending_bytes": 0,
        "in_msgs": 1,
        "out_msgs": 1,
        "in_bytes": 2048,
        "out_bytes": 10,
        "subscriptions": 3,
    }
    return Connection(**values | more)


def waiting(number: int, code: str | None = None) -> Waiting:
    denial = Denial(time=NOW, code=code, reason=f"{code}: the reason") if code else None
    return Waiting(
        name=f"device{number:04}.factory.example.net",
        connected=code is None,
        server="edge",
        ip="192.0.2.7",
        since=NOW - timedelta(hours=3, minutes=12, seconds=5),
        attempts=4,
        last_denial=denial,
    )


def test_connections_fit_into_80_columns_a_line_each() -> None:
    report = ConnectionsReport(
        connections=(connection(), connection(identity=NKEY, name="broker-auth", account="AUTH"))
    )
    lines = list(conns_table(report).lines(80))
    assert len(lines) == 5
    assert max(map(len, lines)) <= 80
    assert lines[0].split() == ["Server", "Account", "Identity", "Address", "Up"]
    assert lines[1].split() == ["fleet1", "provisioning", connection().name, "192.0.2.117:50092", "3d4h"]
    assert "UBBBBBBB…BBBB" in lines[2]
    assert lines[3] == "2 connections on 1 server"


def test_pipe_gets_complete_keys_and_durations() -> None:
    report = ConnectionsReport(connections=(connection(identity=NKEY),))
    _, row = conns_table(report).separated()
    assert row.split("\t")[2] == NKEY
    assert "3d4h12m5s" in row


def test_subscriptions_are_shown_in_a_column() -> None:
    report = ConnectionsReport(connections=(connection(subjects=("a.b", "c.>")),))
    assert "a.b c.>" in list(conns_table(report, subs=True).lines(80))[1]


def test_limit_and_missing_servers_are_mentioned() -> None:
    report = ConnectionsReport(connections=(connection(),), missing=("broker edge: unreachable",))
    (line,) = [line for line in conns_table(report, limit=1).lines() if "connection" in line]
    assert line == "1 connection on 1 server, the first by --limit 1; incomplete, see the error below"


def test_hundred_nodes_are_a_line_each_and_a_summary() -> None:
    nodes = [waiting(number, (None, "token_header", "token_expired", None)[number % 4]) for number in range(96)]
    nodes += [waiting(number, "token_header") for number in range(96, 100)]
    lines = list(waiting_table(nodes, (), NOW).lines(80))
    assert max(map(len, lines)) <= 80
    assert lines[0].split("  ")[0] == "Node"
    assert lines[1].split() == ["device0000.factory.example.net", "connected", "edge", "3h12m", "4"]
    assert lines[2].split() == ["device0001.factory.example.net", "denied", "edge", "3h12m", "4", "token_header"]
    assert lines[101:105] == [
        "100 nodes: 48 connected, 52 denied",
        "token_header (28): the reason",
        "token_expired (24): the reason",
        "`broker-auth why NODE` tells what to do.",
    ]


def test_waiting_nodes_in_a_pipe_have_code_and_reason_once() -> None:
    _, row = waiting_table([waiting(1, "token_header")], (), NOW).separated()
    assert row.split("\t")[-2:] == ["token_header", "the reason"]
