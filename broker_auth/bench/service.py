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
from pathlib import Path
from typing import Any

from broker_auth.bench.flooder import Outcome, Task
from broker_auth.bench.floor import Floor, floor_of
from broker_auth.bench.kinds import Maker
from broker_auth.bench.materials import PlayedServer, Trust
from broker_auth.bench.processes import Worker, flood, write_pool
from broker_auth.bench.site import Site
from broker_auth.bench.worker import Counters
from broker_auth.callout.request import RequestReader
from broker_auth.errors import OperationError
from broker_auth.policy.decide import decide


@dataclass(frozen=True, slots=True, kw_only=True)
class Load:
    """How long and with how much to flood, and with which numbers of workers."""

    seconds: float
    requests: int
    workers: Sequence[int]


QUICK = Load(seconds=2.0, requests=500, workers=(1,))
FULL = Load(seconds=8.0, requests=2000, workers=(1, 2))


def run(load: Load) -> dict[str, Any]:
    """Figures for ``plain`` and ``xkey`` with one worker; further numbers of workers as ``plain_2`` and so on."""
    trust = Trust()
    results: dict[str, Any] = {}
    for name, xkey in (("plain", False), ("xkey", True)):
        with tempfile.TemporaryDirectory(prefix="broker-auth-bench-") as directory:
            site = Site(Path(directory), trust, xkey=xkey)
            pool, floor = materials(site, trust, load.requests)
            with site.server(site.brokers[0]):
                for count in load.workers:
                    label = name if count == 1 else f"{name}_{count}"
                    results[label] = _measure(site, pool, floor, load, count)
    return results


def materials(site: Site, trust: Trust, count: int) -> tuple[Path, Floor]:
    """A pool of valid requests on disk, and the floor of answering one of them."""
    now = time.time()
    server = PlayedServer(site.service_xkey)
    maker = Maker(trust, server, now)
    token = trust.provisioning_token(now)
    requests = [maker.node(number, token).request for number in range(count)]
    pool = write_pool(site.directory / "pool", [request.wire for request in requests], server.xkey)
    reader = RequestReader(None)
    request = reader.verify(reader.open(requests[0].token, None), now)
    decision = decide(request, trust.policy(issuer_mode=False), now)
    return pool, floor_of(requests[0], server.public, request, decision)


def _measure(site: Site, pool: Path, floor: Floor, load: Load, count: int) -> dict[str, Any]:
    with ExitStack() as stack:
        workers = [stack.enter_context(Worker(site, floor, number)) for number in range(count)]
        task = Task(port=site.brokers[0].port, password=site.password, pool=str(pool), seconds=load.seconds)
        flood(_shorter(task))  # warm
        before = [worker.counters() for worker in workers]
        outcome = flood(task)
        after = [worker.counters() for worker in workers]
        quiet = flood(_shorter(task, in_flight=1))
    return _figures(outcome, quiet, before, after)


def _shorter(task: Task, in_flight: int = 64) -> Task:
    return Task(
        port=task.port, password=task.password, pool=task.pool, seconds=min(1.0, task.seconds), in_flight=in_flight
    )


def _figures(outcome: Outcome, quiet: Outcome, before: Sequence[Counters], after: Sequence[Counters]) -> dict[str, Any]:
    cpu = sum(now.cpu_seconds - then.cpu_seconds for then, now in zip(before, after, strict=True))
    floors = sum(now.floors - then.floors for then, now in zip(before, after, strict=True))
    floor_seconds = sum(now.floor_seconds - then.floor_seconds for then, now in zip(before, after, strict=True))
    admitted = sum(_admitted(now) - _admitted(then) for then, now in zip(before, after, strict=True))
    if not admitted or admitted != outcome.answered or not floors:
        raise OperationError(f"of {outcome.sent} requests {outcome.answered} were answered and {admitted} admitted")
    cpu_us, floor_us = cpu / admitted * 1e6, floor_seconds / floors * 1e6
    return {
        "requests_per_s": round(outcome.answered / outcome.seconds),
        "cpu_us": round(cpu_us, 1),
        "floor_us": round(floor_us, 1),
        "ratio": round(cpu_us / floor_us, 3),
        "p50_ms": round(outcome.p50_ms, 2),
        "p99_ms": round(outcome.p99_ms, 2),
        "alone_p50_ms": round(quiet.p50_ms, 2),
        "resident_mb": round(max(counters.resident_mb for counters in after), 1),
    }


def _admitted(counters: Counters) -> int:
    return counters.decided.get("provisioning/admitted", 0)
