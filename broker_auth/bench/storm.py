"""Part ``storm``: many real TLS connections at the same moment, static authorization against callout."""

from __future__ import annotations

import resource
import tempfile
from pathlib import Path
from typing import Any, Final

import msgspec

from broker_auth.bench.contenders import MODES, Clients, contender
from broker_auth.bench.materials import Trust
from broker_auth.bench.measure import percentile, processors, resident_mb
from broker_auth.bench.processes import Connectors

_SPARE_FILES: Final = 500  # descriptors besides connections


def run(counts: tuple[int, ...]) -> dict[str, Any]:
    """Return failures at the first try, seconds until all are in and memory, for each number of nodes and each mode."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < hard:  # both ends of the storm inherit it
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    trust = Trust()
    results: dict[str, Any] = {}
    for count in counts:
        if count + _SPARE_FILES > hard:
            results[str(count)] = {"skipped": f"needs {count + _SPARE_FILES} open files, {hard} are allowed"}
            continue
        results[str(count)] = {mode: _storm(mode, trust, count) for mode in MODES}
    return results


def _storm(mode: str, trust: Trust, count: int) -> dict[str, float]:
    with (
        tempfile.TemporaryDirectory(prefix="broker-auth-bench-") as directory,
        contender(mode, Clients.NODES, trust, Path(directory)) as broker,
        Connectors() as connectors,
    ):
        idle_mb, before = resident_mb(broker.server), broker.cpu_seconds
        done = connectors.run(msgspec.structs.replace(broker.task, at_once=count))
        cpu_seconds = sum(broker.cpu_seconds) - sum(before) + done.cpu_seconds
        service_mb = resident_mb(broker.service) if broker.service else 0.0
        memory = {"server_mb": resident_mb(broker.server), "service_mb": service_mb}
    figures = {
        "failed_first": done.failed_first,
        "missing": done.missing,
        "all_in_s": done.seconds,
        "p50_ms": percentile(done.times_ms, 0.5),
        "p99_ms": percentile(done.times_ms, 0.99),
        **memory,
        "connection_kb": (memory["server_mb"] - idle_mb) * 1000 / (count - done.missing),
        "login_cpu_ms": cpu_seconds * 1000 / count,  # of server, service and client
        "cores": float(processors()),  # which these share
    }
    return {name: round(value, 2) for name, value in figures.items()}
