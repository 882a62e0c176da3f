"""Troubles of a serving zone: each root cause once, most far-reaching first."""

from __future__ import annotations

import dataclasses
import json
import urllib.request
from pathlib import Path

import pytest

from broker_auth.daemon.crl_files import CrlState
from broker_auth.daemon.expiry import Expiry
from broker_auth.daemon.state import ZoneState
from broker_auth.daemon.troubles import TroubleCode, troubles
from broker_auth.operate.access import Access
from broker_auth.operate.doctor.finding import Context, Severity
from broker_auth.operate.doctor.service import examine_service
from broker_auth.sandbox.natsserver import free_port
from broker_auth.settings.model import Settings
from tests.builders.clock import DAY, NOW
from tests.callout.deployment import FleetDeployment, eventually
from tests.deadlines import HANG_SECONDS


def state(**changes: object) -> ZoneState:
    return ZoneState(zone="fleet", **changes)  # type: ignore[arg-type]


def crl(this_update: float, next_update: float | None) -> CrlState:
    return CrlState("c.pem", "CN=CA", 3, this_update, next_update)


ROWS = {
    "nothing": (state(), []),
    "clock ahead": (
        state(skews={"fleet/nats1": 300.0}),
        ["this host's clock is 300.0 s ahead of that of server nats1"],
    ),
    "clock behind": (state(skews={"fleet/nats1": -1.2}), ["this host's clock is 1.2 s behind that of server nats1"]),
    "clock nearly right": (state(skews={"fleet/nats1": 0.9}), []),
    "own certificate": (state(expiries=(Expiry("own", "c.pem", NOW - DAY),)), ["c.pem expired at"]),
    "CA": (state(expiries=(Expiry("ca", "ca.pem", NOW - DAY),)), ["ca.pem expired at"]),
    "expired signers still verify": (state(expiries=(Expiry("signer", "s.pem", NOW - DAY),)), []),
    "not yet": (state(expiries=(Expiry("own", "c.pem", NOW + DAY),)), []),
    "audit": (state(audit_trouble="a.jsonl: No space left on device"), ["audit records are lost: a.jsonl: No space"]),
    "revocations": (state(revocation_trouble="r.json is cut"), ["the file of revocations cannot be read"]),
    "CRLs": (
        state(crl_troubles=("c.pem is cut",)),
        ["a file of CRLs cannot be used, so its last good CRLs count: c.p"],
    ),
    "expired CRL": (state(crls=(crl(NOW - DAY, NOW),)), ["c.pem: the CRL of 'CN=CA' expired on"]),
    "CRL from the future": (state(crls=(crl(NOW + DAY, None),)), ["c.pem: the CRL of 'CN=CA' is from the future"]),
    "current CRLs": (state(crls=(crl(NOW, NOW + DAY), crl(NOW - DAY, None))), []),
    "no bucket": (state(synchronized=None, sync_trouble=""), []),
    "not synchronized yet": (state(synchronized=0.0), []),
    "synchronized": (state(synchronized=NOW - 1.0), []),
    "never synchronized": (
        state(synchronized=0.0, sync_trouble="no bucket"),
        ["revocations were not exchanged with other hosts y"],
    ),
    "synchronized long ago": (
        state(synchronized=NOW - 60.0),
        ["revocations were not exchanged with other hosts since 2027-01-15"],
    ),
    "nodes are not counted": (
        state(counting_trouble="bucket B does not exist; create it"),
        ["nodes are not counted, so tokens for a number of nodes admit no new ones: bucket B does"],
    ),
    "late": (state(oldest=3.0), ["the oldest request has waited for 3.0 s"]),
    "clocks come first": (
        state(oldest=3.0, audit_trouble="full", skews={"fleet/nats1": 2.0}),
        ["this host's clock", "audit records are lost", "the oldest request"],
    ),
}


@pytest.mark.parametrize(("zone", "expected"), ROWS.values(), ids=ROWS)
def test_each_trouble_is_one_line(zone: ZoneState, expected: list[str]) -> None:
    current = troubles(zone, NOW)
    assert len(current) == len(expected), current
    for trouble, start in zip(current, expected, strict=True):
        assert trouble.text.startswith(start)
        assert "; " in trouble.text or ": " in trouble.text
        assert "\n" not in trouble.text


@pytest.mark.e2e
async def test_full_audit_disk_is_reported_and_blocks_no_login(tmp_path: Path) -> None:
    deployment, metrics = FleetDeployment(tmp_path), f"127.0.0.1:{free_port()}"
    environ = {"BROKER_AUTH_AUDIT_OUTPUT": "file:/dev/full", "BROKER_AUTH_METRICS_LISTEN": metrics}

    def page(path: str) -> str:
        with urllib.request.urlopen(f"http://{metrics}{path}", timeout=HANG_SECONDS) as answer:
            return str(answer.read().decode())

    with deployment.running(), deployment.service(**environ) as service:
        assert json.loads(page("/healthz"))["troubles"] == []
        await (await deployment.connect()).close()
        await eventually(lambda: json.loads(page("/healthz"))["troubles"])
        (trouble,) = json.loads(page("/readyz"))["troubles"]
        assert trouble == "audit records are lost: /dev/full: No space left on device; decisions continue"
        assert 'broker_auth_troubles{code="audit",zone="fleet"} 1.0' in page("/metrics")
        service.wait_for_log("ERROR .*zone fleet: audit records are lost: /dev/full")
        context = Context(access=Access(settings=_listening(deployment, metrics)))
        findings = examine_service(context)
        assert [item.code for item in findings if item.severity is Severity.ERROR] == ["service.trouble"]
        await (await deployment.connect()).close()


def _listening(deployment: FleetDeployment, metrics: str) -> Settings:
    return dataclasses.replace(deployment.settings(), metrics_listen=metrics)


def test_trouble_codes_are_stable() -> None:
    codes = ["clock", "certificate", "audit", "revocations", "crl", "synchronization", "node_counts", "late"]
    assert [code.value for code in TroubleCode] == codes
