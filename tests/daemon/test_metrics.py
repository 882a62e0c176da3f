"""Metrics are parsable, summed correctly, and complete."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterable
from typing import Any

import pytest
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.openmetrics.exposition import generate_latest as generate_openmetrics
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families

from broker_auth.callout.request import WireFault
from broker_auth.callout.stats import LATENCY_BUCKETS, Snapshot, Stats
from broker_auth.daemon.expiry import Expiry
from broker_auth.daemon.metrics import ServiceCollector
from broker_auth.daemon.slot import Cause
from broker_auth.daemon.state import ZoneState
from broker_auth.policy.decide import decide
from broker_auth.policy.model import Serves
from broker_auth.policy.outcomes import outcomes
from tests.builders.clock import DAY, NOW
from tests.builders.policies import issuer_policy, x509_policy
from tests.builders.requests import node, provisioner
from tests.builders.tokens import ksuid
from tests.policy.test_chain_issuer_age import PAYLOAD, below


def counted(*seconds: float) -> Stats:
    """Return the stats of a process that admitted a node for each of these durations."""
    stats = Stats()
    for duration in seconds:
        stats.decided(decide(node(), x509_policy(), NOW), NOW)
        stats.took(1, duration)
    return stats


def registry(state: ZoneState, now: float = NOW) -> CollectorRegistry:
    made = CollectorRegistry()
    made.register(ServiceCollector(lambda: [state], lambda: now))
    return made


def value(state: ZoneState, metric: str, /, **labels: str) -> float | None:
    samples = registry(state)
    return samples.get_sample_value(metric, {"zone": state.zone, **labels}) or samples.get_sample_value(metric, labels)


FULL = ZoneState(
    zone="fleet",
    counted=counted(0.0002, 0.003).snapshot(),
    expected_workers=2,
    brokers={"east": 2, 'odd "name"\n': 1},
    pending=3,
    resident=(40_000_000, 41_000_000),
    replaced={"died": 1, "stuck": 0},
    accepted=2,
    refused=1,
    audit_lost=4,
    waiting={"east": 7},
    asked={"east": 21},
    certificates={"east": NOW + 9 * DAY},
    expiries=(Expiry("ca", "/etc/ca.pem", NOW + 3 * DAY), Expiry("own", "/etc/own.pem", NOW - DAY)),
)


def test_both_formats_are_parsed() -> None:
    text = list(text_string_to_metric_families(generate_latest(registry(FULL)).decode()))
    assert {family.name for family in text} == {
        family.name
        for family in parse_openmetrics(generate_openmetrics(registry(FULL)).decode())  # type: ignore[no-untyped-call]
    }
    for family in text:
        assert family.name.startswith("broker_auth_")
        assert family.documentation.endswith(".")
        assert family.type in ("counter", "gauge", "histogram")


def test_idle_service_has_metrics() -> None:
    page = generate_latest(registry(ZoneState(zone="fleet"))).decode()
    assert list(text_string_to_metric_families(page))
    assert 'broker_auth_decision_seconds_count{zone="fleet"} 0.0' in page


def test_decisions_are_counted_by_rule_and_code() -> None:
    stats = counted(0.001)
    stats.decided(decide(provisioner(password="wrong"), x509_policy(), NOW), NOW)
    stats.took(1, 0.001)
    state = ZoneState(zone="fleet", counted=stats.snapshot())
    assert value(state, "broker_auth_decisions_total", rule="provisioning", code="admitted") == 1
    assert value(state, "broker_auth_decisions_total", rule="provisioner", code="provisioner_password") == 1


def test_histogram_is_cumulative_and_complete() -> None:
    stats = counted(0.00005, 0.0001, 0.0002, 30.0)
    state = ZoneState(zone="fleet", counted=stats.snapshot())
    buckets = [value(state, "broker_auth_decision_seconds_bucket", le=repr(bound)) for bound in LATENCY_BUCKETS]
    assert buckets[0] == 2  # bounds are inclusive
    assert buckets[1:] == [3] * (len(LATENCY_BUCKETS) - 1)
    assert value(state, "broker_auth_decision_seconds_bucket", le="+Inf") == 4
    assert value(state, "broker_auth_decision_seconds_count") == 4
    assert value(state, "broker_auth_decision_seconds_sum") == pytest.approx(30.00035)


def test_late_requests_have_a_separate_counter() -> None:
    stats = Stats()
    stats.unanswered[WireFault.LATE] += 5
    stats.unanswered[WireFault.SEAL] += 1
    state = ZoneState(zone="fleet", counted=stats.snapshot())
    assert value(state, "broker_auth_late_total") == 5
    assert value(state, "broker_auth_unanswered_total", fault="seal") == 1


def test_signer_metric_has_the_time_of_last_use() -> None:
    (signer,) = counted(0.001).signer_used
    assert value(FULL, "broker_auth_signer_last_used_timestamp_seconds", signer=signer) == NOW


CHAIN_ISSUER = "broker_auth_chain_issuer_expiry_timestamp_seconds"


def test_chain_issuer_metric_has_the_expiry() -> None:
    one, other = Stats(), Stats()
    one.decided(decide(below(NOW - DAY), issuer_policy(), NOW), NOW)
    other.decided(decide(below(NOW - 400 * DAY), issuer_policy(), NOW), NOW)
    state = ZoneState(zone="fleet", counted=one.snapshot() + other.snapshot())
    for made in (NOW - DAY, NOW - 400 * DAY):
        issuer = ksuid(made, PAYLOAD)
        assert value(state, CHAIN_ISSUER, issuer=issuer) == made + 366 * DAY
        later = registry(state, NOW + 8 * DAY)  # not used for a week
        assert later.get_sample_value(CHAIN_ISSUER, {"zone": "fleet", "issuer": issuer}) is None


def test_certificates_expire_at_a_time() -> None:
    metric = "broker_auth_certificate_expiry_timestamp_seconds"
    assert value(FULL, metric, what="ca", name="/etc/ca.pem") == NOW + 3 * DAY
    assert value(FULL, metric, what="own", name="/etc/own.pem") == NOW - DAY
    assert value(FULL, metric, what="broker", name="east") == NOW + 9 * DAY


@pytest.mark.skipif(shutil.which("promtool") is None, reason="Prometheus is not installed")
def test_names_and_units_follow_the_conventions_of_prometheus() -> None:
    text = generate_latest(registry(FULL))
    done = subprocess.run(["promtool", "check", "metrics"], input=text, capture_output=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")


def test_waiting_nodes_are_a_gauge_of_brokers_that_report() -> None:
    assert value(FULL, "broker_auth_waiting_nodes", broker="east") == 7
    assert value(FULL, "broker_auth_provisioner_requests_total", broker="east") == 21
    assert value(FULL, "broker_auth_waiting_nodes", broker='odd "name"\n') is None


@pytest.mark.parametrize("serves", Serves)
def test_counters_with_known_labels_start_at_zero(serves: Serves) -> None:
    """Else Prometheus sees no increase at the first event, and no alert fires."""
    samples = registry(ZoneState(zone="z", serves=serves, brokers={"east": 0}))
    counted = {
        (sample.name, *sample.labels.values())
        for family in samples.collect()
        for sample in family.samples
        if family.type == "counter" and sample.value == 0
    }
    expected: dict[str, Iterable[tuple[str, ...]]] = {
        "decisions": outcomes(serves),
        "unanswered": [(fault,) for fault in WireFault],
        "worker_replacements": [(cause,) for cause in Cause],
        "reloads": [("accepted",), ("refused",)],
        **{name: [("east",)] for name in ("broker_connections_dropped", "broker_left", "answered_for_others")},
        **{name: [()] for name in ("late", "reply_failures", "log_lost", "audit_lost", "task_failures")},
    }
    assert counted == {
        (f"broker_auth_{name}_total", "z", *labels) for name, values in expected.items() for labels in values
    }


def test_snapshots_are_added() -> None:
    first, second = counted(0.001, 0.002), counted(0.5)
    second.signer_used = {"other": 5.0, next(iter(first.signer_used)): 1.0}
    second.unanswered[WireFault.LATE] += 2
    second.reply_failures = 3
    total = first.snapshot() + second.snapshot()
    assert total.decisions == [("provisioning", "admitted", 3)]
    assert sum(total.latency) == 3
    assert total.latency_sum == pytest.approx(0.503)
    assert total.unanswered == {"late": 2}
    assert total.reply_failures == 3
    assert total.signer_used == {**first.signer_used, "other": 5.0}


def test_adding_an_empty_snapshot_changes_nothing() -> None:
    one: Any = counted(0.001).snapshot()
    assert one + Snapshot() == Snapshot() + one == one


def test_snapshot_is_independent_of_later_counts() -> None:
    stats = counted(0.001)
    before = stats.snapshot()
    stats.decided(decide(node(), x509_policy(), NOW), NOW)
    stats.took(1, 0.001)
    stats.signer_used["later"] = 1.0
    assert before == counted(0.001).snapshot()
