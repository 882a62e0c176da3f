"""Parts ``connects`` and ``storm``: real TLS connections, static authorization against callout, in one run."""

from __future__ import annotations

import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import msgspec

from broker_auth.bench import connector
from broker_auth.bench.connector import Connected, Task
from broker_auth.bench.materials import Trust
from broker_auth.bench.measure import process_cpu_seconds, resident_mb
from broker_auth.bench.processes import Worker
from broker_auth.bench.site import Site
from broker_auth.errors import OperationError
from broker_auth.sandbox.natsserver import NatsServer

MODES: Final = ("static", "callout", "callout_xkey")
_SPARE_FILES: Final = 500  # descriptors besides connections


def run_connects(seconds: float, rounds: int) -> dict[str, Any]:
    """Connections per second and CPU milliseconds per connection, by mode; modes take turns, round by round."""
    trust = Trust()
    samples: dict[str, list[dict[str, float]]] = {mode: [] for mode in MODES}
    for _ in range(rounds):
        for mode in MODES:
            with _deployment(mode, trust) as (site, server, worker, token):
                task = Task(port=site.brokers[0].port, ca=str(site.directory / "ca.pem"), token=token, seconds=seconds)
                samples[mode].append(_rates(task, server, worker))
    results: dict[str, Any] = {mode: _mean(rows) for mode, rows in samples.items()}
    for mode in MODES[1:]:
        results[mode]["share_of_static"] = round(
            results[mode]["connects_per_s"] / results["static"]["connects_per_s"], 3
        )
    return results


def run_storm(counts: tuple[int, ...]) -> dict[str, Any]:
    """For each number of nodes and each mode: failures at the first try, seconds until all are in, memory."""
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


@contextmanager
def _deployment(mode: str, trust: Trust) -> Iterator[tuple[Site, NatsServer, Worker | None, str]]:
    """A running nats-server of this mode with its service, and the token that gets in."""
    with tempfile.TemporaryDirectory(prefix="broker-auth-bench-") as directory:
        site = Site(Path(directory), trust, xkey=mode == "callout_xkey", tls=True)
        token = trust.provisioning_token(time.time())
        if mode == "static":
            with site.static_server(token) as server:
                yield site, server, None, token
            return
        with site.callout_server() as server, Worker(site) as worker:
            yield site, server, worker, token


def _rates(task: Task, server: NatsServer, worker: Worker | None) -> dict[str, float]:
    server_cpu = process_cpu_seconds(server.pid)
    service_cpu = worker.counters().cpu_seconds if worker else 0.0
    with _connector(task) as process:
        done = _result(process)
    server_cpu = process_cpu_seconds(server.pid) - server_cpu
    service_cpu = worker.counters().cpu_seconds - service_cpu if worker else 0.0
    per_connection = 1000 / done.connections
    return {
        "connects_per_s": done.connections / done.seconds,
        "server_cpu_ms": server_cpu * per_connection,
        "service_cpu_ms": service_cpu * per_connection,
        "client_cpu_ms": done.cpu_seconds * per_connection,
        "p50_ms": done.p50_ms,
        "p99_ms": done.p99_ms,
        "failed": float(done.failed_first),
    }


def _storm(mode: str, trust: Trust, count: int) -> dict[str, float]:
    with _deployment(mode, trust) as (site, server, worker, token):
        task = Task(port=site.brokers[0].port, ca=str(site.directory / "ca.pem"), token=token, at_once=count)
        with _connector(task) as process:
            done = _result(process)
            memory = {"server_mb": resident_mb(server.pid), "service_mb": resident_mb(worker.pid) if worker else 0.0}
    figures = {
        "failed_first": done.failed_first,
        "missing": done.missing,
        "all_in_s": done.seconds,
        "p50_ms": done.p50_ms,
        "p99_ms": done.p99_ms,
        **memory,
    }
    return {name: round(value, 2) for name, value in figures.items()}


@contextmanager
def _connector(task: Task) -> Iterator[subprocess.Popen[bytes]]:
    process = subprocess.Popen(  # noqa: S603 - our own program
        [sys.executable, "-m", connector.__name__],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert process.stdin is not None
    try:
        process.stdin.write(msgspec.json.encode(task) + b"\n")
        process.stdin.flush()
        yield process
        process.stdin.close()
        process.wait(30)
    finally:
        if process.poll() is None:
            process.kill()
        process.wait()
        for stream in (process.stdout, process.stderr):
            assert stream is not None
            stream.close()


def _result(process: subprocess.Popen[bytes]) -> Connected:
    """The connector bounds its own time: every connection has a timeout, every storm an end."""
    assert process.stdout is not None
    assert process.stderr is not None
    line = process.stdout.readline()
    if not line:
        said = process.stderr.read().decode("utf-8", "replace").strip().splitlines() or ["it said nothing"]
        raise OperationError(f"no connection could be made: {said[-1]}")
    return msgspec.json.decode(line, type=Connected)


def _mean(rows: list[dict[str, float]]) -> dict[str, float]:
    return {name: round(sum(row[name] for row in rows) / len(rows), 3) for name in rows[0]}
