"""``plugin.broker_auth.audit.output``: every form, and every mistake."""

from __future__ import annotations

import pytest

from broker_auth.settings.model import AuditKind, AuditOutput, StoredRequests
from tests.settings.builder import Directory, P

KEY = f"{P}audit.output"


def test_records_go_to_standard_output_by_default(directory: Directory) -> None:
    settings = directory.check().settings
    assert settings
    assert settings.audit.outputs == (AuditOutput(kind=AuditKind.STDOUT),)
    assert settings.audit.requests is StoredRequests.NONE


def test_every_form(directory: Directory) -> None:
    directory.set({KEY: "log, stdout, file:log/audit.jsonl, nats:audit.broker-auth, log"})
    settings = directory.check().settings
    assert settings
    assert settings.audit.outputs == (
        AuditOutput(kind=AuditKind.LOG),
        AuditOutput(kind=AuditKind.STDOUT),
        AuditOutput(kind=AuditKind.FILE, path=directory.path / "log" / "audit.jsonl"),
        AuditOutput(kind=AuditKind.NATS, subject="audit.broker-auth"),
    )
    assert settings.audit.path == directory.path / "log" / "audit.jsonl"
    assert settings.audit.subject == "audit.broker-auth"


@pytest.mark.parametrize(
    ("written", "what"),
    [
        ("syslog", "is not an output"),
        ("file:", "is not an output"),
        ("log:x", "is not an output"),
        ("nats: ", "is not an output"),
        ("nats:a.*", "is not a subject"),
        ("nats:a..b", "is not a subject"),
        ("nats:$SYS.REQ.USER.AUTH", "is not a subject"),
        ("nats:>", "is not a subject"),
        (f"nats:{'a' * 129}", "is not a subject"),
        ("file:a, file:b", "names 2 outputs of kind file"),
        ("nats:a, nats:b", "names 2 outputs of kind nats"),
    ],
)
def test_wrong_output_is_reported(directory: Directory, written: str, what: str) -> None:
    directory.set({KEY: written})
    (problem,) = directory.check().problems
    assert problem.line == directory.line(KEY)
    assert what in problem.what


def test_subject_output_without_fleet_broker_is_refused(directory: Directory) -> None:
    directory.set({KEY: "nats:audit", f"{P}broker.default.role": "edge"})
    (problem,) = directory.check().problems
    assert "no broker has the role" in problem.what


@pytest.mark.parametrize(
    ("written", "stored"),
    [("true", StoredRequests.ALL), ("No", StoredRequests.NONE), ("Sample", StoredRequests.SAMPLE)],
)
def test_stored_requests(directory: Directory, written: str, stored: StoredRequests) -> None:
    directory.set({f"{P}audit.requests": written})
    settings = directory.check().settings
    assert settings
    assert settings.audit.requests is stored


def test_wrong_choice_of_stored_requests_is_named(directory: Directory) -> None:
    directory.set({f"{P}audit.requests": "some"})
    (problem,) = directory.check().problems
    assert (problem.what, problem.remedy) == (
        "'some' is neither a boolean nor sample",
        "write true, false or sample",
    )
