"""Which parts there are, and how much of each a quick and a full run measure."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final

from broker_auth.bench import connects, decision, flood, measure, scale, service, storm
from broker_auth.bench.choria import find_program
from broker_auth.errors import InputError

Part = Callable[[], dict[str, Any]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Extent:
    """The two ways a part can be run, and what it tells."""

    quick: Part
    full: Part
    about: str


PARTS: Final = {
    "decision": Extent(
        quick=lambda: decision.run(measure.QUICK),
        full=lambda: decision.run(measure.FULL),
        about="CPU of one decision in process, beside the cryptography in it",
    ),
    "service": Extent(
        quick=lambda: service.run(service.QUICK),
        full=lambda: service.run(service.FULL),
        about="a running service behind a real nats-server, 64 requests in flight",
    ),
    "connects": Extent(
        quick=lambda: connects.run(connects.QUICK, find_program()),
        full=lambda: connects.run(connects.FULL, find_program()),
        about="real TLS connections: nats-server alone, with the service, and the Choria Broker that $CHORIA names",
    ),
    "storm": Extent(
        quick=lambda: storm.run((300,)),
        full=lambda: storm.run((1000, 5000, 10_000)),
        about="many TLS connections at the same moment",
    ),
    "flood": Extent(
        quick=lambda: flood.run(seconds=2.0),
        full=lambda: flood.run(seconds=8.0),
        about="the fleet while ten times as many requests with bad tokens arrive as can be answered",
    ),
    "scale": Extent(
        quick=lambda: scale.run(measure.QUICK, (1000, 100_000)),
        full=lambda: scale.run(measure.FULL, (1000, 100_000, 1_000_000)),
        about="cost after many nodes and tokens were seen",
    ),
}


def run(parts: Sequence[str], *, quick: bool, started: Callable[[str], None] = lambda _: None) -> dict[str, Any]:
    """Return figures by part, in the order of :data:`PARTS`; all of them if ``parts`` is empty.

    Args:
        parts: names out of :data:`PARTS`.
        quick: less of everything; all parts together end within about a minute.
        started: told of each part as it begins.

    Raises:
        InputError: there is no such part, or ``$CHORIA`` names no program.
        OperationError: something outside failed; nothing is left running.
    """
    if unknown := [part for part in parts if part not in PARTS]:
        raise InputError(f"no such part {unknown[0]!r}; there are {', '.join(PARTS)}")
    find_program()  # a wrong path is said now, not after a minute
    results = {}
    for name, extent in PARTS.items():
        if not parts or name in parts:
            started(name)
            results[name] = extent.quick() if quick else extent.full()
    return results
