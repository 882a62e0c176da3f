"""The number of waiting nodes, from the reports of nats-servers."""

from __future__ import annotations

from broker_auth.callout.waiting import MAX_SERVERS, WaitingNodes
from broker_auth.policy.gauge import STALE_SECONDS


def test_servers_of_a_broker_are_summed() -> None:
    waiting = WaitingNodes(["edge", "other"], 0.0)
    waiting.report("edge", "edge-1", 3, 1.0)
    waiting.report("edge", "edge-2", 4, 2.0)
    waiting.report("edge", "edge-1", 5, 3.0)
    assert waiting.measured(4.0) == {"edge": 9}


def test_broker_without_a_report_is_empty_once_it_would_have_reported() -> None:
    """Until then its number is unknown: a worker has just started."""
    waiting = WaitingNodes(["edge"], 0.0)
    assert waiting.measured(STALE_SECONDS - 1) == {}
    assert waiting.measured(STALE_SECONDS) == {"edge": 0}
    waiting.report("edge", "edge-1", 3, STALE_SECONDS)
    assert waiting.measured(2 * STALE_SECONDS) == {"edge": 0}


def test_broker_that_permits_no_reports_is_unknown() -> None:
    waiting = WaitingNodes(["edge"], 0.0)
    waiting.refuse("edge")
    assert waiting.measured(STALE_SECONDS) == {}
    waiting.report("edge", "edge-1", 3, STALE_SECONDS)
    assert waiting.measured(STALE_SECONDS) == {"edge": 3}


def test_memory_is_bounded() -> None:
    waiting = WaitingNodes(["edge"], 0.0)
    for number in range(3 * MAX_SERVERS):
        waiting.report("edge", f"invented{number}", 1, number / 100)
        waiting.ask("edge", f"invented{number}", 1)
    assert waiting.measured(3.0) == {"edge": MAX_SERVERS}
    assert waiting.asked() == {"edge": MAX_SERVERS}


def test_messages_are_summed_over_servers_and_remain_known() -> None:
    waiting = WaitingNodes(["edge", "other"], 0.0)
    for server, total in (("edge-1", 3), ("edge-2", 4), ("edge-1", 5)):
        waiting.report("edge", server, 1, 1.0)
        waiting.ask("edge", server, total)
    assert waiting.measured(2 * STALE_SECONDS)["edge"] == 0
    assert waiting.asked() == {"edge": 9}
