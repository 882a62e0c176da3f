"""Expiry of chain issuers: warnings once a day, bounded, and merged from several processes."""

from __future__ import annotations

import logging
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import msgspec
import pytest

from broker_auth.audit.record import make_record
from broker_auth.callout.chain_issuers import MAX_ISSUERS, ChainIssuers, merge
from broker_auth.operate.access import Access
from broker_auth.operate.doctor.deployment import examine_chain_issuers
from broker_auth.operate.doctor.finding import Context, Severity
from broker_auth.policy.decide import decide
from broker_auth.settings.model import AuditKind, AuditOutput, AuditSettings, KeySource
from broker_auth.tokens.chain import ChainIssuer
from tests.audit.records import admitted
from tests.builders import requests
from tests.builders.clock import DAY, NOW
from tests.builders.policies import issuer_policy
from tests.builders.tokens import ORG, ksuid
from tests.deploy.shapes import build
from tests.policy.test_chain_issuer_age import PAYLOAD, below


def issuer(name: str = "one", days: float = 10) -> ChainIssuer:
    return ChainIssuer(id=name, issued=NOW - DAY, ends=NOW + days * DAY)


def warnings(caplog: pytest.LogCaptureFixture) -> int:
    return sum(record.levelno == logging.WARNING for record in caplog.records)


@pytest.mark.parametrize(("days", "count"), [(31, 0), (30, 0), (29.9, 1), (0, 1), (-1, 1)])
def test_warning_starts_thirty_days_before_the_end(caplog: pytest.LogCaptureFixture, days: float, count: int) -> None:
    ChainIssuers().observe(issuer(days=days), NOW)
    assert warnings(caplog) == count


def test_warning_is_logged_once_a_day_for_each_issuer(caplog: pytest.LogCaptureFixture) -> None:
    issuers = ChainIssuers()
    for seconds in range(0, DAY, 1000):
        issuers.observe(issuer(), NOW + seconds)
    assert warnings(caplog) == 1
    issuers.observe(issuer("other"), NOW)
    issuers.observe(issuer(), NOW + DAY)
    assert warnings(caplog) == 3


def test_number_of_issuers_is_bounded_and_recent_ones_are_kept() -> None:
    issuers, others = ChainIssuers(), ChainIssuers()
    for number in range(3 * MAX_ISSUERS):
        issuers.observe(issuer(f"i{number}", 100), NOW + number)
        others.observe(issuer(f"o{number}", 100), NOW + number)
    assert set(issuers.ends) == {f"i{number}" for number in range(2 * MAX_ISSUERS, 3 * MAX_ISSUERS)}
    both = merge(issuers.ends, others.ends)
    assert len(both) == MAX_ISSUERS
    assert {f"i{3 * MAX_ISSUERS - 1}", f"o{3 * MAX_ISSUERS - 1}"} <= set(both)


def test_merge_keeps_the_latest_entry() -> None:
    """After a reload with another maximum age, counters of ended workers are still added."""
    before, after = ChainIssuers(), ChainIssuers()
    before.observe(issuer(days=300), NOW)
    after.observe(issuer(days=100), NOW + 1)
    for both in (merge(before.ends, after.ends), merge(after.ends, before.ends)):
        assert both == {"one": (NOW + 1, NOW + 100 * DAY)}


@pytest.mark.parametrize("made", [NOW - DAY, NOW - 400 * DAY])
def test_records_of_admissions_and_denials_name_the_chain_issuer(made: int) -> None:
    asked = below(made)
    record = make_record(asked, decide(asked, issuer_policy(), NOW), NOW, 1)
    assert record.issuer_id == ksuid(made, PAYLOAD)
    assert record.issuer_ends == datetime.fromtimestamp(made + 366 * DAY, UTC)
    other = requests.client()
    assert make_record(other, decide(other, issuer_policy(), NOW), NOW, 1).issuer_id == ""


ISSUERS = (KeySource(name="choria", hex=ORG.hex),)
START = admitted().time


def examined(directory: Path, days: float | None, ago: float = 0, **changes: Any) -> list[tuple[Severity, str]]:
    """Return the doctor's findings if the audit file contains a chain issuer that ends in ``days`` days."""
    audit = directory / "audit.jsonl"
    if days is not None:
        record = admitted(issuer_id="ISSUER", issuer_ends=START + timedelta(days=days))
        audit.write_bytes(msgspec.json.Encoder().encode_lines([admitted(cid=9), record]))
    outputs = (AuditOutput(kind=AuditKind.FILE, path=audit),)
    settings_changes: dict[str, Any] = {"issuers": ISSUERS, "audit": AuditSettings(outputs=outputs)} | changes
    settings = replace(build(directory, "single").settings, **settings_changes)
    findings = examine_chain_issuers(
        Context(access=Access(settings=settings), now=lambda: START.timestamp() + ago * DAY)
    )
    assert all(item.remedy for item in findings if item.severity is not Severity.OK)
    return [(item.severity, item.code) for item in findings]


END = (Severity.WARNING, "chain_issuers.end")


@pytest.mark.parametrize(("days", "expected"), [(31, (Severity.OK, "chain_issuers")), (29, END), (-5, END)])
def test_doctor_reports_chain_issuers_that_end(tmp_path: Path, days: float, expected: tuple[Severity, str]) -> None:
    assert examined(tmp_path, days) == [expected]


@pytest.mark.parametrize(("ago", "findings"), [(6, [END]), (8, [(Severity.OK, "chain_issuers")])])
def test_doctor_ignores_unused_chain_issuers(tmp_path: Path, ago: int, findings: list[Any]) -> None:
    assert examined(tmp_path, 20, ago) == findings


def test_doctor_skips_chain_issuers_without_audit_file(tmp_path: Path) -> None:
    assert examined(tmp_path, 1, audit=AuditSettings()) == [(Severity.SKIPPED, "chain_issuers")]
    (tmp_path / "audit.jsonl").unlink()
    assert examined(tmp_path, None) == [(Severity.SKIPPED, "chain_issuers")]


def test_doctor_does_not_check_chain_issuers_without_organization_issuers(tmp_path: Path) -> None:
    assert examined(tmp_path, 1, issuers=()) == []
