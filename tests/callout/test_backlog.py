"""Order and eviction of pending requests under load."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker_auth.callout.backlog import Backlog
from broker_auth.callout.priority import Priority, priority
from broker_auth.policy.model import Policy
from broker_auth.policy.request import AuthorizationRequest
from tests.builders import policies, requests, tokens
from tests.builders.clock import HOUR, NOW
from tests.builders.peers import fleet_chain, foreign_chain

Item = tuple[str, Priority]


def backlog(brokers: int = 1, **bounds: int) -> Backlog[Item]:
    return Backlog(brokers, lambda item: item[1], **bounds)


def fill(waiting: Backlog[Item], *items: Item, broker: int = 0, size: int = 0) -> list[str]:
    """Add items; return the names of the evicted ones."""
    return [name for item in items for name, _ in waiting.put(item, broker, size)]


def names(items: Sequence[Item]) -> list[str]:
    return [name for name, _ in items]


def drained(waiting: Backlog[Item]) -> list[str]:
    """Remove and return all items, one by one."""
    order: list[str] = []
    while batch := waiting.take(1):
        order += names(batch)
    return order


def test_items_are_taken_by_priority_then_age() -> None:
    waiting = backlog()
    items = [
        ("refused", Priority.REFUSED),
        ("node 1", Priority.NODE),
        ("unknown", Priority.UNKNOWN),
        ("fleet 1", Priority.FLEET),
        ("node 2", Priority.NODE),
        ("fleet 2", Priority.FLEET),
    ]
    assert fill(waiting, *items) == []
    assert len(waiting) == 6
    assert drained(waiting) == ["fleet 1", "fleet 2", "node 1", "node 2", "unknown", "refused"]
    assert len(waiting) == 0


def test_batch_size_is_limited() -> None:
    waiting = backlog()
    fill(waiting, ("node 1", Priority.NODE), ("node 2", Priority.NODE), ("fleet", Priority.FLEET))
    assert names(waiting.take(2)) == ["fleet", "node 1"]
    assert names(waiting.take(2)) == ["node 2"]
    assert waiting.take(2) == []


def test_oldest_item_of_the_worst_priority_is_evicted() -> None:
    waiting = backlog(capacity=3)
    fill(waiting, ("refused 1", Priority.REFUSED), ("refused 2", Priority.REFUSED), ("node 1", Priority.NODE))
    assert fill(waiting, ("fleet 1", Priority.FLEET)) == ["refused 1"]
    assert fill(waiting, ("refused 3", Priority.REFUSED)) == ["refused 2"]
    assert fill(waiting, ("node 2", Priority.NODE)) == ["refused 3"]
    assert fill(waiting, ("unknown", Priority.UNKNOWN)) == ["unknown"], "all that waits has a better priority"
    assert drained(waiting) == ["fleet 1", "node 1", "node 2"]


def test_newest_items_of_a_priority_are_kept() -> None:
    waiting = backlog(capacity=2)
    assert fill(waiting, *[(str(number), Priority.UNKNOWN) for number in range(4)]) == ["0", "1"]
    assert drained(waiting) == ["2", "3"]


def test_bytes_are_bounded_and_better_priorities_are_not_evicted() -> None:
    waiting = backlog(max_bytes=100)
    fill(waiting, ("fleet", Priority.FLEET), ("node 1", Priority.NODE), ("node 2", Priority.NODE), size=30)
    assert fill(waiting, ("large node", Priority.NODE), size=60) == ["node 1", "node 2"]
    assert fill(waiting, ("larger node", Priority.NODE), size=80) == ["large node", "larger node"]
    assert drained(waiting) == ["fleet"]
    assert fill(waiting, ("alone, however large", Priority.UNKNOWN), size=1000) == []
    assert drained(waiting) == ["alone, however large"]
    assert fill(waiting, *[(str(number), Priority.NODE) for number in range(3)], size=50) == ["0"]


@pytest.mark.parametrize("unsorted", [1, 4])
def test_items_are_sorted_once_more_are_pending_than_a_batch_takes(unsorted: int) -> None:
    classified: list[Item] = []

    def classify(item: Item) -> Priority:
        classified.append(item)
        return item[1]

    waiting: Backlog[Item] = Backlog(1, classify, unsorted=unsorted)
    few = [(f"node {number}", Priority.NODE) for number in range(unsorted)]
    for _ in range(2):
        fill(waiting, *few)
        assert waiting.take(unsorted) == few
    assert classified == []
    fill(waiting, *few, ("fleet", Priority.FLEET))
    assert len(classified) == unsorted + 1
    assert names(waiting.take(unsorted)) == ["fleet", *names(few)[:-1]]
    fill(waiting, ("refused", Priority.REFUSED), ("fleet", Priority.FLEET))
    assert drained(waiting) == ["fleet", *names(few)[-1:], "refused"]


def test_smaller_batch_takes_the_best_of_unsorted_items() -> None:
    waiting = backlog(unsorted=4)
    fill(waiting, ("refused", Priority.REFUSED), ("node", Priority.NODE), ("fleet", Priority.FLEET))
    assert names(waiting.take(2)) == ["fleet", "node"]
    assert drained(waiting) == ["refused"]


# --- Several brokers


def flood(priority: Priority, count: int = 100) -> list[Item]:
    return [(f"flood {number}", priority) for number in range(count)]


def test_brokers_are_served_round_robin_within_a_priority() -> None:
    waiting = backlog(brokers=2)
    fill(waiting, *flood(Priority.NODE), broker=0)
    fill(waiting, ("node 1", Priority.NODE), ("node 2", Priority.NODE), broker=1)
    assert {"node 1", "node 2"} <= set(names(waiting.take(4)))


@pytest.mark.parametrize("claimed", list(Priority))
@pytest.mark.parametrize("real", list(Priority))
def test_flood_of_any_priority_leaves_another_broker_a_quarter_of_each_batch(claimed: Priority, real: Priority) -> None:
    waiting = backlog(brokers=2)
    fill(waiting, *flood(claimed), broker=0)
    fill(waiting, *[(f"honest {number}", real) for number in range(8)], broker=1)
    batch = names(waiting.take(8))
    assert sum(name.startswith("honest") for name in batch) >= 2
    assert len(batch) == 8


@pytest.mark.parametrize("claimed", list(Priority))
def test_flood_through_one_broker_evicts_nothing_of_another(claimed: Priority) -> None:
    waiting = backlog(brokers=2, capacity=10, max_bytes=1000)
    fill(waiting, *[(f"honest {number}", Priority.REFUSED) for number in range(5)], broker=1, size=100)
    gone = fill(waiting, *flood(claimed), broker=0, size=100)
    assert gone
    assert not any(name.startswith("honest") for name in gone)


def test_broker_uses_free_capacity_of_others_until_they_need_it() -> None:
    waiting = backlog(brokers=2, capacity=10)
    assert fill(waiting, *flood(Priority.FLEET, 10), broker=0) == []
    gone = fill(waiting, *[(f"honest {number}", Priority.REFUSED) for number in range(5)], broker=1)
    assert gone == [f"flood {number}" for number in range(5)]
    assert fill(waiting, ("one more than its share", Priority.REFUSED), broker=1) == ["honest 0"]


def test_expired_items_are_removed_from_every_queue() -> None:
    waiting = backlog(brokers=2)
    waiting.put(("alone", Priority.NODE), 0, since=1.0)
    assert waiting.oldest() == 1.0
    assert names(waiting.expire(2.0)) == ["alone"]
    for since, broker, kind in ((1.0, 0, Priority.REFUSED), (2.0, 1, Priority.FLEET), (3.0, 0, Priority.FLEET)):
        waiting.put((str(since), kind), broker, since=since)
    assert waiting.oldest() == 1.0
    assert names(waiting.expire(2.5)) == ["1.0", "2.0"]
    assert waiting.oldest() == 3.0
    assert len(waiting) == 1
    drained(waiting)
    assert waiting.oldest() is None


@given(
    st.lists(st.tuples(st.integers(0, 2), st.sampled_from(Priority), st.integers(0, 60)), max_size=80),
    st.integers(1, 9),
    st.integers(1, 15),
)
def test_every_item_is_accounted_for_and_bounds_hold(
    asked: list[tuple[int, Priority, int]], size: int, unsorted: int
) -> None:
    waiting = backlog(brokers=3, capacity=12, max_bytes=200, unsorted=unsorted)
    gone: list[str] = []
    for number, (broker, kind, held) in enumerate(asked):
        gone += fill(waiting, (str(number), kind), broker=broker, size=held)
        kept = {str(earlier) for earlier in range(number + 1)}.difference(gone)
        assert len(waiting) == len(kept) <= 12
        assert sum(asked[int(name)][2] for name in kept) <= 200
    taken: list[str] = []
    while batch := waiting.take(size):
        assert len(batch) <= size
        taken += names(batch)
    assert sorted(gone + taken, key=int) == [str(number) for number in range(len(asked))]


@given(
    st.lists(
        st.one_of(
            st.tuples(st.just("put"), st.sampled_from(Priority), st.integers(0, 60)),
            st.tuples(st.sampled_from(["take", "expire"]), st.none(), st.integers(1, 9)),
        ),
        max_size=80,
    ),
    st.integers(2, 15),
)
def test_unsorted_items_are_evicted_expired_and_taken_like_sorted_ones(
    steps: list[tuple[str, Priority | None, int]], unsorted: int
) -> None:
    """A batch that takes all may be in any order."""
    lazy, sorting = backlog(capacity=12, max_bytes=200, unsorted=unsorted), backlog(capacity=12, max_bytes=200)
    for now, (step, kind, number) in enumerate(steps):
        results = []
        for waiting in (lazy, sorting):
            if kind is not None:
                results.append(waiting.put((str(now), kind), 0, number, now))
            elif step == "take":
                results.append(waiting.take(number))
            else:
                results.append(waiting.expire(now - number))
        all_taken = step == "take" and not len(sorting)
        assert results[0] == results[1] or (all_taken and sorted(results[0]) == sorted(results[1]))
        assert (len(lazy), lazy.oldest()) == (len(sorting), sorting.oldest())


# --- Priorities


def _known(request: AuthorizationRequest, policy: Policy) -> AuthorizationRequest:
    policy.tokens.examine(request.connect_opts.auth_token)
    if request.client_tls is not None and request.client_tls.verified_chains:
        policy.peers.identify(request.client_tls.verified_chains, NOW)
    return request


PROVISIONING = tokens.sign(tokens.provisioning_claims(), tokens.provisioning_signer())
FOREIGN = tokens.sign(tokens.provisioning_claims(), tokens.FOREIGN)
FOREIGN_CHAIN = foreign_chain()


@pytest.mark.parametrize(
    ("request_", "seen", "expected"),
    [
        pytest.param(requests.fleet(), True, Priority.FLEET, id="certificate verified before"),
        pytest.param(requests.provisioner(), True, Priority.FLEET, id="provisioner verified before"),
        pytest.param(requests.fleet(), False, Priority.CERTIFICATE, id="certificate never seen"),
        pytest.param(requests.fleet(chains=(("made up",),)), False, Priority.CERTIFICATE, id="a chain made up"),
        pytest.param(requests.fleet(chains=(FOREIGN_CHAIN,)), True, Priority.UNKNOWN, id="another CA's"),
        pytest.param(requests.node(FOREIGN, chains=(fleet_chain(),)), True, Priority.FLEET, id="and a bad token"),
        pytest.param(requests.fleet(chains=(("x" * 100_000,),)), False, Priority.CERTIFICATE, id="large chain"),
        pytest.param(requests.server(), True, Priority.TOKEN, id="server token known good"),
        pytest.param(requests.client(), True, Priority.TOKEN, id="client token known good"),
        pytest.param(requests.server(), False, Priority.UNKNOWN, id="server token never seen"),
        pytest.param(requests.node(PROVISIONING), True, Priority.NODE, id="provisioning token known good"),
        pytest.param(requests.node(PROVISIONING), False, Priority.UNKNOWN, id="provisioning token never seen"),
        pytest.param(requests.node(FOREIGN), True, Priority.REFUSED, id="known bad"),
        pytest.param(requests.node(FOREIGN), False, Priority.UNKNOWN, id="bad, never seen"),
        pytest.param(requests.request(), False, Priority.UNKNOWN, id="no credential"),
        pytest.param(requests.node("x" * 20_000), True, Priority.UNKNOWN, id="too large to be remembered"),
        pytest.param(requests.request(tls=None), False, Priority.UNKNOWN, id="no TLS"),
    ],
)
def test_priority(request_: AuthorizationRequest, seen: bool, expected: Priority) -> None:
    policy = policies.issuer_policy()
    if seen:
        _known(request_, policy)
    assert priority(request_, policy, NOW) is expected


def test_expired_token_loses_its_priority() -> None:
    policy = policies.issuer_policy()
    request = _known(requests.server(), policy)
    assert priority(request, policy, NOW + HOUR - 1) is Priority.TOKEN
    assert priority(request, policy, NOW + HOUR) is Priority.REFUSED


def test_reading_the_priority_verifies_nothing() -> None:
    """A flood of new tokens must not cause signature checks for priorities."""
    policy = policies.issuer_policy()
    priority(requests.node(PROVISIONING), policy, NOW)
    assert policy.tokens.recall(PROVISIONING) is None
    priority(requests.fleet(), policy, NOW)
    assert policy.peers.recall((fleet_chain(),), NOW) is None
