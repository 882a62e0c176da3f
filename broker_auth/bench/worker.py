"""A service process under measurement: what ``serve`` runs, with the crypto floor measured inside it.

``python -m broker_auth.bench.worker CONFIG FLOOR AUDIT`` prints ``ready``, then answers each line on
standard input with its :class:`Counters`, and ends with its input. The floor is measured in the same process,
every few milliseconds, between requests and with the same caches: on a shared machine, figures of another process or
time are not comparable. Its cost is counted separately, except for the wake-ups; therefore the floor is not measured
unless the service is always busy.
"""

from __future__ import annotations

import asyncio
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

import msgspec

from broker_auth.audit.file import StreamAudit
from broker_auth.bench.floor import Floor
from broker_auth.bench.measure import resident_mb
from broker_auth.callout.callout import Callout, make_callout
from broker_auth.callout.service import Service, tls_contexts
from broker_auth.settings.load import load
from broker_auth.settings.policy import build_policy

_PAUSE: Final = 0.004  # seconds between two measurements of the floor


class Counters(msgspec.Struct, kw_only=True):
    """Totals since the start.

    Attributes:
        cpu_seconds: without what measuring the floor took.
        floor_seconds: of ``floors`` floors.
        decided: by rule and code, as ``rule/code``.
        unanswered: by fault.
        resident_mb: memory now.
    """

    cpu_seconds: float
    floor_seconds: float
    floors: int
    decided: dict[str, int]
    unanswered: dict[str, int]
    resident_mb: float


class FloorProbe:
    """A probe that regularly measures the floor, if there is one, inside the serving event loop."""

    def __init__(self, floor: Floor | None) -> None:
        self._floor = floor
        self.floors = 0
        self.nanoseconds = 0

    async def run(self) -> None:
        """Measure until cancelled."""
        while self._floor is not None:
            began = time.process_time_ns()
            self._floor()
            self.nanoseconds += time.process_time_ns() - began
            self.floors += 1
            await asyncio.sleep(_PAUSE)


def _counters(callout: Callout, probe: FloorProbe) -> Counters:
    stats = callout.stats
    return Counters(
        cpu_seconds=time.process_time() - probe.nanoseconds / 1e9,
        floor_seconds=probe.nanoseconds / 1e9,
        floors=probe.floors,
        decided={f"{rule}/{code}": count for (rule, code), count in stats.decisions.items()},
        unanswered={fault.value: count for fault, count in stats.unanswered.items()},
        resident_mb=resident_mb(os.getpid()),
    )


async def _serve(config: Path, floor: Floor | None, audit: StreamAudit, zone: str) -> None:
    settings = load(config, {}, serving=True).serving(zone)
    callout = make_callout(settings, build_policy(settings, zone), audit)
    service, probe, stop = Service(settings, callout, tls_contexts(settings)), FloorProbe(floor), asyncio.Event()
    reader = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    serving = asyncio.create_task(service.run(stop))
    probing = asyncio.create_task(probe.run())
    await service.wait_ready()
    print("ready", flush=True)
    while await reader.readline():
        print(msgspec.json.encode(_counters(callout, probe)).decode(), flush=True)
    probing.cancel()
    stop.set()
    await serving


def main(config: str, floor: str, audit: str, zone: str) -> None:
    """Serve one zone until standard input ends."""
    sink = StreamAudit(audit)
    prepared = msgspec.msgpack.decode(Path(floor).read_bytes(), type=Floor | None)
    try:
        import uvloop

        factory: Callable[[], asyncio.AbstractEventLoop] = uvloop.new_event_loop
    except ImportError:  # the `fast` extra is optional
        factory = asyncio.new_event_loop
    with asyncio.Runner(loop_factory=factory) as runner:
        runner.run(_serve(Path(config), prepared, sink, zone))
    sink.close()


if __name__ == "__main__":
    main(*sys.argv[1:])
