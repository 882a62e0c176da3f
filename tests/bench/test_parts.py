"""Every part of the bench, at a very small scale: it ends, and its JSON has the documented keys."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from rich.console import Console

from broker_auth.bench import connects, decision, flood, report, scale, service, storm
from broker_auth.bench.contenders import MODES, Clients
from broker_auth.bench.measure import MeasurementPlan
from broker_auth.bench.run import PARTS, run
from broker_auth.bench.service import Load
from broker_auth.cli import main
from broker_auth.errors import InputError
from tests.policy.markdown import code, tables

RATIO = {name for row in tables("interface.md")["bench run"][1][1:] for name in code(row[0])}
TINY = MeasurementPlan(rounds=1, count=5)


def test_decision_reports_cost_floor_and_stages_of_each_kind() -> None:
    figures = decision.run(TINY)
    kinds = ("provisioning", "mtls", "server_chain", "client", "bad_token")
    assert set(figures) == {kind + cold + xkey for kind in kinds for cold in ("", "_cold") for xkey in ("", "_xkey")}
    for kind, cost in figures.items():
        assert set(cost) == {"cpu_us", "floor_us", *RATIO, "alone", "alone_min", "alone_max", "stages"}
        assert cost["cpu_us"] > 0, kind
        assert cost["floor_us"] > 0, kind
        assert set(cost["stages"]) == set(decision.STAGES)


def test_floor_of_a_cold_credential_exceeds_that_of_a_cached_credential() -> None:
    """The floor contains the cryptography of its kind of request only."""
    figures = decision.run(MeasurementPlan(rounds=5, count=20), ("server_chain",))
    assert figures["server_chain_cold"]["floor_us"] > figures["server_chain"]["floor_us"]


@pytest.mark.e2e
def test_service_reports_rates_latencies_and_memory() -> None:
    figures = service.run(Load(seconds=0.3, requests=50, workers=(1, 2)))
    assert set(figures) == {"plain", "plain_2", "xkey", "xkey_2"}
    for cost in figures.values():
        assert cost["requests_per_s"] > 0
        assert set(cost) > RATIO
        assert cost["ratio"] > 0
        assert 0 < cost["p50_ms"] <= cost["p99_ms"]
        assert cost["resident_mb"] > 1


@pytest.mark.e2e
def test_connects_compares_all_modes() -> None:
    figures = connects.run(
        connects.SlicePlan(rounds=1, seconds=0.05), clients=[Clients.MEMBERS]
    )  # test_all_clients_are_admitted_after_a_storm covers nodes
    assert figures.pop("choria") == {"skipped": "set CHORIA to the path of a choria program to measure its broker, too"}
    modes = {f"{mode}_members" for mode in MODES}
    assert set(figures) == modes | {f"{mode}_at_100" for mode in modes}
    for name, cost in figures.items():
        assert cost["failed"] == 0, name
        assert cost["connects_per_s"] > 0
        assert (cost["service_cpu_ms"] > 0) is ("callout" in name)
        assert (set(cost) > RATIO) is ("callout" in name)
        assert ("share_of_static" in cost) is ("callout" in name and not name.endswith("_at_100"))


@pytest.mark.e2e
def test_all_clients_are_admitted_after_a_storm() -> None:
    (figures,) = storm.run((20,)).values()
    for mode in MODES:
        assert figures[mode]["missing"] == 0
        assert figures[mode]["server_mb"] > 1


@pytest.mark.e2e
def test_flood_counts_fleet_and_flood_separately() -> None:
    figures = flood.run(seconds=0.3)
    for where in ("edge", "single"):
        assert figures[where]["fleet"]["sent_per_s"] > 0
        assert figures[where]["flood"]["sent_per_s"] > figures[where]["fleet"]["sent_per_s"]


def test_scale_covers_each_number_of_nodes_and_tokens() -> None:
    figures = scale.run(TINY, (5, 20), (2, 3))
    assert set(figures) == {f"{nodes}_nodes_{count}_tokens" for nodes in (5, 20) for count in (2, 3)}
    assert all(set(cost) == {"cpu_us", "floor_us", *RATIO, "resident_mb"} for cost in figures.values())


def test_unknown_part_is_named() -> None:
    with pytest.raises(InputError, match=r"'speed'.*decision"):
        run(["speed"], quick=True)


def test_invalid_choria_variable_fails_before_any_measurement(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("CHORIA", "/nowhere/choria")
    started: list[str] = []
    with pytest.raises(InputError, match=r"^CHORIA: /nowhere/choria is not a program"):
        run([], quick=True, started=started.append)
    assert not started


def test_command_prints_one_json_document(monkeypatch: pytest.MonkeyPatch) -> None:
    tiny = replace(PARTS["decision"], quick=lambda: decision.run(TINY, ("mtls",)))  # the help, built later, stays
    monkeypatch.setitem(PARTS, "decision", tiny)
    done = CliRunner().invoke(main, ["bench", "decision", "--quick", "--json"])
    assert done.exit_code == 0, done.output
    document: dict[str, Any] = json.loads(done.stdout)
    assert set(document) == {"decision"}
    assert set(document["decision"]["mtls"]) > RATIO


def test_tables_show_every_row(tmp_path: Path) -> None:
    figures = {
        "decision": {"mtls": {"cpu_us": 150.0, "stages": {"read": 70.0, "decide": 5.0, "write": 60.25}}},
        "flood": {"edge": {"fleet": {"x": 1}}},
    }
    text = shown(figures, tmp_path)
    assert re.search(r"cpu_us .* read .* decide .* write", text)
    assert re.search(r"mtls .* 150 .* 70 .* 5 .* 60\.25", text), "figures are cut on a narrow terminal"
    assert "edge fleet" in text
    assert all(part in PARTS for part in figures)


def test_noisy_rows_are_named_in_one_line(tmp_path: Path) -> None:
    kinds = {name: {"ratio": 1.2, "noisy": noisy} for name, noisy in (("mtls", False), ("client", True), ("x", True))}
    text = shown({"decision": kinds, "scale": {"5_nodes": {"ratio": 1.3, "noisy": False}}}, tmp_path)
    noisy = [line for line in text.splitlines() if "noisy" in line]
    assert noisy == ["Too noisy to mean anything: client, x. Repeat on a quieter machine."]


def test_skipped_rows_are_named_below_the_table_with_the_reason(tmp_path: Path) -> None:
    text = shown({"connects": {"static": {"p50_ms": 1.5}, "choria": {"skipped": "set CHORIA to a program"}}}, tmp_path)
    assert "Left out: choria; set CHORIA to a program." in text.splitlines()
    assert text.count("choria") == 1
    assert "skipped" not in text


def test_extremes_of_a_ratio_are_shown_beside_it(tmp_path: Path) -> None:
    text = shown({"scale": {"5_nodes": {"ratio": 1.25, "ratio_min": 1.2, "ratio_max": 1.5, "pairs": 16}}}, tmp_path)
    assert "1.25 (1.2 to 1.5)" in text
    assert "ratio_min" not in text


def shown(figures: dict[str, Any], directory: Path) -> str:
    """Return the output on a narrow terminal."""
    with (directory / "out").open("w+", encoding="utf-8") as out:
        report.show(figures, Console(file=out, width=20))
        out.seek(0)
        return out.read()
