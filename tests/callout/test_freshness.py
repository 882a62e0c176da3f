"""Late is what waited, and nothing is late because clocks differ."""

from __future__ import annotations

from broker_auth.callout.freshness import FRESH_SECONDS, Age, Freshness

WALL = 1_700_000_000.0
STEADY = 5000.0


def served(skew: float = 0.0, seconds: int = 10) -> Freshness:
    """One that has seen a request every 0.1 s, the broker's clock being ``skew`` ahead; the last at ``seconds``."""
    freshness = Freshness()
    for tenth in range(seconds * 10):
        now = tenth / 10
        freshness.proven = STEADY + now
        issued = int(WALL + now + skew)
        assert freshness.judge(issued, issued + 100, WALL + now, STEADY + now) is Age.YOUNG
    return freshness


def after(freshness: Freshness, passed: float, age: float, skew: float = 0.0) -> Age:
    """What is thought of a request of this age when nothing was proven for ``passed`` seconds after the tenth."""
    now = 10 + passed
    issued = int(WALL + now - age + skew)
    return freshness.judge(issued, issued + 100, WALL + now, STEADY + now)


def test_what_waited_while_this_process_stood_still_is_stale() -> None:
    for age in (1.6, 3.0, 9.9):
        assert after(served(), 10.0, age) is Age.STALE


def test_what_came_since_is_young_whatever_the_clocks_say() -> None:
    for skew in (-20.0, 0.0, 20.0):
        assert after(served(skew), 10.0, 0.0, skew) is Age.YOUNG


def test_without_any_proof_nothing_is_young() -> None:
    issued = int(WALL)
    assert Freshness().judge(issued, issued + 10, WALL, STEADY) is Age.STALE


def test_a_broker_whose_clock_is_set_back_is_served_on() -> None:
    freshness = served()
    freshness.proven = STEADY + 12
    issued = int(WALL + 12 - 5)
    assert freshness.judge(issued, issued + 10, WALL + 12, STEADY + 12) is Age.YOUNG


def test_a_request_that_did_not_wait_and_has_expired_tells_that_clocks_differ() -> None:
    freshness = Freshness()
    freshness.proven = STEADY
    issued = int(WALL) - 30
    assert freshness.judge(issued, issued + 10, WALL, STEADY + FRESH_SECONDS / 2) is Age.EXPIRED
