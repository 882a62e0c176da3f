"""Queued requests are stale; clock skew alone makes no request stale."""

from __future__ import annotations

from broker_auth.callout.freshness import FRESH_SECONDS, Age, Freshness

WALL = 1_700_000_000.0
STEADY = 5000.0


def served(skew: float = 0.0, seconds: int = 10) -> Freshness:
    """Return a Freshness after requests every 0.1 s for ``seconds``, with the broker's clock ahead by ``skew``."""
    freshness = Freshness()
    for tenth in range(seconds * 10):
        now = tenth / 10
        freshness.proven = STEADY + now
        issued = int(WALL + now + skew)
        assert freshness.judge(issued, issued + 100, WALL + now, STEADY + now) is Age.YOUNG
    return freshness


def after(freshness: Freshness, passed: float, age: float, skew: float = 0.0) -> Age:
    """Return the judgement about a request of this age, ``passed`` seconds after the last proof at 10 s."""
    now = 10 + passed
    issued = int(WALL + now - age + skew)
    return freshness.judge(issued, issued + 100, WALL + now, STEADY + now)


def test_request_queued_during_a_suspension_is_stale() -> None:
    for age in (1.6, 3.0, 9.9):
        assert after(served(), 10.0, age) is Age.STALE


def test_request_after_a_suspension_is_young_despite_clock_skew() -> None:
    for skew in (-20.0, 0.0, 20.0):
        assert after(served(skew), 10.0, 0.0, skew) is Age.YOUNG


def test_without_any_proof_nothing_is_young() -> None:
    issued = int(WALL)
    assert Freshness().judge(issued, issued + 10, WALL, STEADY) is Age.STALE


def test_broker_whose_clock_is_set_back_is_still_served() -> None:
    freshness = served()
    freshness.proven = STEADY + 12
    issued = int(WALL + 12 - 5)
    assert freshness.judge(issued, issued + 10, WALL + 12, STEADY + 12) is Age.YOUNG


def test_new_request_that_has_expired_shows_clock_skew() -> None:
    freshness = Freshness()
    freshness.proven = STEADY
    issued = int(WALL) - 30
    assert freshness.judge(issued, issued + 10, WALL, STEADY + FRESH_SECONDS / 2) is Age.EXPIRED
