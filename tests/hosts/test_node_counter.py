"""No sequence of claims, conflicts, outages and restarts counts more nodes of a token than it is for."""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import Iterator
from typing import Final, cast

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule, run_state_machine_as_test

from broker_auth.hosts.node_counter import NodeCounter, NodeMemory
from broker_auth.hosts.node_records import CountedToken, node_hash, read_nodes, write_nodes
from broker_auth.natsio.bucket import NODES, Bucket, BucketError, KeyValue
from broker_auth.policy.counting import Counted
from tests.hosts.memory_bucket import MemoryBucket, StoredStream

HOSTS: Final = 3
LIMIT: Final = 3
TOKENS: Final = tuple(CountedToken(digest=bytes([number]) * 32, limit=LIMIT, expires=None) for number in range(2))
NAMES: Final = tuple(f"n{number}" for number in range(6))
FAR: Final = time.time() + 10**6


class SharedBucket(MemoryBucket):
    """A bucket of counters whose requests overlap.

    Attributes:
        pauses: how long each waits, in rounds of the event loop.
        hangs: whether it answers nothing.
        full: whether it takes nothing.
    """

    spec = NODES

    def __init__(self) -> None:
        super().__init__()
        self.pauses: Iterator[int] = itertools.repeat(1)
        self.hangs = False
        self.full = False

    async def get(self, key: str) -> KeyValue | None:
        await self._pause()
        entry = await super().get(key)
        await self._pause()
        return entry

    async def put(self, key: str, value: bytes, expected: int, ttl: float | None = None) -> int:
        await self._pause()
        if self.full:
            raise BucketError("maximum bytes exceeded")
        revision = await super().put(key, value, expected, ttl)
        await self._pause()
        return revision

    async def _pause(self) -> None:
        if self.hangs:
            await asyncio.get_running_loop().create_future()
        for _ in range(next(self.pauses)):
            await asyncio.sleep(0)


def connected(bucket: SharedBucket, memory: NodeMemory | None = None) -> NodeCounter:
    counter = NodeCounter(memory=memory)
    counter._bucket = cast(Bucket, bucket)
    counter._known.set()
    return counter


def stored(bucket: SharedBucket, token: CountedToken) -> set[bytes]:
    nodes = read_nodes(bucket.stream.entries.get(token.key), token)
    assert nodes is not None
    assert len(nodes) == len(set(nodes))
    return set(nodes)


Claim = tuple[int, CountedToken, str]
claims = st.tuples(st.integers(0, HOSTS - 1), st.sampled_from(TOKENS), st.sampled_from(NAMES))


class Sequences(RuleBasedStateMachine):
    """Hosts that count nodes together; and which nodes each of them has admitted."""

    def __init__(self) -> None:
        super().__init__()
        self.bucket = SharedBucket()
        self.counters = [connected(self.bucket) for _ in range(HOSTS)]
        self.admitted: dict[bytes, set[str]] = {token.digest: set() for token in TOKENS}
        self.seen: list[dict[bytes, set[str]]] = [{token.digest: set() for token in TOKENS} for _ in range(HOSTS)]

    @rule(together=st.lists(claims, min_size=1, max_size=8), pauses=st.lists(st.integers(0, 3), min_size=1))
    def claim(self, together: list[Claim], pauses: list[int]) -> None:
        self.bucket.pauses = itertools.cycle(pauses)

        async def all_of_them() -> list[Counted]:
            return await asyncio.gather(
                *(self.counters[host].count(token, node_hash(name)) for host, token, name in together)
            )

        before = {token: stored(self.bucket, token) for token in TOKENS}
        for (host, token, name), result in zip(together, asyncio.run(all_of_them()), strict=True):
            admitted, seen = self.admitted[token.digest], self.seen[host][token.digest]
            if result is Counted.YES:
                assert self.bucket.up or name in admitted, "new, but the bucket cannot be reached"
                assert node_hash(name) in stored(self.bucket, token)
                admitted.add(name)
                seen.add(name)
            elif result is Counted.USED_UP:
                assert len(stored(self.bucket, token)) == LIMIT
                assert node_hash(name) not in before[token]
                assert node_hash(name) not in stored(self.bucket, token)
            else:
                assert name not in seen, "this host had seen it counted"

    @rule(up=st.booleans())
    def reach(self, *, up: bool) -> None:
        self.bucket.up = up

    @rule(count=st.integers(0, 2))
    def lose_answers(self, count: int) -> None:
        self.bucket.lose_answers = count

    @rule(number=st.integers(0, HOSTS - 1))
    def restart(self, number: int) -> None:
        self.counters[number] = connected(self.bucket)
        self.seen[number] = {token.digest: set() for token in TOKENS}

    @rule()
    def outages_end(self) -> None:
        """Check that every counted node comes back, everywhere."""
        self.bucket.up, self.bucket.lose_answers = True, 0
        for token in TOKENS:
            for name in self.admitted[token.digest]:
                for counter in self.counters:
                    assert asyncio.run(counter.count(token, node_hash(name))) is Counted.YES

    @invariant()
    def no_more_nodes_than_the_token_is_for(self) -> None:
        for token in TOKENS:
            assert len(stored(self.bucket, token)) <= LIMIT
            assert len(self.admitted[token.digest]) <= LIMIT


def test_no_sequence_counts_more_nodes_than_the_token_is_for() -> None:
    run_state_machine_as_test(Sequences, settings=settings(max_examples=200, stateful_step_count=15, deadline=None))


