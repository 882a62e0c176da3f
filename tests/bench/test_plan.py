"""The arithmetic of ``bench plan``, and what it prints."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from broker_auth.bench import connects, figures, measure
from broker_auth.bench.figures import BenchFigures
from broker_auth.bench.planning import Assumptions, HostSize, LoginCost, TierPlan, plan_tier, storm_seconds
from broker_auth.cli.bench_plan import lines
from broker_auth.errors import InputError
from tests.bench.plan import COST, FIGURES, HOST, document, storm
from tests.cli.running import run


@pytest.mark.parametrize(
    ("devices", "within", "hosts", "limit", "workers", "connections", "seconds"),
    [
        (1, 60, 1, "cores", 1, 1, 0.001),
        (10_000, 600, 1, "memory", 1, 10_000, 10),
        (100_000, 100, 1, "cores", 1, 100_000, 100),  # exactly one host: 1000 logins a second
        (100_001, 100, 2, "cores", 1, 50_001, 50.0005),
        (1_000_000, 100, 10, "cores", 1, 100_000, 100),
        (1_000_000, 10_000, 4, "memory", 1, 250_000, 250),  # 320,000 connections fill half of 64 GB
        (1_000_000, 10, 100, "cores", 1, 10_000, 10),
    ],
)
def test_hosts_are_as_few_as_time_and_room_permit(
    devices: int, within: float, hosts: int, limit: str, workers: int, connections: int, seconds: float
) -> None:
    tier = plan_tier(devices, within, COST, HOST)
    assert (tier.hosts, tier.limit, tier.workers, tier.connections) == (hosts, limit, workers, connections)
    assert tier.seconds == pytest.approx(seconds)
    assert tier.seconds <= within


@pytest.mark.parametrize(
    ("change", "hosts", "limit"),
    [
        ({}, 4, "memory"),
        ({"memory": 128 * 10**9}, 2, "memory"),
        ({"memory": 10**12, "open_files": 600_500}, 2, "open files"),
        ({"memory": 10**12, "open_files": 20_500}, 50, "open files"),
        ({"memory": 10**12, "open_files": 10**7}, 1, "cores"),
        ({"memory": 1}, 1_000_000, "memory"),  # not even one connection fits: never a division by zero
    ],
)
def test_memory_and_open_files_limit_the_connections_of_a_host(change: dict[str, int], hosts: int, limit: str) -> None:
    tier = plan_tier(1_000_000, 1000, COST, replace(HOST, **change))
    assert (tier.hosts, tier.limit) == (hosts, limit)


@pytest.mark.parametrize(
    ("utilization", "cores", "at_once", "server_cores", "service_cores"),
    [(0.5, 4, 10_000, 3.0, 1.0), (1.0, 4, 20_000, 1.5, 0.5), (0.25, 8, 10_000, 6.0, 2.0)],
)
def test_cores_and_burst_follow_the_utilization(
    utilization: float, cores: int, at_once: int, server_cores: float, service_cores: float
) -> None:
    tier = plan_tier(100_000, 100, COST, replace(HOST, cores=cores), Assumptions(utilization=utilization))
    assert tier.at_once == at_once
    assert (tier.server_cores, tier.service_cores) == pytest.approx((server_cores, service_cores))


def test_workers_share_the_requests_of_their_host() -> None:
    big = HostSize(cores=64, memory=10**12, open_files=10**7)
    tier: TierPlan = plan_tier(1_000_000, 100, COST, big)
    assert (tier.hosts, tier.workers) == (1, 10)  # 10,000 logins a second take 5 cores, half used


@pytest.mark.parametrize(("devices", "cores", "seconds"), [(1000, 1, 3.0), (1000, 2, 1.5), (10_000, 2, 15.0)])
def test_storm_uses_every_core_for_servers_service_and_clients(devices: int, cores: int, seconds: float) -> None:
    assert storm_seconds(devices, COST, cores) == pytest.approx(seconds)


def test_costs_come_from_the_figures() -> None:
    measured = BenchFigures.from_document(FIGURES, "f")
    assert measured.nodes == LoginCost(server=0.0015, service=0.0005, client=0.001, memory=100_000)
    cold = 0.0004 + 0.0002  # a certificate that the service has not seen
    assert measured.members.service == pytest.approx(cold)
    checks = [
        (check.devices, check.predicted, check.cpu_ratio, check.measured, check.failed, check.missing)
        for check in measured.checks()
    ]
    assert [check[1] for check in checks] == pytest.approx([0.15, 13.5])
    assert [check[2] for check in checks] == pytest.approx([1.0, 1.5])
    assert [check[3:] for check in checks] == [(0.2, 0, 0), (20.0, 4000, 3)]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "not JSON"),
        ("[]", "Expected `object`"),
        (json.dumps({**FIGURES, "decision": {}}), "mtls_xkey"),
        (json.dumps({name: part for name, part in FIGURES.items() if name != "storm"}), "`storm`"),
        (json.dumps({**FIGURES, "storm": {"9": {"skipped": "few files"}}}), "ulimit -n"),
    ],
)
def test_missing_figures_are_named_in_one_line(tmp_path: Path, content: str, message: str) -> None:
    path = tmp_path / "figures.json"
    path.write_text(content)
    with pytest.raises(InputError, match=r"figures\.json: ") as error:
        figures.read(path)
    assert message in str(error.value)
    assert "\n" not in str(error.value)
    with pytest.raises(InputError, match=r"nowhere: No such file"):
        figures.read(Path("nowhere"))


def test_plan_prints_hosts_assumptions_and_the_measured_storms_in_80_columns(tmp_path: Path) -> None:
    path = tmp_path / "figures.json"
    path.write_text(json.dumps(FIGURES))
    size = ("--cores", "4", "--memory", "64", "--open-files", "1000000")
    shown = run("bench", "plan", "--devices", "1000000", "--within", "10m", "--figures", path, *size)
    assert (shown.code, shown.err) == (0, "")
    assert max(map(len, shown.out.splitlines())) <= 80
    assert "1,000,000 devices within 10m: 1,666.7 logins per second." in shown.out
    assert "Each host: 4 cores, 64 GB, 1,000,000 open files." in shown.out
    assert "9,000       13.5 s      20.0 s      1.50         4,000   3 never got in" in shown.out
    planned = run("bench", "plan", "--devices", "1000000", "--figures", path, *size, "--json").json
    assert planned["edges"]["hosts"] == 4
    assert planned["edges"]["limit"] == "memory"
    assert planned["fleet_servers"]["hosts"] == 4
    assert planned["within_s"] == 600


@pytest.mark.parametrize(
    ("seconds", "failed", "busy"),
    [(0.15, 0, False), (0.22, 0, False), (0.23, 0, True), (0.5, 1, False)],  # 0.15 s are predicted
)
def test_busy_machine_is_mentioned(seconds: float, failed: int, busy: bool) -> None:
    planned = document(10, {**FIGURES, "storm": {"100": {"callout_xkey": storm(seconds, failed_first=failed)}}})
    assert planned["busy"] is busy
    assert ("other programs use this machine" in lines(planned)[-1]) is busy


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ((), "Missing option '--devices'"),
        (("--devices", "0"), "--devices"),
        (("--devices", "10", "--within", "soon"), "not a duration"),
        (("--devices", "10", "--open-files", "100"), "--open-files"),
    ],
)
def test_wrong_options_are_refused_before_anything_is_measured(options: tuple[str, ...], message: str) -> None:
    shown = run("bench", "plan", *options)
    assert shown.code == 2
    assert message in shown.err
    assert "measuring" not in shown.err


@pytest.mark.parametrize(
    ("words", "offered"), [("bench pl", "plan"), ("bench dec", "decision"), ("bench decision --qu", "--quick")]
)
def test_run_may_be_left_out_when_completing(words: str, offered: str) -> None:
    words = f"broker-auth {words}"
    env = {"_BROKER_AUTH_COMPLETE": "bash_complete", "COMP_WORDS": words, "COMP_CWORD": str(len(words.split()) - 1)}
    assert run(env=env).out.splitlines() == [f"plain,{offered}"]


@pytest.mark.e2e
def test_plan_is_computed_from_a_measurement(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(measure, "QUICK", measure.MeasurementPlan(rounds=1, count=5))
    monkeypatch.setattr(connects, "QUICK", connects.SlicePlan(rounds=1, seconds=0.05))
    monkeypatch.setattr(figures, "_STORM", 20)
    measured = figures.measure_now()
    assert measured.nodes.server > 0
    assert measured.members.service > 0
    (check,) = measured.checks()
    assert (check.devices, check.missing) == (20, 0)
