"""Ratios of paired measurements: work beside its floor, in slices so small that noise hits both alike."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any, Final, NamedTuple

FEWEST_PAIRS: Final = 6  # with fewer, not even the extremes enclose the median in 95 of 100 runs
WIDEST: Final = 0.1  # of the median: what the interval that encloses it may measure

Work = Callable[[], object]
"""Does one slice of work."""


class MeasuredPair(NamedTuple):
    """Two quantities of one unit and one slice of time, such as CPU of the work and of its floor."""

    work: float
    floor: float

    @property
    def ratio(self) -> float:
        """The work as a multiple of the floor."""
        return self.work / self.floor


@dataclass(frozen=True, slots=True, kw_only=True)
class Ratio:
    """The ratios of many pairs.

    Attributes:
        pairs: their number.
        low: lower end of the interval that encloses the true median in 95 of 100 runs.
        high: its upper end.
        least: what the true median cannot be below.
    """

    median: float
    minimum: float
    maximum: float
    pairs: int
    low: float
    high: float
    least: float

    @property
    def noisy(self) -> bool:
        """Whether the median means nothing: see docs/performance.md#when-a-run-is-too-noisy."""
        return self.pairs < FEWEST_PAIRS or self.median < self.least or self.high - self.low > WIDEST * self.median

    def figures(self, name: str = "ratio") -> dict[str, float]:
        """Return median, minimum and maximum, rounded, under ``name`` and names made from it."""
        values = {name: self.median, f"{name}_min": self.minimum, f"{name}_max": self.maximum}
        return {key: round(value, 3) for key, value in values.items()}


def ratio_of(pairs: Sequence[MeasuredPair], least: float = 0.0) -> Ratio:
    """Return the ratios of ``pairs``, of which there is at least one.

    Args:
        pairs: any two quantities measured together.
        least: what the ratio cannot be below; 1 where the work includes the floor.
    """
    ratios = sorted(pair.ratio for pair in pairs)
    count = len(ratios)
    # Order statistics: makes no assumption about the distribution, which has a long tail on a busy machine.
    rank = max(0, math.floor((count - 1.96 * math.sqrt(count)) / 2))
    return Ratio(
        median=median(ratios),
        minimum=ratios[0],
        maximum=ratios[-1],
        pairs=count,
        low=ratios[rank],
        high=ratios[count - 1 - rank],
        least=least,
    )


def verdict(*ratios: Ratio) -> dict[str, Any]:
    """Return whether the ratios of one figure can be believed: the number of their pairs, and whether those agree."""
    return {"pairs": min(ratio.pairs for ratio in ratios), "noisy": any(ratio.noisy for ratio in ratios)}


@dataclass(frozen=True, slots=True)
class Clock:
    """CPU clocks in nanoseconds: of the calling thread, and of the process with all its threads."""

    thread: Callable[[], int] = time.thread_time_ns
    process: Callable[[], int] = time.process_time_ns


CPU: Final = Clock()


def measure_pairs(work: Sequence[Work], floor: Sequence[Work], clock: Clock = CPU) -> list[MeasuredPair]:
    """Return the CPU nanoseconds of each slice of work beside those of its floor, measured one right after the other.

    The floor is single-threaded. The work is charged with all that the process used besides, so that a thread
    which writes records counts as work whenever it runs. Which of the two comes first changes from pair to pair.
    """
    pairs = []
    for number, (doing, least) in enumerate(zip(work, floor, strict=True)):
        began = clock.process()
        if number % 2:
            doing()
            nanoseconds = _thread_time(least, clock)
        else:
            nanoseconds = _thread_time(least, clock)
            doing()
        pairs.append(MeasuredPair(work=clock.process() - began - nanoseconds, floor=nanoseconds))
    return pairs


def _thread_time(work: Work, clock: Clock) -> int:
    began = clock.thread()
    work()
    return clock.thread() - began
