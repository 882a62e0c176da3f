"""Measuring: CPU time, interleaved with the crypto floor so that a busy machine disturbs both alike."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Final

from broker_auth.errors import OperationError

Round = Callable[[], object]
"""Does all units of work of a round."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Cost:
    """CPU of one unit of work in microseconds, beside its crypto floor in the same rounds."""

    cpu_us: float
    floor_us: float
    ratio: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """How much to measure: ``rounds`` medians are taken of, each of ``count`` units of work."""

    rounds: int
    count: int


QUICK: Final = Plan(rounds=5, count=64)
FULL: Final = Plan(rounds=15, count=320)


def cpu_us(work: Round, count: int) -> float:
    """CPU microseconds of this process for one of the ``count`` units that ``work`` does."""
    started = time.process_time_ns()
    work()
    return (time.process_time_ns() - started) / count / 1000


def beside_floor(work: Round, floor: Round, plan: Plan, prepare: Callable[[], None] = lambda: None) -> Cost:
    """The cost of one unit of ``work``; each round measures both, after an unmeasured ``prepare``.

    The ratio is the median of the rounds' ratios, not the ratio of medians: the two halves of a round
    meet the machine in the same state.
    """
    rounds = []
    for _ in range(plan.rounds):
        prepare()
        before = cpu_us(floor, plan.count)
        cost = cpu_us(work, plan.count)
        after = cpu_us(floor, plan.count)
        rounds.append((cost, (before + after) / 2))
    return Cost(
        cpu_us=median(cost for cost, _ in rounds),
        floor_us=median(floor for _, floor in rounds),
        ratio=median(cost / floor for cost, floor in rounds),
    )


def percentile(values: Sequence[float], share: float) -> float:
    """The value that ``share`` of all values do not exceed; 0 for none."""
    ordered = sorted(values)
    return ordered[min(int(len(ordered) * share), len(ordered) - 1)] if ordered else 0.0


def process_cpu_seconds(pid: int) -> float:
    """CPU time of another process, all its threads together.

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
    """Resident memory of a process in megabytes (10^6 bytes).

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


def resident_here_mb() -> float:
    """Resident memory of this process in megabytes."""
    return resident_mb(os.getpid())
