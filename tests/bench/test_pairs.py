"""Statistics of the bench, with a simulated clock."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence

import pytest

from broker_auth.bench.pairs import Clock, MeasuredPair, Ratio, measure_pairs, ratio_of, verdict
from broker_auth.bench.service import Totals, paired


class Machine:
    """A process with simulated CPU time."""

    def __init__(self) -> None:
        self.thread, self.others = 0, 0
        self.done: list[str] = []

    @property
    def clock(self) -> Clock:
        return Clock(thread=lambda: self.thread, process=lambda: self.thread + self.others)

    def slice(self, name: str, nanoseconds: int, others: int = 0) -> Callable[[], None]:
        """Return a slice of work, during which other threads of the process use ``others`` nanoseconds."""

        def work() -> None:
            self.done.append(name)
            self.thread += nanoseconds
            self.others += others

        return work


def ratios(values: Sequence[float], least: float = 1.0) -> Ratio:
    return ratio_of([MeasuredPair(work=value, floor=1.0) for value in values], least)


def test_work_and_floor_alternate_in_alternating_order() -> None:
    machine = Machine()
    work = [machine.slice("work", 12) for _ in range(4)]
    floor = [machine.slice("floor", 10) for _ in range(4)]
    assert measure_pairs(work, floor, machine.clock) == [MeasuredPair(work=12, floor=10)] * 4
    assert machine.done == ["floor", "work", "work", "floor"] * 2


def test_slowdown_between_pairs_does_not_change_the_ratio() -> None:
    machine = Machine()
    speeds = (1, 5, 2, 9, 1, 7)
    pairs = measure_pairs(
        [machine.slice("work", 12 * speed) for speed in speeds],
        [machine.slice("floor", 10 * speed) for speed in speeds],
        machine.clock,
    )
    ratio = ratio_of(pairs, least=1.0)
    assert ratio.figures() == {"ratio": 1.2, "ratio_min": 1.2, "ratio_max": 1.2}
    assert not ratio.noisy


@pytest.mark.parametrize("beside", ["work", "floor"])
def test_other_threads_count_as_work_whenever_they_run(beside: str) -> None:
    machine = Machine()
    others = {"work": 0, "floor": 0} | {beside: 3}
    pairs = measure_pairs(
        [machine.slice("work", 12, others["work"]) for _ in range(2)],
        [machine.slice("floor", 10, others["floor"]) for _ in range(2)],
        machine.clock,
    )
    assert pairs == [MeasuredPair(work=15, floor=10)] * 2


def test_ratio_is_the_median_of_pairs_and_not_the_ratio_of_sums() -> None:
    pairs = [MeasuredPair(work=12, floor=10), MeasuredPair(work=13, floor=10), MeasuredPair(work=1400, floor=1000)]
    assert ratio_of(pairs).figures("alone") == {"alone": 1.3, "alone_min": 1.2, "alone_max": 1.4}
    assert ratio_of(pairs).pairs == 3


def test_disturbed_pairs_change_the_extremes_but_not_the_median() -> None:
    ratio = ratios([1.2] * 12 + [0.4, 9.0])
    assert (ratio.median, ratio.minimum, ratio.maximum) == (1.2, 0.4, 9.0)
    assert not ratio.noisy


@pytest.mark.parametrize(
    ("values", "noisy"),
    [
        pytest.param([1.2] * 16, False, id="pairs agree"),
        pytest.param([1.15, 1.25] * 8, False, id="pairs differ by less than a tenth"),
        pytest.param([1.1, 1.4] * 8, True, id="halves differ by more than a tenth"),
        pytest.param([0.88] * 16, True, id="work below its floor"),
        pytest.param([1.2] * 5, True, id="five equal pairs"),
        pytest.param([1.2] * 6, False, id="six equal pairs"),
        pytest.param([1.2] * 5 + [2.0], True, id="one of six disturbed"),
        pytest.param([1.2] * 31 + [2.0], False, id="one of many disturbed"),
    ],
)
def test_noisy_ratio_is_detected(values: Sequence[float], *, noisy: bool) -> None:
    assert ratios(values).noisy is noisy


def test_ratio_below_one_is_not_noise_if_it_is_possible() -> None:
    assert not ratios([0.6] * 10, least=0.0).noisy


def test_more_pairs_reduce_noise() -> None:
    """With the same spread, the confidence interval of the median narrows as pairs are added."""
    spread = [1.0 + 0.05 * step for step in range(9)]
    assert ratios(spread).noisy
    assert not ratios(spread * 20).noisy


def test_verdict_is_that_of_the_worst_ratio() -> None:
    calm, noisy = ratios([1.2] * 16), ratios([1.1, 1.4] * 4)
    assert verdict(calm) == {"pairs": 16, "noisy": False}
    assert verdict(calm, noisy) == {"pairs": 8, "noisy": True}


def totals(*parts: tuple[int, float, int, float]) -> list[Totals]:
    """Return the totals after each part."""
    sums = [itertools.accumulate(column) for column in zip((0, 0.0, 0, 0.0), *parts, strict=True)]
    return [Totals(*row) for row in zip(*sums, strict=True)]


def test_running_service_is_paired_by_slice() -> None:
    parts = ((100, 0.015, 20, 0.0020), (80, 0.024, 10, 0.0020))
    assert paired(totals(*parts)) == [
        pytest.approx(MeasuredPair(150.0, 100.0)),
        pytest.approx(MeasuredPair(300.0, 200.0)),
    ]


def test_start_and_end_of_a_flood_are_excluded() -> None:
    parts = ((0, 0.001, 5, 0.0005), (3, 0.001, 5, 0.0005), (100, 0.015, 20, 0.0020), (100, 0.015, 0, 0.0))
    assert paired(totals(*parts)) == [pytest.approx(MeasuredPair(150.0, 100.0))]
