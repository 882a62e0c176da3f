"""Part ``flood``: can the fleet log in while bad tokens arrive at ten times the capacity?

Two nats-servers, one service: the fleet's requests arrive at one server and a flood at the other, or both at the same
server, like in topologies with a single listener. All requests are correctly signed by their servers.
"""

from __future__ import annotations

import tempfile
import time
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from broker_auth.bench import processes
from broker_auth.bench.flooder import FloodResult, FloodTask
from broker_auth.bench.kinds import Maker
from broker_auth.bench.materials import PlayedServer, Trust
from broker_auth.bench.processes import Flood, Worker, write_pool
from broker_auth.bench.service import materials
from broker_auth.bench.site import BenchDeployment, Broker

TIMES: Final = 10  # what is offered, as a multiple of what can be answered
_FLEET_SHARE: Final = 0.1  # of what can be answered, asked for by the fleet
_DISTINCT: Final = 200  # requests in a pool


@dataclass(frozen=True, slots=True)
class _Scene:
    """The servers, workers and request pools of a run."""

    deployment: BenchDeployment
    workers: dict[str, Worker]
    capacity: int
    fleet: Path
    bad: Path


def run(seconds: float) -> dict[str, Any]:
    """Return answered shares and latencies of fleet and flood: at two brokers (``edge``), and at one (``single``)."""
    trust = Trust()
    with tempfile.TemporaryDirectory(prefix="broker-auth-bench-") as directory, ExitStack() as stack:
        brokers = (Broker("fleet", "fleet"), Broker("edge", "edge"))
        deployment = BenchDeployment(Path(directory), trust, xkey=False, brokers=brokers)
        for broker in brokers:
            stack.enter_context(deployment.server(broker))
        nodes, _ = materials(deployment, trust, _DISTINCT)
        workers = {
            broker.name: stack.enter_context(Worker(deployment, number=number, zone=broker.name))
            for number, broker in enumerate(brokers)
        }
        fleet, bad = _pools(deployment, trust)
        capacity = _capacity(deployment, nodes)
        processes.flood(_task(deployment, "edge", bad, 0.5, in_flight=16))  # known bad from here on
        scene = _Scene(deployment, workers, capacity, fleet, bad)
        return {
            "capacity_per_s": capacity,
            "edge": _at(scene, "edge", seconds),
            "single": _at(scene, "fleet", seconds),
        }


def _pools(deployment: BenchDeployment, trust: Trust) -> tuple[Path, Path]:
    """Write pools of requests of fleet members with certificates, and of nodes with untrusted tokens."""
    maker = Maker(trust, PlayedServer(), time.time())
    fleet = [maker.mtls(number).request.wire for number in range(_DISTINCT)]
    tokens = [trust.provisioning_token(maker.now, foreign=True) for _ in range(_DISTINCT // 10)]
    bad = [maker.node(number, tokens[number % len(tokens)]).request.wire for number in range(_DISTINCT)]
    return write_pool(deployment.directory / "fleet", fleet, None), write_pool(deployment.directory / "bad", bad, None)


def _capacity(deployment: BenchDeployment, nodes: Path) -> int:
    """Return the number of requests per second that can be answered."""
    outcome = processes.flood(_task(deployment, "edge", nodes, 1.0, in_flight=64))
    return max(1, int(outcome.answered / outcome.seconds))


def _at(scene: _Scene, where: str, seconds: float) -> dict[str, Any]:
    """Run the fleet's requests at the broker ``fleet`` while the flood arrives at ``where``."""
    worker = scene.workers[where]
    before = worker.counters().unanswered.get("shed", 0)
    rate = max(1, int(scene.capacity * _FLEET_SHARE))
    with Flood(_task(scene.deployment, where, scene.bad, seconds + 1, rate=scene.capacity * TIMES)) as flood:
        with Flood(_task(scene.deployment, "fleet", scene.fleet, seconds, rate=rate)) as fleet:
            got_in = fleet.outcome()
        outcome = flood.outcome()
    shed = worker.counters().unanswered.get("shed", 0) - before
    return {"fleet": _share(got_in), "flood": _share(outcome) | {"shed": shed}}


def _share(outcome: FloodResult) -> dict[str, float]:
    return {
        "sent_per_s": round(outcome.sent / outcome.seconds),
        "in_time": round(outcome.in_time / max(1, outcome.sent), 4),
        "p50_ms": round(outcome.p50_ms, 1),
        "p99_ms": round(outcome.p99_ms, 1),
    }


def _task(
    deployment: BenchDeployment, broker: str, pool: Path, seconds: float, *, in_flight: int = 64, rate: int = 0
) -> FloodTask:
    port = next(known.port for known in deployment.brokers if known.name == broker)
    return FloodTask(
        port=port, password=deployment.password, pool=str(pool), seconds=seconds, in_flight=in_flight, rate=rate
    )
