"""Measuring clock skew from requests."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker_auth.callout.skew import WARNING_SECONDS, Skews, describe, notable


def asked(skew: float, count: int, *, way: float = 0.02, start: float = 1000.3) -> Skews:
    """Return the skews after ``count`` requests, every 0.13 s, with our clock ahead by ``skew``."""
    skews = Skews()
    for number in range(count):
        made = start + number * 0.13
        skews.observe("fleet", "nats1", made + way + skew - int(made), made)
    return skews


@pytest.mark.parametrize("skew", [0.0, 0.4, 1.5, 10.0, 300.0, -0.5, -2.0, -300.0, 86400.0])
def test_skew_of_many_requests_is_precise(skew: float) -> None:
    assert asked(skew, 40).of("fleet", "nats1") == pytest.approx(skew, abs=0.15)


@pytest.mark.parametrize("count", [1, 2, 3, 5, 20])
@pytest.mark.parametrize("start", [1000.0, 1000.5, 1000.97])
def test_synchronized_clocks_are_never_reported(count: int, start: float) -> None:
    assert notable(asked(0.0, count, start=start, way=0.1).of("fleet", "nats1")) == 0.0


@pytest.mark.parametrize("skew", [-3.0, 3.0])
def test_one_request_shows_a_large_skew(skew: float) -> None:
    assert notable(asked(skew, 1).of("fleet", "nats1")) != 0.0


def test_corrected_clock_is_recognized_within_a_minute() -> None:
    skews = asked(300.0, 20)
    for number in range(100):
        made = 1100.0 + number
        skews.observe("fleet", "nats1", made + 0.02 - int(made), made)
    assert notable(skews.of("fleet", "nats1")) == 0.0


def test_slow_requests_do_not_affect_the_skew() -> None:
    skews = asked(0.0, 30)
    for number in range(30):
        skews.observe("fleet", "nats1", 5.0 + number / 10, 1004.5)
    assert notable(skews.of("fleet", "nats1")) == 0.0


def test_servers_are_separate_and_bounded() -> None:
    """A broker can invent servers, but not affect the servers of another broker."""
    skews = asked(0.0, 10)
    for number in range(1000):
        skews.observe("edge", f"n{number}" * 50, 900.0, 1003.0)
    skews.observe("edge", "nats1", 900.0, 1003.0)
    assert len(skews.measured()) <= 17
    assert notable(skews.of("fleet", "nats1")) == 0.0
    skews.observe("west", "nats9", 0.5, 1003.0)
    assert "west/nats9" in skews.measured()


def test_inactive_server_is_forgotten() -> None:
    skews = asked(100.0, 5)
    assert skews.measured(1010.0)
    assert not skews.measured(1100.0)
    assert skews.of("fleet", "nats1") == 0.0


@given(st.lists(st.tuples(st.floats(-1e9, 1e9), st.floats(0, 1e6)), max_size=50))
def test_skew_is_always_a_number(seen: list[tuple[float, float]]) -> None:
    skews = Skews()
    for difference, steady in seen:
        skews.observe("b", "s", difference, steady)
    assert all(isinstance(value, float) for value in skews.measured().values())


def test_description_says_which_clock_is_ahead() -> None:
    assert describe(300.04, "nats1") == "this host's clock is 300.0 s ahead of that of server nats1"
    assert describe(-1.5, "nats1") == "this host's clock is 1.5 s behind that of server nats1"


def test_random_loads_cause_no_warning() -> None:
    for seed in range(200):
        dice = random.Random(seed)  # noqa: S311 - not for secrets
        skews = Skews()
        for _ in range(dice.randint(1, 30)):
            skews.observe("b", "s", dice.random() + dice.random() * 0.3, dice.random())
        assert abs(skews.of("b", "s")) < WARNING_SECONDS
