"""Reports of connections are parsed, and other messages ignored."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker_auth.natsio.account_connections import MAX_BYTES, read_report

REPORT: dict[str, Any] = {
    "type": "io.nats.server.advisory.v1.account_connections",
    "server": {"name": "fleet-1", "id": "NDBT4HM", "host": "127.0.0.1", "ver": "2.15.1", "seq": 17},
    "acc": "provisioning",
    "conns": 3,
    "leafnodes": 1,
    "total_conns": 4,
}


def changed(**changes: Any) -> bytes:
    return json.dumps({key: value for key, value in (REPORT | changes).items() if value is not None}).encode()


def test_report_is_parsed() -> None:
    report = read_report(changed())
    assert report is not None
    assert (report.server.id, report.server.name) == ("NDBT4HM", "fleet-1")
    assert (report.account, report.connections, report.clients) == ("provisioning", 4, 3)
    assert report.by_leaf is None


def test_messages_over_leaf_links_are_parsed() -> None:
    report = read_report(changed(received={"msgs": 9, "bytes": 90, "leafs": {"msgs": 7, "bytes": 70}}))
    assert report is not None
    assert report.by_leaf == 7


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"[]",
        b"{}",
        b"\xff",
        b"[" * 10_000,
        changed(server=None),
        changed(server={"name": "fleet-1"}),
        changed(server={"name": "", "id": "x"}),
        changed(server={"name": "x" * 257, "id": "x"}),
        changed(acc=None),
        changed(acc=1),
        changed(total_conns=None),
        changed(total_conns=-1),
        changed(total_conns=2**31 + 1),
        changed(total_conns=10**400),
        changed(total_conns=1.5),
        changed(total_conns="4"),
        changed(received={"leafs": {"msgs": -1}}),
        changed(received={"leafs": {"msgs": 2**63}}),
        changed(padding="x" * MAX_BYTES),
    ],
)
def test_anything_else_is_not_a_report(data: bytes) -> None:
    assert read_report(data) is None


@given(st.binary(max_size=200) | st.text().map(str.encode))
def test_arbitrary_message_is_handled(data: bytes) -> None:
    assert read_report(data) is None


@given(
    st.recursive(
        st.none() | st.integers() | st.text(max_size=20),
        lambda inner: st.dictionaries(st.text(max_size=8), inner, max_size=4),
        max_leaves=12,
    )
)
def test_arbitrary_value_is_handled(value: Any) -> None:
    for key in ("server", "acc", "total_conns"):
        report = read_report(json.dumps(REPORT | {key: value}).encode())
        assert report is None or 0 <= report.connections <= 2**31
