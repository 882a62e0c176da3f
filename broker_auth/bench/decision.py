"""Part ``decision``: one request's way through the service, in process and without NATS.

Everything the running service does for a request is in it: policy, audit record, metrics.
"""

from __future__ import annotations

import os
import tempfile
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final

import nacl.bindings

from broker_auth.bench.floor import floor_of
from broker_auth.bench.kinds import KINDS, Kind, Maker, Primitive, Sample
from broker_auth.bench.materials import PlayedServer, Trust
from broker_auth.bench.measure import Cost, Plan, Step, beside_floor, cpu_us
from broker_auth.callout.reply import ReplyWriter
from broker_auth.callout.request import RequestReader
from broker_auth.callout.service import Callout
from broker_auth.callout.xkey import Sealer
from broker_auth.observe.audit import StreamAudit, make_record
from broker_auth.observe.stats import Stats
from broker_auth.policy.decide import decide
from broker_auth.policy.decision import Admit

STAGES: Final = ("read", "decide", "write", "record")


def run(plan: Plan, kinds: tuple[str, ...] = tuple(KINDS)) -> dict[str, Any]:
    """Costs by kind, cold and cached, unsealed and (``_xkey``) sealed; ``stages`` in CPU microseconds."""
    trust, now = Trust(), time.time()
    results: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as directory:
        for xkey in (False, True):
            bench = Bench(trust, now, Path(directory) / "audit.log", xkey=xkey)
            for name in kinds:
                samples = bench.samples(KINDS[name], plan.count)
                for cold in (False, True):
                    label = name + "_cold" * cold + "_xkey" * xkey
                    results[label] = bench.measure(KINDS[name], samples, plan, cold=cold)
            bench.close()
    return results


class Bench:
    """A callout in this process with a real audit file, and the server that asks it."""

    def __init__(self, trust: Trust, now: float, audit: Path, *, xkey: bool) -> None:
        seed = os.urandom(32)
        curve = os.urandom(32) if xkey else None
        sealer = None if curve is None else Sealer(curve)
        self.server = PlayedServer(None if curve is None else nacl.bindings.crypto_scalarmult_base(curve))
        self.now = now
        self.trust = trust
        self.reader, self._writer = RequestReader(sealer), ReplyWriter(seed, sealer)
        self._audit = StreamAudit(audit)
        self._stats = Stats()
        self.callout = Callout(
            policy=trust.policy(issuer_mode=False),
            reader=self.reader,
            writer=self._writer,
            audit=self._audit,
            stats=self._stats,
        )

    def close(self) -> None:
        """Close the audit file."""
        self._audit.close()

    def samples(self, kind: Kind, count: int) -> list[Sample]:
        """Different requests of a kind, each with a credential of its own."""
        maker = Maker(self.trust, self.server, self.now)
        return [kind.make(maker, number) for number in range(count)]

    def measure(self, kind: Kind, samples: list[Sample], plan: Plan, *, cold: bool) -> dict[str, Any]:
        """Cost, floor, ratio and stages of a kind; ``cold`` forgets all credentials before each round."""
        self._forget(kind)

        def prepare() -> None:
            if cold:
                self._forget(kind)

        def answer(number: int) -> None:
            if self.callout.answer(samples[number].request.wire, self.server.xkey, self.now) is None:
                raise AssertionError("a request of the bench was not answered")

        cpu_us(answer, plan.count)
        cost = beside_floor(answer, self.floor(samples, cold=cold), plan, prepare)
        prepare()
        return _shown(cost) | {"stages": self._stages(samples)}

    def _forget(self, kind: Kind) -> None:
        self.callout.policy = self.trust.policy(issuer_mode=kind.issuer_mode)

    def floor(self, samples: list[Sample], *, cold: bool) -> Step:
        """The cryptography that answering these samples cannot do without."""
        steps = [self._primitives(sample, cold=cold) for sample in samples]

        def floor(number: int) -> None:
            for primitive in steps[number]:
                primitive()

        return floor

    def _primitives(self, sample: Sample, *, cold: bool) -> tuple[Primitive, ...]:
        request = self.reader.read(sample.request.wire, self.server.xkey, self.now)
        decision = decide(request, self.callout.policy, self.now)
        floor = floor_of(sample.request, self.server.public, request, decision)
        return (floor, *sample.always, *(sample.cold if cold else ()))

    def _stages(self, samples: list[Sample]) -> dict[str, float]:
        """CPU microseconds of each stage alone, in the order of :data:`STAGES`."""
        now, policy, xkey = self.now, self.callout.policy, self.server.xkey
        requests, decisions, count = [], [], len(samples)
        read = cpu_us(lambda n: requests.append(self.reader.read(samples[n].request.wire, xkey, now)), count)
        deciding = cpu_us(lambda n: decisions.append(decide(requests[n], policy, now)), count)

        def write(number: int) -> None:
            request, decision = requests[number], decisions[number]
            if isinstance(decision, Admit):
                self._writer.admit(request, decision, now)
            else:
                self._writer.deny(request, decision.phrase, now)

        def record(number: int) -> None:
            self._stats.decided(decisions[number], now, 0.0001)
            self._audit.write(make_record(requests[number], decisions[number], now, 100))

        costs = (read, deciding, cpu_us(write, count), cpu_us(record, count))
        return {stage: round(cost, 1) for stage, cost in zip(STAGES, costs, strict=True)}


def _shown(cost: Cost) -> dict[str, Any]:
    return {name: round(value, 3 if name == "ratio" else 1) for name, value in asdict(cost).items()}