async def test_nodes_that_arrive_together_are_written_together() -> None:
    bucket = SharedBucket()
    counter = connected(bucket)
    token = CountedToken(digest=b"a" * 32, limit=1000, expires=FAR)
    names = [node_hash(f"n{number}") for number in range(1001)]
    results = await asyncio.gather(*(counter.count(token, name) for name in (*names, *names)))
    assert [results.count(one) for one in (Counted.YES, Counted.USED_UP)] == [2000, 2]
    assert bucket.stream.last <= 3
    (entry,) = bucket.stream.entries.values()
    assert len(entry.value) < NODES.max_value - 128
    before = bucket.stream.last
    bucket.up = False
    assert await counter.count(token, names[7]) is Counted.YES  # remembered
    assert await counter.count(token, node_hash("another")) is Counted.USED_UP  # certain without the bucket
    assert bucket.stream.last == before


async def test_bucket_that_hangs_costs_the_first_claims_their_time_and_later_ones_nothing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("broker_auth.hosts.node_counter.SECONDS", 0.01)
    bucket = SharedBucket()
    counter = connected(bucket)
    counted = node_hash("counted")
    assert await counter.count(TOKENS[0], counted) is Counted.YES
    bucket.hangs = True
    news = [node_hash("new"), node_hash("newer")]
    assert await asyncio.gather(*(counter.count(TOKENS[0], new) for new in news)) == [Counted.UNKNOWN] * 2
    assert counter._bucket is None
    assert await counter.count(TOKENS[1], counted) is Counted.UNKNOWN
    assert await counter.count(TOKENS[0], counted) is Counted.YES
    assert not counter._waiting


async def test_claim_waits_until_a_new_process_has_connected_but_not_for_a_bucket_that_is_gone() -> None:
    counter = NodeCounter()
    waiting = asyncio.create_task(counter.count(TOKENS[0], node_hash("early")))
    await asyncio.sleep(0)
    counter._bucket = cast(Bucket, SharedBucket())
    counter._report("")
    assert await waiting is Counted.YES
    gone = NodeCounter()
    gone._report("the bucket does not exist")
    assert await gone.count(TOKENS[0], node_hash("n")) is Counted.UNKNOWN


@pytest.mark.parametrize(
    "value",
    [b"", b"{", b"[]", b'{"limit":3}', b'{"limit":4,"nodes":[]}', b'{"limit":3,"nodes":["YQ=="]}', b"[" * 5000],
)
async def test_value_that_cannot_be_read_counts_nobody_and_is_reported(value: bytes) -> None:
    bucket = SharedBucket()
    bucket.stream.entries[TOKENS[0].key] = KeyValue(TOKENS[0].key, value, 1)
    counter = connected(bucket)
    assert await counter.count(TOKENS[0], node_hash("n")) is Counted.UNKNOWN
    assert "cannot be read" in counter.trouble
    assert await counter.count(TOKENS[1], node_hash("n")) is Counted.YES
    assert bucket.stream.entries[TOKENS[0].key].value == value


async def test_nodes_that_are_remembered_are_written_again_to_an_older_copy() -> None:
    bucket = SharedBucket()
    counter = connected(bucket)
    token = TOKENS[0]
    assert await counter.count(token, node_hash("first")) is Counted.YES
    bucket.stream = StoredStream(created="2")
    assert await counter.count(token, node_hash("second")) is Counted.YES
    assert stored(bucket, token) == {node_hash("first"), node_hash("second")}


async def test_refused_write_is_reported() -> None:
    bucket = SharedBucket()
    bucket.full = True
    counter = connected(bucket)
    assert await counter.count(TOKENS[0], node_hash("n")) is Counted.UNKNOWN
    assert counter.trouble == "maximum bytes exceeded"
    following = asyncio.create_task(counter._follow(cast(Bucket, bucket)))
    await asyncio.sleep(0.01)
    assert counter.trouble == ""  # it may have failed because the connection before had ended
    assert await counter.count(TOKENS[0], node_hash("n")) is Counted.UNKNOWN
    counter._probe.set()
    await asyncio.sleep(0.01)
    assert counter.trouble == "maximum bytes exceeded"  # for a while, although the bucket can be reached
    bucket.up = False
    counter._probe.set()
    with pytest.raises(BucketError, match="cannot be reached"):
        await following


async def test_value_is_kept_for_a_day_longer_than_the_token() -> None:
    token = CountedToken(digest=b"b" * 32, limit=1, expires=FAR)
    now = FAR - 100
    assert write_nodes([], token, now)[1] == 100 + 86_400
    for ends in (None, FAR + 200 * 365 * 86_400):
        assert write_nodes([], CountedToken(digest=b"b" * 32, limit=1, expires=ends), now)[1] is None


def test_memory_is_bounded_and_keeps_the_tokens_used_last() -> None:
    memory = NodeMemory(most=10)
    tokens = [CountedToken(digest=bytes([number]) * 32, limit=5, expires=None) for number in range(4)]
    nodes = [node_hash(f"n{number}") for number in range(4)]
    for token in tokens[:2]:
        memory.add(token, nodes)
    assert len(memory) == 8
    assert memory.of(tokens[0]) == set(nodes)
    memory.add(tokens[2], nodes[:2])
    assert len(memory) == 10
    memory.add(tokens[2], nodes)
    assert len(memory) == 8
    assert not memory.of(tokens[1])
    assert memory.of(tokens[0]) == memory.of(tokens[2]) == set(nodes)
