"""Builds audit records for tests."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec

from broker_auth.audit.record import AuditRecord, Record, ServerErrorRecord

START = datetime(2027, 1, 15, 8, tzinfo=UTC)


def denied(cid: int = 7, seconds: float = 0, **changes: Any) -> AuditRecord:
    """Return a denial of the provisioner on connection ``cid``, ``seconds`` after :data:`START`."""
    record = AuditRecord(
        time=START + timedelta(seconds=seconds),
        decision="deny",
        rule="provisioner",
        rule_number=1,
        code="provisioner_password",
        reason="provisioner_password: wrong password",
        name="new1.example.net",
        user="provisioner",
        host="192.0.2.7",
        cid=cid,
        server="fleet-1",
        server_id="N1",
        tls="verified",
    )
    return msgspec.structs.replace(record, **changes)


def admitted(cid: int = 8, seconds: float = 0, **changes: Any) -> AuditRecord:
    """Return an admission of a node with a provisioning token."""
    record = denied(
        cid,
        seconds,
        decision="admit",
        rule="provisioning",
        rule_number=3,
        code="admitted",
        reason="provisioning token",
        user="",
        account="provisioning",
        token_id="2cJ4vIL2TBj1nWjNLrmGTAZMXqO",
        signer="signer.pem",
        fingerprint="",
    )
    return msgspec.structs.replace(record, **changes)


def refused(cid: int = 7, seconds: float = 0, **changes: Any) -> ServerErrorRecord:
    """Return nats-server's report about connection ``cid``."""
    record = ServerErrorRecord(
        time=START + timedelta(seconds=seconds),
        reason="Auth callout service returned an error: wrong password",
        user="provisioner",
        host="192.0.2.7",
        cid=cid,
        server="fleet-1",
        server_id="N1",
    )
    return msgspec.structs.replace(record, **changes)


def lines(*records: Record) -> bytes:
    """Return the records as lines of an audit file."""
    return b"".join(msgspec.json.encode(record) + b"\n" for record in records)
