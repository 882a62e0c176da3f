"""Measuring: CPU time beside the crypto floor, CPU time and memory of other processes."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Final

from broker_auth.bench.pairs import MeasuredPair, Ratio, Work, measure_pairs, ratio_of
from broker_auth.errors import OperationError


@dataclass(frozen=True, slots=True, kw_only=True)
class Cost:
    """CPU of one unit of work in microseconds, beside its crypto floor in the same pairs."""

    cpu_us: float
    floor_us: float
    ratio: Ratio

    def figures(self) -> dict[str, float]:
        """Return them rounded, as the bench shows them."""
        return {"cpu_us": round(self.cpu_us, 1), "floor_us": round(self.floor_us, 1), **self.ratio.figures()}


@dataclass(frozen=True, slots=True, kw_only=True)
class MeasurementPlan:
    """The extent of a measurement: ``rounds`` times ``count`` units of work, slice by slice."""

    rounds: int
    count: int


QUICK: Final = MeasurementPlan(rounds=8, count=64)
FULL: Final = MeasurementPlan(rounds=15, count=320)


def cpu_us(work: Work, count: int) -> float:
    """Return the CPU microseconds of this process for one of the ``count`` units that ``work`` does."""
    started = time.process_time_ns()
    work()
    return (time.process_time_ns() - started) / count / 1000


def beside_floor(
    work: Sequence[Work], floor: Sequence[Work], plan: MeasurementPlan, prepare: Callable[[], None] = lambda: None
) -> Cost:
    """Return what one unit of work costs beside its floor.

    Args:
        work: slices that do ``plan.count`` units together.
        floor: of each slice.
        plan: how often all of them are done.
        prepare: called before each round, unmeasured.
    """
    pairs: list[MeasuredPair] = []
    for _ in range(plan.rounds):
        prepare()
        pairs += measure_pairs(work, floor)
    units = plan.count / len(work)
    return Cost(
        cpu_us=median(pair.work for pair in pairs) / units / 1000,
        floor_us=median(pair.floor for pair in pairs) / units / 1000,
        ratio=ratio_of(pairs, least=1.0),
    )


def percentile(values: Sequence[float], share: float) -> float:
    """Return the value that ``share`` of all values do not exceed; 0 for none."""
    ordered = sorted(values)
    return ordered[min(int(len(ordered) * share), len(ordered) - 1)] if ordered else 0.0


def process_cpu_seconds(pid: int) -> float:
    """Return the CPU time of another process, all its threads together.

    Linux's ``clock_getcpuclockid(3)``: the clock of a process is its inverted id, shifted, and kind 2.
    Nanoseconds, where ``/proc`` would count in hundredths of a second.

    Raises:
        OperationError: no such process, or not Linux.
    """
    try:
        return time.clock_gettime((~pid << 3) | 2)
    except (OSError, AttributeError) as error:
        raise OperationError(f"CPU time of process {pid} cannot be read; the bench needs Linux for that") from error


def resident_mb(pid: int) -> float:
    """Return the resident memory of a process in megabytes (10^6 bytes).

    Raises:
        OperationError: no such process, or not Linux.
    """
    try:
        status = Path(f"/proc/{pid}/status").read_text(encoding="ascii", errors="replace")
    except OSError as error:
        raise OperationError(f"memory of process {pid} cannot be read: {error.strerror}") from error
    for line in status.splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) * 1024 / 1e6
    raise OperationError(f"memory of process {pid} cannot be read: it has ended")


def processors() -> int:
    """Return the number of processors that this process may use."""
    return len(os.sched_getaffinity(0))


def resident_here_mb() -> float:
    """Return the resident memory of this process in megabytes."""
    return resident_mb(os.getpid())
