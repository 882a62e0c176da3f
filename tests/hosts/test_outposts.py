"""Hosts of an edge that follow the bucket as its reader: what they write, and what a command makes of it."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker_auth.errors import BrokerAuthError
from broker_auth.hosts.outpost_confirmations import MAX_NAMED, unconfirmed_outposts
from broker_auth.hosts.outposts import MAX_HOSTS, MAX_NAME, Outpost, OutpostRegistration, read_outposts, with_outpost
from broker_auth.hosts.publishing import publish
from broker_auth.hosts.synchronizer import Synchronizer
from broker_auth.natsio.bucket import CREATE, OUTPOSTS, Bucket, ConflictError
from broker_auth.policy.revocation_records import is_in_force, key_of
from broker_auth.policy.revocations import Revocation, RevocationKind
from broker_auth.settings.revocation_store import create, open_store
from broker_auth.settings.revocations import read_revocations
from tests.hosts.memory_bucket import MemoryBucket

NOW = time.time()
ZONE = "edge"
ID, OTHER = "0" * 16, "1" * 16


class Away:
    """A host of the edge, whose workers decide by what its file holds unless they are stuck."""

    def __init__(self, directory: Path, bucket: MemoryBucket, outposts: MemoryBucket) -> None:
        self.file = directory / "revoked.json"
        create(self.file)
        self.bucket, self.outposts, self.stuck = bucket, outposts, False
        self.synchronizer = Synchronizer(self.file, (ID, "away.example.net"), self._in_force, zone=ZONE)
        self.synchronizer._outposts = cast(Bucket, outposts)

    def _in_force(self) -> set[str]:
        return set() if self.stuck else {read_revocations(self.file).version}

    async def step(self) -> None:
        await self.synchronizer._step(cast(Bucket, self.bucket))

    @property
    def written(self) -> Outpost:
        hosts = read_outposts(self.outposts.stream.entries[ZONE].value)
        assert hosts is not None
        return hosts[ID]


@pytest.fixture
def away(tmp_path: Path) -> Away:
    return Away(tmp_path, MemoryBucket(), MemoryBucket(OUTPOSTS))


def node(name: str) -> Revocation:
    return Revocation(kind=RevocationKind.NODE, value=name, at=NOW)


async def revoke(bucket: MemoryBucket, name: str) -> int:
    return await publish(cast(Bucket, bucket), [node(name)], NOW)


async def waiting_for(away: Away, revision: int) -> list[str]:
    buckets = [cast(Bucket, one) for one in (away.outposts, away.bucket)]
    return await unconfirmed_outposts(buckets[0], buckets[1], [ZONE, "silent"], revision, 0.0)


async def test_reader_takes_what_was_revoked_and_writes_no_record(away: Away) -> None:
    with open_store(away.file) as store:
        store.revoke([node("own")], NOW)
    revision = await revoke(away.bucket, "n1")
    await away.step()
    held = read_revocations(away.file).records
    assert is_in_force(held[key_of(node("n1"))], NOW)
    assert is_in_force(held[key_of(node("own"))], NOW)
    assert away.bucket.stream.last == revision
    assert (away.written.confirmed, away.written.bucket) == (revision, away.bucket.stream.created)
    assert away.synchronizer.trouble == ""
    assert away.synchronizer.synchronized > 0
    assert await waiting_for(away, revision) == []


async def test_host_whose_workers_do_not_follow_is_named(away: Away) -> None:
    await away.step()
    away.stuck = True
    revision = await revoke(away.bucket, "n1")
    await away.step()
    assert await waiting_for(away, revision) == ["host away.example.net of zone edge"]
    away.stuck = False
    await away.step()
    assert await waiting_for(away, revision) == []


async def test_host_that_was_stopped_is_not_waited_for(away: Away) -> None:
    await away.step()
    await away.synchronizer.leave()
    assert away.written.left
    assert await waiting_for(away, await revoke(away.bucket, "n1")) == []


async def test_confirmation_of_a_lost_or_older_bucket_does_not_count(away: Away) -> None:
    await revoke(away.bucket, "n1")
    older = away.bucket.copy()
    for name in ("n2", "n3", "n4"):
        revision = await revoke(away.bucket, name)
    await away.step()
    assert await waiting_for(away, revision) == []
    away.bucket.stream = older
    assert await waiting_for(away, await revoke(away.bucket, "n5")) != []
    await away.step()
    assert await waiting_for(away, away.bucket.stream.last) == []
    away.bucket.stream.created = "2"
    assert await waiting_for(away, 1) != []


async def test_failing_registration_delays_nothing_and_is_reported(away: Away, monkeypatch: pytest.MonkeyPatch) -> None:
    async def conflict(*_: object) -> int:
        raise ConflictError("somebody writes all the time")

    monkeypatch.setattr("broker_auth.hosts.outposts._AGAIN_SECONDS", 0.0)
    monkeypatch.setattr(away.outposts, "put", conflict)
    await revoke(away.bucket, "n1")
    await away.step()
    assert key_of(node("n1")) in read_revocations(away.file).records
    assert "changed by others all the time" in away.synchronizer.trouble
    monkeypatch.undo()
    monkeypatch.setattr("broker_auth.hosts.outposts.RETRY_SECONDS", 0.0)
    away.synchronizer._registration._next = 0.0  # type: ignore[union-attr]
    for _ in range(2):
        await away.step()
    assert away.synchronizer.trouble == ""


async def test_hosts_of_a_zone_share_its_key() -> None:
    bucket = MemoryBucket(OUTPOSTS)
    for key, name in ((ID, "one"), (OTHER, "other"), (ID, "one")):
        await OutpostRegistration(cast(Bucket, bucket), ZONE, (key, name), "1").confirm(7, 0.0)
    hosts = read_outposts(bucket.stream.entries[ZONE].value)
    assert hosts is not None
    assert {key: (one.name, one.confirmed) for key, one in hosts.items()} == {ID: ("one", 7), OTHER: ("other", 7)}


def test_value_is_bounded_and_keeps_the_newest_hosts() -> None:
    own = Outpost(name="own", seen=1000)
    many = {f"{n:016x}": Outpost(name="ü" * MAX_NAME, bucket="x" * 64, seen=n) for n in range(1, 200)}
    value = with_outpost(many, ID, own)
    assert len(value) < OUTPOSTS.max_value
    hosts = read_outposts(value)
    assert hosts is not None
    assert 1 < len(hosts) <= MAX_HOSTS
    assert hosts[ID] == own
    assert min(one.seen for key, one in hosts.items() if key != ID) > 199 - MAX_HOSTS
    late = Outpost(name="own", seen=199 + 86_401)
    assert read_outposts(with_outpost(many, ID, late)) == {ID: late}


HOSTILE: Mapping[str, bytes] = {
    "nothing": b"",
    "not JSON": b"{",
    "a list": b"[]",
    "another id": b'{"x": {"name": "a", "seen": 1}}',
    "a name too long": msgspec.json.encode({ID: {"name": "a" * 65, "seen": 1}}),
    "another field": msgspec.json.encode({ID: {"name": "a", "seen": 1, "more": 1}}),
    "a number too large": msgspec.json.encode({ID: {"name": "a", "seen": 1, "confirmed": 2**60}}),
    "a fraction": b'{"%s": {"name": "a", "seen": 1.5}}' % ID.encode(),
    "too deep": b'{"%s": ' % ID.encode() + b"[" * 5000,
    "too many": msgspec.json.encode({f"{n:016x}": {"name": "a", "seen": 1} for n in range(MAX_HOSTS + 1)}),
    "too long": b" " * OUTPOSTS.max_value + b"{}",
}


@pytest.mark.parametrize("value", HOSTILE.values(), ids=HOSTILE)
async def test_value_that_cannot_be_read_counts_as_not_confirmed(away: Away, value: bytes) -> None:
    assert read_outposts(value) is None
    await away.outposts.put(ZONE, value, CREATE)
    (line,) = await waiting_for(away, 0)
    assert line.startswith("zone edge, ")
    await away.step()  # the next host writes a usable one
    assert away.written.name == "away.example.net"


async def test_many_hosts_are_counted_and_names_are_printable(away: Away) -> None:
    names = ["\x1b[2J\n", *(f"h{n}" for n in range(MAX_HOSTS - 1))]
    hosts = {f"{n:016x}": Outpost(name=name, seen=int(NOW)) for n, name in enumerate(names)}
    await away.outposts.put(ZONE, msgspec.json.encode(hosts), CREATE)
    lines = await waiting_for(away, await revoke(away.bucket, "n1"))
    assert len(lines) == MAX_NAMED + 1
    assert lines[0] == "host \\x1b[2J\\x0a of zone edge"
    assert lines[-1] == f"{MAX_HOSTS - MAX_NAMED} more hosts of zone edge"


_json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=80),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=20), inner, max_size=4),
)
_hosts = st.dictionaries(
    st.sampled_from((ID, OTHER, "x")),
    st.fixed_dictionaries(
        {"name": st.text(max_size=70), "seen": st.integers(-5, 2**54)},
        optional={"confirmed": st.integers(-2, 2**54), "bucket": st.sampled_from(("1", "2")), "left": st.booleans()},
    ),
)


@given(st.binary(max_size=200) | (_json | _hosts).map(msgspec.json.encode))
def test_any_value_costs_a_few_lines(value: bytes) -> None:
    asyncio.run(_cost(value))


async def _cost(value: bytes) -> None:
    outposts, bucket = MemoryBucket(OUTPOSTS), MemoryBucket()
    await outposts.put(ZONE, value, CREATE)
    revision = await revoke(bucket, "n1")
    buckets: list[Any] = [outposts, bucket]
    lines = await unconfirmed_outposts(buckets[0], buckets[1], [ZONE], revision, 0.0)
    assert len(lines) <= MAX_NAMED + 1
    assert all(line.isprintable() and "edge" in line and len(line) < 1000 for line in lines)
    with contextlib.suppress(BrokerAuthError):
        await OutpostRegistration(buckets[0], ZONE, (ID, "own"), "1").confirm(1, 0.0)
    hosts = read_outposts(outposts.stream.entries[ZONE].value)
    assert hosts is not None
    assert hosts[ID].name == "own"
