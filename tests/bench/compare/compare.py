"""Compare the CPU time of this service and two others on the same decision: ``make bench-compare``.

The figure is CPU time per answered request, with 64 requests in flight and a provisioning token that is cached.
Only broker-auth writes audit records and updates counters. Each round runs every service once.
A service that cannot be built here (no network, no Go) is reported and skipped.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
import venv
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median

from broker_auth.bench.flooder import FloodTask
from broker_auth.bench.materials import Trust
from broker_auth.bench.measure import process_cpu_seconds
from broker_auth.bench.processes import Worker, flood
from broker_auth.bench.service import materials
from broker_auth.bench.site import BenchDeployment

HERE = Path(__file__).parent
ROUNDS = 5
SECONDS = 2.0
_FILES = ("service.nk", "issuer.nk", "signer.pem")


def main() -> int:
    """Build the available services, measure all of them in each round, and print the medians."""
    with tempfile.TemporaryDirectory(prefix="broker-auth-compare-") as name:
        directory = Path(name)
        python = _nats_callout(directory)
        commands = {"nats-callout": python, "  on uvloop": [*python, "--uvloop"], "callout.go": _callout_go(directory)}
        if not python:
            del commands["  on uvloop"]
        figures = _measure(directory, {name: command for name, command in commands.items() if command})
    own = median(figures["broker-auth"])
    print(f"{'service':<14} {'CPU us':>8} {'relative':>12}")
    for name, costs in figures.items():
        print(f"{name:<14} {median(costs):>8.1f} {median(costs) / own:>12.2f}")
    return 0


def _measure(directory: Path, commands: dict[str, list[str]]) -> dict[str, list[float]]:
    trust = Trust()
    deployment = BenchDeployment(directory, trust, xkey=False)
    pool, _ = materials(deployment, trust, 1000)
    broker = deployment.brokers[0]
    arguments = [f"nats://127.0.0.1:{broker.port}", *(str(directory / file) for file in _FILES)]
    task = FloodTask(port=broker.port, password=deployment.password, pool=str(pool), seconds=SECONDS)
    figures: dict[str, list[float]] = {name: [] for name in ("broker-auth", *commands)}
    with deployment.server(broker):
        for _ in range(ROUNDS):
            with Worker(deployment) as worker:
                flood(task)  # warm up
                before = worker.counters().cpu_seconds
                answered = flood(task).answered
                figures["broker-auth"].append((worker.counters().cpu_seconds - before) / answered * 1e6)
            for name, command in commands.items():
                with _running([*command, *arguments]) as process:
                    flood(task)  # warm up
                    cpu = process_cpu_seconds(process.pid)
                    answered = flood(task).answered
                    figures[name].append((process_cpu_seconds(process.pid) - cpu) / max(1, answered) * 1e6)
    return figures


@contextmanager
def _running(command: list[str]) -> Iterator[subprocess.Popen[str]]:
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            if process.stdout.readline().strip() != "ready":
                raise SystemExit(f"{command[0]} did not start")
            yield process
        finally:
            process.kill()


def _nats_callout(directory: Path) -> list[str]:
    """Install nats-callout in a virtual environment; return its command, or an empty list on failure."""
    home = directory / "venv"
    venv.create(home, with_pip=True)
    packages = ["nats-callout==0.1.1", "nats-py", "cryptography", "uvloop"]
    done = subprocess.run([home / "bin" / "pip", "install", "--quiet", *packages], capture_output=True, text=True)
    if done.returncode:
        print(f"nats-callout left out: {_last(done.stderr)}", file=sys.stderr)
        return []
    return [str(home / "bin" / "python"), str(HERE / "nats_callout_service.py")]


def _callout_go(directory: Path) -> list[str]:
    """Build the Go service; return its command, or an empty list on failure."""
    if shutil.which("go") is None:
        print("callout.go left out: there is no Go on this machine", file=sys.stderr)
        return []
    source = shutil.copytree(HERE / "go", directory / "go")
    built = directory / "callout-go"
    done = subprocess.run(
        ["go", "build", "-mod=mod", "-o", str(built), "."], cwd=source, capture_output=True, text=True
    )
    if done.returncode:
        print(f"callout.go left out: {_last(done.stderr)}", file=sys.stderr)
        return []
    return [str(built)]


def _last(text: str) -> str:
    return (text.strip().splitlines() or ["no reason given"])[-1]


if __name__ == "__main__":
    sys.exit(main())
