"""Costs and figures from which plans are computed in tests."""

from __future__ import annotations

from typing import Any, Final

from broker_auth.bench.figures import BenchFigures
from broker_auth.bench.planning import Assumptions, HostSize, LoginCost
from broker_auth.cli.bench_plan import plan_document

# 2 ms of CPU for a login, 100 kB for a connection: a core admits 250 logins a second if half of it is used.
COST: Final = LoginCost(server=0.0015, service=0.0005, client=0.001, memory=100_000)
HOST: Final = HostSize(cores=4, memory=64 * 10**9, open_files=1_000_500)


def storm(seconds: float, login_cpu_ms: float = 3.0, *, failed_first: int = 0, missing: int = 0) -> dict[str, float]:
    """Return the figures of a storm on two cores."""
    return {
        "all_in_s": seconds,
        "failed_first": failed_first,
        "missing": missing,
        "connection_kb": 100,
        "login_cpu_ms": login_cpu_ms,
        "cores": 2,
    }


FIGURES: Final[dict[str, Any]] = {
    "decision": {"mtls_xkey": {"cpu_us": 150.0}, "mtls_cold_xkey": {"cpu_us": 350.0}},
    "connects": {
        "callout_xkey": {"server_cpu_ms": 1.5, "service_cpu_ms": 0.5, "client_cpu_ms": 1.0},
        "callout_xkey_members": {"server_cpu_ms": 1.7, "service_cpu_ms": 0.4, "client_cpu_ms": 1.1},
        "choria": {"skipped": "no program"},
    },
    "storm": {
        "100": {"callout_xkey": storm(0.2, 3.0)},
        "9000": {"callout_xkey": storm(20.0, 4.5, failed_first=4000, missing=3)},
        "90000": {"skipped": "needs 90500 open files, 20000 are allowed"},
    },
}


def document(devices: int = 1000, figures: dict[str, Any] = FIGURES) -> dict[str, Any]:
    """Return the document of ``bench plan`` for devices that return within a minute."""
    return plan_document(devices, 60, BenchFigures.from_document(figures, "f"), HOST, Assumptions())
