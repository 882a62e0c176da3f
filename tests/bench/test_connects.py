"""Figures of part ``connects`` computed from synthetic slices, and the variable that names the Choria program."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from broker_auth.bench import choria
from broker_auth.bench.connector import Connected
from broker_auth.bench.connects import Slice, figures
from broker_auth.errors import InputError


def make_slice(connections: int, service: float | None = None, *, floor_us: float = 100.0) -> Slice:
    """Return a slice of half a second; ``service`` is the service's CPU in milliseconds per connection."""
    times = [float(number) for number in range(connections)]
    done = Connected(times_ms=times, failed_first=1, missing=0, seconds=0.5, cpu_seconds=0.001 * connections)
    return Slice(
        done=done,
        server_cpu=0.002 * connections,
        service_cpu=None if service is None else service * connections / 1000,
        floor_us=floor_us,
        warm_floor_us=floor_us / 2,
    )


ROUNDS = [
    {"static": make_slice(100), "callout": make_slice(50, 0.3)},
    {"static": make_slice(20), "callout": make_slice(10, 0.9, floor_us=300)},
    {"static": make_slice(100), "callout": make_slice(60, 0.4)},
]


def test_mode_is_compared_with_floor_and_static_authorization_of_the_same_round() -> None:
    shown = figures("callout", ROUNDS, compare=True)
    assert (shown["ratio"], shown["ratio_min"], shown["ratio_max"]) == (3.0, 3.0, 4.0)
    assert (shown["share_of_static"], shown["share_of_static_min"], shown["share_of_static_max"]) == (0.5, 0.5, 0.6)
    assert shown["pairs"] == 3
    assert shown["noisy"] is True


def test_costs_are_averaged_over_all_rounds() -> None:
    shown = figures("callout", ROUNDS, compare=False)
    assert shown["connects_per_s"] == 80
    assert (shown["server_cpu_ms"], shown["client_cpu_ms"]) == (2.0, 1.0)
    assert shown["service_cpu_ms"] == pytest.approx((50 * 0.3 + 10 * 0.9 + 60 * 0.4) / 120)
    assert (shown["floor_us"], shown["warm_floor_us"], shown["failed"]) == (100, 50, 3)
    assert "share_of_static" not in shown


def test_static_authorization_is_not_compared_with_itself() -> None:
    assert {"ratio", "share_of_static", "noisy"}.isdisjoint(figures("static", ROUNDS, compare=True))


def test_choria_program_is_named_by_a_variable() -> None:
    assert choria.find_program({}) is None
    assert choria.find_program({"CHORIA": sys.executable}) == Path(sys.executable)


@pytest.mark.parametrize("name", ["choria.conf", "."])
def test_choria_variable_must_name_a_program(tmp_path: Path, name: str) -> None:
    (tmp_path / "choria.conf").touch(mode=0o600)
    with pytest.raises(InputError, match=r"^CHORIA: .* is not a program; name a choria binary$"):
        choria.find_program({"CHORIA": str(tmp_path / name)})
