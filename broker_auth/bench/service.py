"""Part ``service``: a running service behind a real nats-server, asked by a flooder that plays one.

Every request in the pool is from a different node with the one provisioning token of the fleet's
packages, as it is after a network cut.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any, Final, NamedTuple

from broker_auth.bench.flooder import FloodResult, FloodTask
from broker_auth.bench.floor import Floor, floor_by_policy
from broker_auth.bench.kinds import Maker
from broker_auth.bench.materials import PlayedServer, Trust
from broker_auth.bench.pairs import MeasuredPair, ratio_of, verdict
from broker_auth.bench.processes import Flood, Worker, flood, write_pool
from broker_auth.bench.site import BenchDeployment
from broker_auth.errors import OperationError

SLICE_SECONDS: Final = 0.1  # in which CPU per request and the floor make a pair


@dataclass(frozen=True, slots=True, kw_only=True)
class Load:
    """Duration and number of requests of a flood, and the numbers of workers."""

    seconds: float
    requests: int
    workers: Sequence[int]


QUICK = Load(seconds=2.0, requests=500, workers=(1,))
FULL = Load(seconds=8.0, requests=2000, workers=(1, 2))


def run(load: Load) -> dict[str, Any]:
    """Return figures for ``plain`` and ``xkey`` with one worker, for more workers as ``plain_2`` and so on."""
    trust = Trust()
    results: dict[str, Any] = {}
    for name, xkey in (("plain", False), ("xkey", True)):
        with tempfile.TemporaryDirectory(prefix="broker-auth-bench-") as directory:
            deployment = BenchDeployment(Path(directory), trust, xkey=xkey)
            pool, floor = materials(deployment, trust, load.requests)
            with deployment.server(deployment.brokers[0]):
                for count in load.workers:
                    label = name if count == 1 else f"{name}_{count}"
                    results[label] = _measure(deployment, pool, floor, load, count)
    return results


def materials(deployment: BenchDeployment, trust: Trust, count: int) -> tuple[Path, Floor]:
    """Write a pool of valid requests; return its path, and the floor of answering one request."""
    now = time.time()
    server = PlayedServer(deployment.service_xkey)
    maker = Maker(trust, server, now)
    token = trust.provisioning_token(now)
    requests = [maker.node(number, token).request for number in range(count)]
    pool = write_pool(deployment.directory / "pool", [request.wire for request in requests], server.xkey)
    return pool, floor_by_policy(requests[0], server.public, trust.policy(issuer_mode=False), now)


def _measure(deployment: BenchDeployment, pool: Path, floor: Floor, load: Load, count: int) -> dict[str, Any]:
    with ExitStack() as stack:
        workers = [stack.enter_context(Worker(deployment, floor, number)) for number in range(count)]
        task = FloodTask(
            port=deployment.brokers[0].port, password=deployment.password, pool=str(pool), seconds=load.seconds
        )
        flood(_shorter(task))  # warm
        with Flood(task) as flooding:
            taken = [_taken(workers)]
            while not flooding.ended(SLICE_SECONDS):
                taken.append(_taken(workers))
            outcome = flooding.outcome()
        taken.append(_taken(workers))
        quiet = flood(_shorter(task, in_flight=1))
        memory = max(worker.counters().resident_mb for worker in workers)
    return _figures(outcome, quiet, taken) | {"resident_mb": round(memory, 1)}


def _shorter(task: FloodTask, in_flight: int = 64) -> FloodTask:
    return FloodTask(
        port=task.port, password=task.password, pool=task.pool, seconds=min(1.0, task.seconds), in_flight=in_flight
    )


class Totals(NamedTuple):
    """Totals of all workers."""

    admitted: int
    cpu_seconds: float
    floors: int
    floor_seconds: float

    def since(self, before: Totals) -> Totals:
        """Return what was done in between."""
        return Totals(
            admitted=self.admitted - before.admitted,
            cpu_seconds=self.cpu_seconds - before.cpu_seconds,
            floors=self.floors - before.floors,
            floor_seconds=self.floor_seconds - before.floor_seconds,
        )


def paired(taken: Sequence[Totals]) -> list[MeasuredPair]:
    """Return CPU per request beside the floor, in microseconds, for each slice in which the service was busy.

    Left out are the ends of the flood: slices with less than half of what was answered in the fullest.
    """
    parts = [after.since(before) for before, after in pairwise(taken)]
    busy = max((part.admitted for part in parts), default=0) / 2
    return [
        MeasuredPair(work=part.cpu_seconds / part.admitted * 1e6, floor=part.floor_seconds / part.floors * 1e6)
        for part in parts
        if part.floors and part.admitted and part.admitted >= busy
    ]


def _taken(workers: Sequence[Worker]) -> Totals:
    counters = [worker.counters() for worker in workers]
    return Totals(
        admitted=sum(one.decided.get("provisioning/admitted", 0) for one in counters),
        cpu_seconds=sum(one.cpu_seconds for one in counters),
        floors=sum(one.floors for one in counters),
        floor_seconds=sum(one.floor_seconds for one in counters),
    )


def _figures(outcome: FloodResult, quiet: FloodResult, taken: Sequence[Totals]) -> dict[str, Any]:
    whole, pairs = taken[-1].since(taken[0]), paired(taken)
    if not pairs or whole.admitted != outcome.answered:
        raise OperationError(
            f"of {outcome.sent} requests {outcome.answered} were answered and {whole.admitted} admitted"
        )
    ratio = ratio_of(pairs, least=1.0)
    return {
        "requests_per_s": round(outcome.answered / outcome.seconds),
        "cpu_us": round(whole.cpu_seconds / whole.admitted * 1e6, 1),
        "floor_us": round(whole.floor_seconds / whole.floors * 1e6, 1),
        **ratio.figures(),
        **verdict(ratio),
        "p50_ms": round(outcome.p50_ms, 2),
        "p99_ms": round(outcome.p99_ms, 2),
        "alone_p50_ms": round(quiet.p50_ms, 2),
    }
