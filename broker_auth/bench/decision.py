"""Part ``decision``: a request's way through the service, in process and without NATS.

Everything the running service does for a request is in it: policy, audit record, metrics. Requests come in
batches, as they do where many wait; what one costs that comes alone stands beside.
"""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import nacl.bindings

from broker_auth.audit.file import StreamAudit
from broker_auth.audit.record import make_record
from broker_auth.bench.floor import floor_of
from broker_auth.bench.kinds import KINDS, Maker, Primitive, RequestKind, Sample
from broker_auth.bench.materials import PlayedServer, Trust
from broker_auth.bench.measure import MeasurementPlan, beside_floor, cpu_us
from broker_auth.bench.pairs import Work, verdict
from broker_auth.callout.callout import Callout, Exchange
from broker_auth.callout.reply import Decided, ReplyWriter
from broker_auth.callout.request import RequestReader
from broker_auth.callout.service import BATCH_SIZE
from broker_auth.callout.stats import Stats
from broker_auth.natsio.xkey import Sealer
from broker_auth.policy.decide import decide
from broker_auth.policy.request import AuthorizationRequest

STAGES: Final = ("read", "decide", "write", "record")


def run(plan: MeasurementPlan, kinds: tuple[str, ...] = tuple(KINDS)) -> dict[str, Any]:
    """Return costs by kind, cold and cached, unsealed and (``_xkey``) sealed; ``stages`` in CPU microseconds."""
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

    def samples(self, kind: RequestKind, count: int) -> list[Sample]:
        """Make different requests of a kind, each with a separate credential."""
        maker = Maker(self.trust, self.server, self.now)
        return [kind.make(maker, number) for number in range(count)]

    def measure(self, kind: RequestKind, samples: list[Sample], plan: MeasurementPlan, *, cold: bool) -> dict[str, Any]:
        """Return cost, floor, ratio and stages of a kind; ``cold`` forgets all credentials before each round.

        ``alone`` is the ratio of requests that are answered one by one.
        """
        self._forget(kind)

        def prepare() -> None:
            if cold:
                self._forget(kind)

        floor = self.floor(samples, cold=cold)
        answer = self.answering(samples)
        for work in answer:  # warm
            work()
        cost = beside_floor(answer, floor, plan, prepare)
        alone = beside_floor(self.answering(samples, batch=1), floor, plan, prepare)
        prepare()
        return {
            **cost.figures(),
            **alone.ratio.figures("alone"),
            **verdict(cost.ratio, alone.ratio),
            "stages": self._stages(samples),
        }

    def answering(self, samples: list[Sample], batch: int = BATCH_SIZE) -> list[Work]:
        """Return slices that answer all requests, ``batch`` at a time."""
        return [self._answering(part, batch) for part in _slices(samples)]

    def _answering(self, samples: Sequence[Sample], batch: int) -> Work:
        messages = [sample.request.wire for sample in samples]
        batches = [messages[start : start + batch] for start in range(0, len(messages), batch)]
        callout, xkey, now = self.callout, self.server.xkey, self.now

        def answer() -> None:
            for messages in batches:
                opened = []
                for message in messages:
                    request = callout.open(message, xkey)
                    assert request is not None
                    opened.append(Exchange(request))
                callout.conclude(opened, now)
            if self._stats.unanswered or self._stats.reply_failures:
                raise AssertionError("a request of the bench was not answered")

        return answer

    def _forget(self, kind: RequestKind) -> None:
        self.callout.policy = self.trust.policy(issuer_mode=kind.issuer_mode)

    def floor(self, samples: list[Sample], *, cold: bool) -> list[Work]:
        """Return the cryptography that answering these samples cannot do without, in the same slices."""
        return [self._floor(part, cold=cold) for part in _slices(samples)]

    def _floor(self, samples: Sequence[Sample], *, cold: bool) -> Work:
        steps = [self._primitives(sample, cold=cold) for sample in samples]

        def floor() -> None:
            for step in steps:
                for primitive in step:
                    primitive()

        return floor

    def _primitives(self, sample: Sample, *, cold: bool) -> tuple[Primitive, ...]:
        request = self.reader.verify(self.reader.open(sample.request.wire, self.server.xkey), self.now)
        decision = decide(request, self.callout.policy, self.now)
        floor = floor_of(sample.request, self.server.public, request, decision)
        return (floor, *sample.always, *(sample.cold if cold else ()))

    def _stages(self, samples: list[Sample]) -> dict[str, float]:
        """Return the CPU microseconds of each stage, in the order of :data:`STAGES`."""
        now, policy, reader, xkey = self.now, self.callout.policy, self.reader, self.server.xkey
        requests: list[AuthorizationRequest] = []
        decided: list[Decided] = []

        def read() -> None:
            requests.extend(reader.verify(reader.open(sample.request.wire, xkey), now) for sample in samples)

        def deciding() -> None:
            decided.extend(Decided(request, decide(request, policy, now)) for request in requests)

        def write() -> None:
            self._writer.write(decided, now)

        def record() -> None:
            self._audit.write(*[make_record(one.request, one.decision, now, 100) for one in decided])
            self._stats.took(len(decided), 0.0001)
            for one in decided:
                self._stats.decided(one.decision, now)

        costs = [cpu_us(stage, len(samples)) for stage in (read, deciding, write, record)]
        return {stage: round(cost, 1) for stage, cost in zip(STAGES, costs, strict=True)}


def _slices(samples: list[Sample]) -> list[list[Sample]]:
    """Return the samples in slices of one batch, which takes a few milliseconds."""
    return [samples[start : start + BATCH_SIZE] for start in range(0, len(samples), BATCH_SIZE)]
