"""Every part of the bench, very small: it ends, leaves nothing running, and its JSON has the promised shape."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from rich.console import Console

from broker_auth.bench import connects, decision, flood, report, scale, service
from broker_auth.bench.measure import Plan
from broker_auth.bench.run import PARTS, run
from broker_auth.bench.service import Load
from broker_auth.cli import main
from broker_auth.errors import InputError
from tests.policy.markdown import code, tables

RATIO = {name for row in tables("interface.md")["bench"][1][1:] for name in code(row[0])}
TINY = Plan(rounds=1, count=5)


def test_decision_tells_cost_floor_and_stages_of_each_kind() -> None:
    figures = decision.run(TINY)
    kinds = ("provisioning", "mtls", "server_chain", "client", "bad_token")
    assert set(figures) == {kind + cold + xkey for kind in kinds for cold in ("", "_cold") for xkey in ("", "_xkey")}
    for kind, cost in figures.items():
        assert set(cost) == {"cpu_us", "floor_us", *RATIO, "alone", "alone_min", "alone_max", "stages"}
        assert cost["cpu_us"] > 0, kind
        assert cost["floor_us"] > 0, kind
        assert set(cost["stages"]) == set(decision.STAGES)


def test_a_cold_credential_costs_more_floor_than_a_cached_one() -> None:
    """The floor of a kind is that of its own cryptography."""
    figures = decision.run(Plan(rounds=5, count=20), ("server_chain",))
    assert figures["server_chain_cold"]["floor_us"] > figures["server_chain"]["floor_us"]


def test_service_counts_what_both_sides_saw() -> None:
    figures = service.run(Load(seconds=0.3, requests=50, workers=(1, 2)))
    assert set(figures) == {"plain", "plain_2", "xkey", "xkey_2"}
    for cost in figures.values():
        assert cost["requests_per_s"] > 0
        assert set(cost) > RATIO
        assert cost["ratio"] > 0
        assert 0 < cost["p50_ms"] <= cost["p99_ms"]
        assert cost["resident_mb"] > 1


def test_connects_compares_static_authorization_with_callout() -> None:
    figures = connects.run_connects(seconds=0.3, rounds=1)
    assert set(figures) == {"static", "callout", "callout_xkey"}
    assert figures["static"]["service_cpu_ms"] == 0
    for mode in ("callout", "callout_xkey"):
        assert figures[mode]["service_cpu_ms"] > 0
        assert figures[mode]["failed"] == 0
        assert figures[mode]["share_of_static"] > 0


def test_everybody_gets_in_after_a_storm() -> None:
    (figures,) = connects.run_storm((20,)).values()
    for mode in connects.MODES:
        assert figures[mode]["missing"] == 0
        assert figures[mode]["server_mb"] > 1


def test_flood_counts_fleet_and_flood_apart() -> None:
    figures = flood.run(seconds=0.3)
    for where in ("edge", "single"):
        assert figures[where]["fleet"]["sent_per_s"] > 0
        assert figures[where]["flood"]["sent_per_s"] > figures[where]["fleet"]["sent_per_s"]


def test_scale_covers_each_number_of_nodes_and_tokens() -> None:
    figures = scale.run(TINY, (5, 20), (2, 3))
    assert set(figures) == {f"{nodes}_nodes_{count}_tokens" for nodes in (5, 20) for count in (2, 3)}
    assert all(set(cost) == {"cpu_us", "floor_us", *RATIO, "resident_mb"} for cost in figures.values())


def test_a_part_that_does_not_exist_is_named() -> None:
    with pytest.raises(InputError, match=r"'speed'.*decision"):
        run(["speed"], quick=True)


def test_the_command_prints_one_json_document() -> None:
    done = CliRunner().invoke(main, ["bench", "decision", "--quick", "--json"])
    assert done.exit_code == 0, done.output
    document: dict[str, Any] = json.loads(done.stdout)
    assert set(document) == {"decision"}


def test_tables_show_every_row(tmp_path: Path) -> None:
    figures = {
        "decision": {"mtls": {"cpu_us": 150.0, "stages": {"read": 70.0, "decide": 5.0, "write": 60.25}}},
        "flood": {"edge": {"fleet": {"x": 1}}},
    }
    text = shown(figures, tmp_path)
    assert re.search(r"cpu_us .* read .* decide .* write", text)
    assert re.search(r"mtls .* 150 .* 70 .* 5 .* 60\.25", text), "nothing is cut, however narrow the terminal"
    assert "edge fleet" in text
    assert all(part in PARTS for part in figures)


def test_rows_too_noisy_to_mean_anything_are_named_in_one_line(tmp_path: Path) -> None:
    kinds = {name: {"ratio": 1.2, "noisy": noisy} for name, noisy in (("mtls", False), ("client", True), ("x", True))}
    text = shown({"decision": kinds, "scale": {"5_nodes": {"ratio": 1.3, "noisy": False}}}, tmp_path)
    noisy = [line for line in text.splitlines() if "noisy" in line]
    assert noisy == ["Too noisy to mean anything: client, x. Repeat on a quieter machine."]


def shown(figures: dict[str, Any], directory: Path) -> str:
    """Return what is printed on a narrow terminal."""
    with (directory / "out").open("w+", encoding="utf-8") as out:
        report.show(figures, Console(file=out, width=20))
        out.seek(0)
        return out.read()
