"""Estimate of the connections in the provisioning account (docs/policy.md#the-places-of-provisioners)."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker_auth.policy.gauge import MAX_SERVERS, STALE_SECONDS, ConnectionGauge, provisioner_reserve
from tests.builders.clock import NOW

LIMIT = 100


def reported(*counts: int, workers: int = 1) -> ConnectionGauge:
    """Return a gauge to which servers named 0, 1, … of one broker have reported these numbers of connections."""
    gauge = ConnectionGauge(LIMIT, workers)
    for number, count in enumerate(counts):
        gauge.report_nodes("fleet", f"id{number}", str(number), count, NOW)
    return gauge


def full(gauge: ConnectionGauge, server: str, now: float, broker: str = "fleet") -> bool:
    """Return whether the policy would admit no more nodes at a server."""
    connections = gauge.connections(broker, server, now)
    return connections is not None and connections >= gauge.limit


def admit(gauge: ConnectionGauge, count: int, now: float = NOW) -> None:
    for _ in range(count):
        gauge.admitted("fleet", "id0", now)


def test_full_at_the_limit_and_not_before() -> None:
    assert not full(reported(LIMIT - 1), "id0", NOW)
    assert full(reported(LIMIT), "id0", NOW)


def test_never_full_without_a_report() -> None:
    gauge = ConnectionGauge(0)
    assert not full(gauge, "id0", NOW)
    admit(gauge, 1000)
    assert not full(gauge, "id0", NOW)


def test_admissions_before_the_first_report_count_too() -> None:
    gauge = ConnectionGauge(LIMIT)
    admit(gauge, LIMIT)
    gauge.report_services("fleet", "id0", "0", 1, NOW)
    assert full(gauge, "id0", NOW)


def test_servers_of_a_broker_share_the_limit_and_other_brokers_do_not() -> None:
    gauge = reported(60, 40)
    gauge.report_nodes("other", "id9", "0", LIMIT - 1, NOW)
    assert full(gauge, "id0", NOW)
    assert full(gauge, "id1", NOW)
    assert not full(gauge, "id9", NOW, "other")


def test_restarted_server_counts_once() -> None:
    gauge = reported(60)
    gauge.report_nodes("fleet", "another-id", "0", 60, NOW)
    assert not full(gauge, "another-id", NOW)


@pytest.mark.parametrize("away", [STALE_SECONDS + 1, -STALE_SECONDS - 1])
def test_old_report_is_ignored(away: float) -> None:
    gauge = reported(LIMIT, LIMIT)
    assert not full(gauge, "id0", NOW + away)
    gauge.report_nodes("fleet", "id0", "0", 1, NOW + away)
    assert not full(gauge, "id0", NOW + away)


def test_server_without_nodes_counts_as_empty_without_repeated_reports() -> None:
    gauge = reported(0)
    later = NOW + 2 * STALE_SECONDS
    gauge.report_services("fleet", "id0", "0", 1, later)
    admit(gauge, LIMIT, later)
    assert full(gauge, "id0", later)


def test_admissions_count_until_they_are_reported() -> None:
    gauge = reported(LIMIT - 10)
    admit(gauge, 10)
    assert full(gauge, "id0", NOW)
    gauge.report_nodes("fleet", "id0", "0", LIMIT - 4, NOW)  # reports six of the admissions
    assert full(gauge, "id0", NOW)
    gauge.report_nodes("fleet", "id0", "0", LIMIT - 5, NOW)  # one node has left
    assert not full(gauge, "id0", NOW)


def test_unreported_admissions_are_forgotten() -> None:
    gauge = reported(0)
    admit(gauge, LIMIT)
    assert full(gauge, "id0", NOW + 2)
    assert not full(gauge, "id0", NOW + 6)


def test_other_workers_are_assumed_to_admit_equally_many() -> None:
    gauge = reported(0, workers=2)
    admit(gauge, LIMIT // 2 - 1)
    assert not full(gauge, "id0", NOW)
    admit(gauge, 1)
    assert full(gauge, "id0", NOW)
    gauge.report_nodes("fleet", "id0", "0", LIMIT, NOW)  # half of them admitted by this worker
    gauge.report_nodes("fleet", "id0", "0", LIMIT - 1, NOW)
    assert not full(gauge, "id0", NOW)


def test_services_on_other_hosts_are_counted_by_their_connections() -> None:
    gauge = reported(0)
    gauge.report_services("fleet", "id0", "0", 4, NOW)
    admit(gauge, LIMIT // 4)
    assert full(gauge, "id0", NOW)


def test_broker_that_names_servers_of_another_does_not_affect_it() -> None:
    gauge = reported(LIMIT)
    gauge.report_nodes("other", "id0", "0", 0, NOW)
    for number in range(2 * MAX_SERVERS):
        gauge.report_nodes("other", f"invented{number}", str(number), 0, NOW + 1)
    assert full(gauge, "id0", NOW)
    gauge = reported(LIMIT - 1)
    gauge.admitted("other", "id0", NOW)
    assert not full(gauge, "id0", NOW)


def test_withdrawn_admission_does_not_count() -> None:
    gauge = reported(LIMIT - 1)
    admit(gauge, 1)
    assert full(gauge, "id0", NOW)
    gauge.withdrawn("fleet", "id0")
    assert not full(gauge, "id0", NOW)


def test_memory_is_bounded() -> None:
    gauge = ConnectionGauge(LIMIT)
    for number in range(3 * MAX_SERVERS):
        gauge.report_nodes("fleet", f"id{number}", str(number), 1, NOW)
        gauge.admitted("fleet", f"unknown{number}", NOW)
    assert len(gauge._brokers["fleet"]) == MAX_SERVERS


def test_the_reserve_is_a_twentieth_within_bounds() -> None:
    reserves = [provisioner_reserve(limit) for limit in (1, 5120, 10_000, 81_920, 10**9)]
    assert reserves == [256, 256, 500, 4096, 4096]


EVENTS = st.lists(st.tuples(st.booleans(), st.integers(0, 7), st.floats(0, 3)), max_size=60)


@given(EVENTS)
def test_one_worker_never_admits_more_than_the_limit(events: list[tuple[bool, int, float]]) -> None:
    """Late reports lose no admission, as long as they come while admissions are remembered."""
    gauge, now, there, reported_ = ConnectionGauge(5), float(NOW), 0, 0
    gauge.report_nodes("fleet", "id0", "0", 0, now)
    for is_report, count, seconds in events:
        if is_report or now + seconds > NOW + 2.5:  # all reports have arrived by then
            reported_ = there if now + seconds > NOW + 2.5 else min(reported_ + count, there)
            now = min(now + seconds, NOW + 2.5)
            gauge.report_nodes("fleet", "id0", "0", reported_, now)
        else:
            for _ in range(count):
                if not full(gauge, "id0", now):
                    gauge.admitted("fleet", "id0", now)
                    there += 1
    assert there <= 5
