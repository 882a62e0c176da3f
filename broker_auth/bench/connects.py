"""Part ``connects``: real TLS connections to brokers that decide in different ways, side by side in one run.

All brokers run all the time and take turns in slices of less than a second, so that each meets the machine in the
same state. Nodes with a provisioning token come first, then members with a certificate.
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any, Final

import msgspec

from broker_auth.bench.choria import LEFT_OUT
from broker_auth.bench.connector import Connected
from broker_auth.bench.contenders import CHORIA, MODES, STATIC, Clients, Contender, contender, floor_for
from broker_auth.bench.floor import Floor
from broker_auth.bench.materials import Trust
from broker_auth.bench.measure import cpu_us, percentile
from broker_auth.bench.pairs import MeasuredPair, Ratio, ratio_of, verdict
from broker_auth.bench.processes import Connectors

RATE: Final = 100  # connections per second, where there are not as many as possible


@dataclass(frozen=True, slots=True, kw_only=True)
class SlicePlan:
    """The extent of a measurement: each broker ``rounds`` times for ``seconds``, as fast as possible and at a rate."""

    rounds: int
    seconds: float


QUICK: Final = SlicePlan(rounds=8, seconds=0.15)
FULL: Final = SlicePlan(rounds=24, seconds=0.4)


@dataclass(frozen=True, slots=True, kw_only=True)
class Slice:
    """One broker for a moment.

    Attributes:
        server_cpu: seconds.
        service_cpu: seconds; None where the broker decides by itself.
        floor_us: crypto floor of one callout, meanwhile, in a process just woken up.
        warm_floor_us: the same right afterwards.
    """

    done: Connected
    server_cpu: float
    service_cpu: float | None
    floor_us: float
    warm_floor_us: float

    @property
    def per_second(self) -> float:
        """Connections per second."""
        return len(self.done.times_ms) / self.done.seconds


def run(plan: SlicePlan, choria: Path | None = None, clients: Sequence[Clients] = tuple(Clients)) -> dict[str, Any]:
    """Return what a connection costs, by mode.

    Names of modes end in ``_members`` where these connect, and in ``_at_100`` at :data:`RATE`.

    Args:
        plan: how much to measure.
        choria: the program, if the Choria Broker is to be measured, too.
        clients: who connects.
    """
    trust = Trust()
    results: dict[str, Any] = {}
    for kind in clients:
        results |= _measure(kind, trust, plan, choria)
    return results if choria else results | {CHORIA: {"skipped": LEFT_OUT}}


def _measure(clients: Clients, trust: Trust, plan: SlicePlan, choria: Path | None) -> dict[str, Any]:
    suffix = "_members" if clients is Clients.MEMBERS else ""
    modes = (*MODES, CHORIA) if choria else MODES
    results: dict[str, Any] = {}
    with tempfile.TemporaryDirectory(prefix="broker-auth-bench-") as name, ExitStack() as stack:
        contenders = {}
        for mode in modes:
            directory = Path(name) / mode
            directory.mkdir()
            contenders[mode] = stack.enter_context(contender(mode, clients, trust, directory, choria))
        connectors, floor = stack.enter_context(Connectors()), floor_for(clients, trust)
        for mode in modes:  # warm
            take_slice(contenders[mode], connectors, floor, plan.seconds / 2)
        for rate in (0, RATE):
            rounds = [
                {mode: take_slice(contenders[mode], connectors, floor, plan.seconds, rate) for mode in modes}
                for _ in range(plan.rounds)
            ]
            for mode in modes:
                results[mode + suffix + (f"_at_{rate}" if rate else "")] = figures(mode, rounds, compare=not rate)
    return results


def take_slice(contender: Contender, connectors: Connectors, floor: Floor, seconds: float, rate: int = 0) -> Slice:
    """Let clients connect for ``seconds``; return the costs.

    Args:
        contender: the broker.
        connectors: the clients.
        floor: measured meanwhile.
        seconds: the duration.
        rate: connections per second; 0: as many as possible.
    """
    task = msgspec.structs.replace(contender.task, seconds=seconds, rate=rate)
    floors: list[tuple[float, float]] = []

    def measure_floor() -> None:
        floors.append((cpu_us(floor, 1), cpu_us(floor, 1)))

    server, service = contender.cpu_seconds
    done = connectors.run(task, measure_floor)
    server_after, service_after = contender.cpu_seconds
    measure_floor()
    return Slice(
        done=done,
        server_cpu=server_after - server,
        service_cpu=None if contender.service is None else service_after - service,
        floor_us=median(cold for cold, _ in floors),
        warm_floor_us=median(warm for _, warm in floors),
    )


def figures(mode: str, rounds: Sequence[Mapping[str, Slice]], *, compare: bool) -> dict[str, Any]:
    """Return the figures of one mode.

    Args:
        mode: which.
        rounds: a slice of every mode.
        compare: whether connections per second mean anything.
    """
    own = [slices[mode] for slices in rounds]
    times = [time for one in own for time in one.done.times_ms]
    per_connection = 1000 / len(times)
    costs: dict[str, Any] = {
        "connects_per_s": len(times) / sum(one.done.seconds for one in own),
        "server_cpu_ms": sum(one.server_cpu for one in own) * per_connection,
        "service_cpu_ms": sum(one.service_cpu or 0.0 for one in own) * per_connection,
        "client_cpu_ms": sum(one.done.cpu_seconds for one in own) * per_connection,
        "p50_ms": percentile(times, 0.5),
        "p99_ms": percentile(times, 0.99),
        "failed": float(sum(one.done.failed_first for one in own)),
        "floor_us": median(one.floor_us for one in own),
        "warm_floor_us": median(one.warm_floor_us for one in own),
    }
    shown = {name: round(value, 3) for name, value in costs.items()}
    ratios: list[Ratio] = []
    beside_floor = [
        MeasuredPair(work=one.service_cpu / len(one.done.times_ms) * 1e6, floor=one.floor_us)
        for one in own
        if one.service_cpu is not None
    ]
    if beside_floor:
        ratios.append(ratio_of(beside_floor, least=1.0))
        shown |= ratios[-1].figures()
    if compare and mode != STATIC:
        shares = [MeasuredPair(work=slices[mode].per_second, floor=slices[STATIC].per_second) for slices in rounds]
        ratios.append(ratio_of(shares))
        shown |= ratios[-1].figures("share_of_static")
    return shown | (verdict(*ratios) if ratios else {})
