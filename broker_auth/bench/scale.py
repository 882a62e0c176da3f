"""Part ``scale``: what a decision costs after many nodes and tokens were seen. It should be flat."""

from __future__ import annotations

import tempfile
import time
from pathlib import Path
from typing import Any, Final

import msgspec

from broker_auth.bench.decision import Bench
from broker_auth.bench.kinds import Maker
from broker_auth.bench.materials import Trust
from broker_auth.bench.measure import MeasurementPlan, beside_floor, resident_here_mb
from broker_auth.bench.pairs import verdict
from broker_auth.policy.decide import decide

TOKENS: Final = (10, 1000)


def run(plan: MeasurementPlan, nodes: tuple[int, ...], tokens: tuple[int, ...] = TOKENS) -> dict[str, Any]:
    """Return cost and ratio by ``<nodes>_nodes_<tokens>_tokens``, with this process's memory in megabytes.

    Every node has a different name. All but the last few are decided without a signed request, which
    would take most of the time and adds nothing that could grow.
    """
    trust, now = Trust(), time.time()
    results: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as directory:
        for token_count in tokens:
            issued = [trust.provisioning_token(now) for _ in range(token_count)]
            for node_count in nodes:
                bench = Bench(trust, now, Path(directory) / "audit.log", xkey=False)
                results[f"{node_count}_nodes_{token_count}_tokens"] = _measure(bench, trust, issued, node_count, plan)
                bench.close()
    return results


def _measure(bench: Bench, trust: Trust, tokens: list[str], nodes: int, plan: MeasurementPlan) -> dict[str, Any]:
    maker = Maker(trust, bench.server, bench.now)
    samples = [maker.node(number, tokens[number % len(tokens)]) for number in range(plan.count)]
    _see(bench, tokens, nodes)
    cost = beside_floor(bench.answering(samples), bench.floor(samples, cold=False), plan)
    return {**cost.figures(), **verdict(cost.ratio), "resident_mb": round(resident_here_mb(), 1)}


def _see(bench: Bench, tokens: list[str], nodes: int) -> None:
    """Decide one connection of each node."""
    maker = Maker(bench.trust, bench.server, bench.now)
    request = bench.reader.verify(bench.reader.open(maker.node(0, tokens[0]).request.wire, None), bench.now)
    options, policy = request.connect_opts, bench.callout.policy
    for number in range(nodes):
        changed = msgspec.structs.replace(
            options, name=f"node{number}.example.net", auth_token=tokens[number % len(tokens)]
        )
        decide(msgspec.structs.replace(request, connect_opts=changed), policy, bench.now)
