"""Measures versions of this service in one run: the CPU time of a connection, in alternating slices.

``python -m tests.bench.versions before=DIRECTORY after=DIRECTORY`` compares checkouts, each with its own nats-server,
with xkey on. Name one directory twice to see the noise: two processes of the same code differ too.
"""

from __future__ import annotations

import argparse
import os
import random
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from statistics import median

from broker_auth.bench.connects import Slice, take_slice
from broker_auth.bench.contenders import Clients, contender, floor_for
from broker_auth.bench.materials import Trust
from broker_auth.bench.measure import percentile
from broker_auth.bench.pairs import MeasuredPair, ratio_of
from broker_auth.bench.processes import Connectors

SECONDS = 0.4  # of a slice


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, and print a line for each version."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench.versions", description=__doc__)
    parser.add_argument(
        "versions", nargs="+", metavar="LABEL=DIRECTORY", help="the first is what others are compared with"
    )
    parser.add_argument("--clients", type=Clients, default=Clients.MEMBERS, choices=list(Clients))
    parser.add_argument("--rate", type=int, default=0, help="connections per second; 0: 64 at a time")
    parser.add_argument("--rounds", type=int, default=60)
    asked = parser.parse_args(arguments)
    versions = {label: Path(path) for label, _, path in (version.partition("=") for version in asked.versions)}
    rounds = measure(versions, asked.clients, asked.rate, asked.rounds)
    first = next(iter(versions))
    for label in versions:
        print(f"{label:12}", "  ".join(f"{name} {value}" for name, value in figures(label, first, rounds).items()))


def measure(versions: Mapping[str, Path], clients: Clients, rate: int, rounds: int) -> list[dict[str, Slice]]:
    """Return a slice of each version for each round, which they take in random order."""
    trust = Trust()
    with tempfile.TemporaryDirectory(prefix="broker-auth-versions-") as name, ExitStack() as stack:
        contenders = {}
        for label, checkout in versions.items():
            directory = Path(name) / label
            directory.mkdir()
            os.environ["PYTHONPATH"] = str(checkout.absolute())  # of the service; this process has imported its own
            contenders[label] = stack.enter_context(contender("callout_xkey", clients, trust, directory))
        connectors, floor = stack.enter_context(Connectors()), floor_for(clients, trust)
        measured = []
        for _ in range(1 + rounds):
            order = random.sample(list(contenders), len(contenders))
            measured.append({label: take_slice(contenders[label], connectors, floor, SECONDS, rate) for label in order})
    return measured[1:]  # the first one warms


def figures(label: str, first: str, rounds: Sequence[Mapping[str, Slice]]) -> dict[str, str]:
    """Return the medians of one version, and its CPU time divided by that of ``first``, with the 95 % interval."""
    own = [slices[label] for slices in rounds]
    shown = {
        "service_us": f"{median(map(service_us, own)):.0f}",
        "floor_us": f"{median(one.floor_us for one in own):.0f}",
        "warm_floor_us": f"{median(one.warm_floor_us for one in own):.0f}",
        "connects_per_s": f"{median(one.per_second for one in own):.0f}",
        "p50_ms": f"{median(percentile(one.done.times_ms, 0.5) for one in own):.1f}",
        "p99_ms": f"{median(percentile(one.done.times_ms, 0.99) for one in own):.1f}",
    }
    if label != first:
        pairs = [MeasuredPair(work=service_us(slices[label]), floor=service_us(slices[first])) for slices in rounds]
        ratio = ratio_of(pairs)
        shown[f"to_{first}"] = f"{ratio.median:.3f} ({ratio.low:.3f} to {ratio.high:.3f})"
    return shown


def service_us(one: Slice) -> float:
    """Return the service's CPU time of a connection in microseconds."""
    assert one.service_cpu is not None  # every version is a service
    return one.service_cpu / len(one.done.times_ms) * 1e6


if __name__ == "__main__":
    main()
