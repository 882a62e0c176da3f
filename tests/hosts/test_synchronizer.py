"""Records that the file of a host cannot hold, a damaged file, and a host whose clock is slow."""

from __future__ import annotations

import asyncio
import contextlib
import time
from pathlib import Path
from typing import cast

import pytest

from broker_auth.errors import BrokerAuthError
from broker_auth.hosts import publishing
from broker_auth.hosts.registration import read_host
from broker_auth.hosts.synchronizer import Synchronizer
from broker_auth.natsio.bucket import Bucket, BucketError, KeyValue
from broker_auth.policy.revocation_records import Record, is_in_force, key_of, restored_after
from broker_auth.policy.revocations import MAX_PATTERNS, Revocation, RevocationKind
from broker_auth.settings.revocation_store import RevocationStore, create, open_store
from broker_auth.settings.revocations import RevocationList, read_revocations
from tests.deadlines import HANG_SECONDS
from tests.hosts.memory_bucket import MemoryBucket

NOW = time.time()


class PlayedHost:
    """A host whose workers decide by what its file held last."""

    def __init__(self, directory: Path, name: str, bucket: MemoryBucket) -> None:
        self.file = directory / name / "revoked.json"
        self.file.parent.mkdir()
        create(self.file)
        self.key = f"host.{name}"
        self.bucket = bucket
        self.version = ""
        self.synchronizer = Synchronizer(self.file, (name, name), self.in_force)

    @property
    def held(self) -> RevocationList:
        return read_revocations(self.file)

    def in_force(self) -> set[str]:
        with contextlib.suppress(BrokerAuthError):
            self.version = self.held.version
        return {self.version}

    def revoke(self, *records: Revocation) -> tuple[Record, ...]:
        with open_store(self.file) as store:
            return store.revoke(records, NOW)

    async def step(self) -> None:
        await self.synchronizer._step(cast(Bucket, self.bucket))

    def confirmed(self) -> int:
        return read_host(self.bucket.stream.entries[self.key]).confirmed


@pytest.fixture
def pair(tmp_path: Path) -> tuple[PlayedHost, PlayedHost]:
    bucket = MemoryBucket()
    return PlayedHost(tmp_path, "one", bucket), PlayedHost(tmp_path, "other", bucket)


def patterns(letter: str) -> list[Revocation]:
    texts = [f"/{letter}{number}/" for number in range(MAX_PATTERNS)]
    return [Revocation(kind=RevocationKind.IDENTITY, value=text, at=NOW) for text in texts]


def node(name: str) -> Revocation:
    return Revocation(kind=RevocationKind.NODE, value=name, at=NOW)


async def test_too_many_patterns_of_several_hosts_keep_nothing_else_from_them(
    pair: tuple[PlayedHost, PlayedHost],
) -> None:
    one, other = pair
    one.revoke(*patterns("a"), node("n1"))
    other.revoke(*patterns("b"), node("n2"))
    for _ in range(3):
        for host in pair:
            await host.step()
    for host in pair:
        assert {key_of(node("n1")), key_of(node("n2"))} <= host.held.records.keys()
    assert f"more than {MAX_PATTERNS} patterns" in other.synchronizer.trouble
    assert other.confirmed() < one.bucket.stream.last


async def test_patterns_that_do_not_fit_are_not_merged_all_the_time(
    pair: tuple[PlayedHost, PlayedHost], monkeypatch: pytest.MonkeyPatch
) -> None:
    one, other = pair
    one.revoke(*patterns("a"))
    await one.step()
    other.revoke(*patterns("b"))
    merges = 0

    def counted(path: Path, seconds: float) -> contextlib.AbstractContextManager[RevocationStore]:
        nonlocal merges
        merges += 1
        return open_store(path, seconds)

    monkeypatch.setattr("broker_auth.hosts.synchronizer.open_store", counted)
    monkeypatch.setattr("broker_auth.hosts.synchronizer._MERGE_SECONDS", 10 * HANG_SECONDS)
    for _ in range(2):  # it reads back what it wrote itself
        await other.step()
    before = merges
    for _ in range(3):
        await other.step()
    assert merges == before > 0
    assert "more than" in other.synchronizer.trouble
    one.revoke(node("n1"))
    await one.step()
    await other.step()  # a record that fits does not wait
    assert key_of(node("n1")) in other.held.records
    with open_store(other.file) as store:
        store.restore([key_of(record) for record in patterns("b")], NOW)
    for _ in range(3):
        await other.step()  # nor does what fits now
    assert {key_of(record) for record in patterns("a")} <= other.held.records.keys()
    assert other.synchronizer.trouble == ""


async def test_host_whose_file_is_damaged_stays_registered(
    pair: tuple[PlayedHost, PlayedHost], monkeypatch: pytest.MonkeyPatch
) -> None:
    host, _ = pair
    for _ in range(2):
        await host.step()
    host.file.write_bytes(b"")
    written = host.bucket.stream.entries[host.key].revision
    monkeypatch.setattr("broker_auth.hosts.registration.REFRESH_SECONDS", 0.0)
    await host.step()
    assert host.synchronizer.trouble
    assert host.bucket.stream.entries[host.key].revision > written


async def test_revocation_by_a_slow_clock_counts_although_another_host_restored_the_value(
    pair: tuple[PlayedHost, PlayedHost],
) -> None:
    host, slow = pair
    written = host.revoke(node("n1"))
    with open_store(host.file) as store:
        store.merge([restored_after(cast(Revocation, written[0]), NOW)], NOW)
    await host.step()
    late = Revocation(kind=RevocationKind.NODE, value="n1", at=NOW - 60)
    await publishing.publish(cast(Bucket, host.bucket), slow.revoke(late), NOW)
    for _ in range(2):
        await slow.step()
        await host.step()
    for one in pair:
        assert is_in_force(one.held.records[key_of(late)], NOW)


async def test_command_does_not_wait_for_a_bucket_whose_hosts_cannot_be_read(monkeypatch: pytest.MonkeyPatch) -> None:
    class SlowBucket(MemoryBucket):
        async def entries(self, prefix: str) -> list[KeyValue]:
            await asyncio.sleep(10 * HANG_SECONDS)
            return await super().entries(prefix)

    monkeypatch.setattr("broker_auth.hosts.publishing.CONFIRM_SECONDS", 0.1)
    with pytest.raises(BucketError, match="its hosts could not be read within"):
        async with asyncio.timeout(HANG_SECONDS):
            await publishing.unconfirmed_hosts(cast(Bucket, SlowBucket()), 1, "own")


async def test_host_that_has_not_confirmed_is_named_at_the_deadline(
    pair: tuple[PlayedHost, PlayedHost], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("broker_auth.hosts.publishing.CONFIRM_SECONDS", 0.1)
    host, other = pair
    await other.step()
    revision = await publishing.publish(cast(Bucket, host.bucket), host.revoke(node("n1")), NOW)
    assert await publishing.unconfirmed_hosts(cast(Bucket, host.bucket), revision, "one") == ["other"]
    for _ in range(2):
        await other.step()
    assert await publishing.unconfirmed_hosts(cast(Bucket, host.bucket), revision, "one") == []
