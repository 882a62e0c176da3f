"""Advisories of nats-server, as version 2.15.1 writes them."""

from __future__ import annotations

import json
from typing import Any

import pytest

from broker_auth.observe.server_errors import read_advisory

ADVISORY: dict[str, Any] = {
    "type": "io.nats.server.advisory.v1.client_disconnect",
    "id": "raD6cbXD1aEyQ68QWbt5ph",
    "timestamp": "2026-11-21T22:43:12.267449897Z",
    "server": {"name": "east", "host": "127.0.0.1", "id": "NA22", "cluster": "fleet", "ver": "2.15.1", "seq": 18},
    "client": {
        "start": "2026-11-21T22:43:12.258081013Z",
        "host": "192.0.2.7",
        "id": 11,
        "acc": "AUTH",
        "user": "provisioner",
        "name": "new1",
        "lang": "python3",
        "kind": "Client",
        "client_type": "nats",
    },
    "sent": {"msgs": 0, "bytes": 0},
    "reason": "Auth callout service returned an error: wrong password",
}


def test_an_advisory_becomes_a_record() -> None:
    record = read_advisory(json.dumps(ADVISORY).encode())
    assert record
    assert record.time.isoformat() == "2026-11-21T22:43:12.267450+00:00"
    assert (record.cid, record.host, record.user, record.name) == (11, "192.0.2.7", "provisioner", "new1")
    assert (record.server, record.server_id, record.cluster) == ("east", "NA22", "fleet")
    assert (record.kind, record.type) == ("Client", "nats")
    assert record.reason.endswith("wrong password")


def test_what_is_missing_is_empty() -> None:
    record = read_advisory(json.dumps({"timestamp": "2026-11-21T22:43:12Z", "server": {}, "client": {}}).encode())
    assert record
    assert (record.cid, record.reason) == (0, "")


def test_what_strangers_chose_is_cut() -> None:
    long = ADVISORY | {"client": ADVISORY["client"] | {"user": "u" * 10_000}}
    record = read_advisory(json.dumps(long).encode())
    assert record
    assert len(record.user) == 256


@pytest.mark.parametrize(
    "data", [b"", b"null", b"[]", b"{}", b"\xff", b"[" * 100_000, json.dumps(ADVISORY | {"client": 7}).encode()]
)
def test_anything_else_is_none(data: bytes) -> None:
    assert read_advisory(data) is None
