"""Advisories in the format of nats-server 2.15.1 become audit records."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
import pytest

from broker_auth.audit.advisories import read_advisory

NOW = datetime(2026, 11, 21, 22, 43, 13, tzinfo=UTC)
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
    "reason": "Authentication Failure",
}


def test_advisory_becomes_record() -> None:
    record = read_advisory(json.dumps(ADVISORY).encode(), NOW, zone="edges", broker="branch")
    assert record
    assert record.time.isoformat() == "2026-11-21T22:43:12.267450+00:00"
    assert (record.cid, record.host, record.user, record.name) == (11, "192.0.2.7", "provisioner", "new1")
    assert (record.server, record.server_id, record.cluster) == ("east", "NA22", "fleet")
    assert (record.kind, record.type) == ("Client", "nats")
    assert record.reason == "Authentication Failure"
    assert (record.zone, record.broker) == ("edges", "branch")


def test_our_own_denial_is_not_recorded_twice() -> None:
    ours = ADVISORY | {"reason": "Auth callout service returned an error: wrong password"}
    assert read_advisory(json.dumps(ours).encode(), NOW) is None


def test_missing_fields_are_empty() -> None:
    record = read_advisory(json.dumps({"timestamp": "2026-11-21T22:43:12Z", "server": {}, "client": {}}).encode(), NOW)
    assert record
    assert (record.cid, record.reason) == (0, "")


@pytest.mark.parametrize("part", ["client", "server"])
def test_every_field_is_truncated(part: str) -> None:
    long = dict.fromkeys(("host", "user", "name", "kind", "client_type", "id", "cluster"), "u" * 5000)
    whole = ADVISORY | {part: long | {"id": 2**63 if part == "client" else "i" * 5000}, "reason": "r" * 5000}
    record = read_advisory(json.dumps(whole).encode(), NOW)
    assert record
    assert len(msgspec.json.encode(record)) < 3000
    assert record.cid == (0 if part == "client" else 11)


def test_oversized_advisory_is_ignored() -> None:
    assert read_advisory(json.dumps(ADVISORY | {"x": "y" * 100_000}).encode(), NOW) is None


@pytest.mark.parametrize("time", ["2100-01-01T00:00:00Z", "2020-01-01T00:00:00Z", "2026-11-21T22:37:00Z"])
def test_implausible_time_is_replaced(time: str) -> None:
    record = read_advisory(json.dumps(ADVISORY | {"timestamp": time}).encode(), NOW)
    assert record
    assert record.time == NOW


def test_slightly_skewed_time_is_kept() -> None:
    time = NOW - timedelta(minutes=4)
    record = read_advisory(json.dumps(ADVISORY | {"timestamp": time.isoformat()}).encode(), NOW)
    assert record
    assert record.time == time


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"null",
        b"[]",
        b"{}",
        b"\xff",
        b"[" * 100_000,
        json.dumps(ADVISORY | {"client": 7}).encode(),
        json.dumps(ADVISORY | {"timestamp": "0001-01-01T00:00:00+12:00"}).encode(),
    ],
)
def test_invalid_advisory_is_ignored(data: bytes) -> None:
    assert read_advisory(data, NOW) is None
