"""Records that the file of a host cannot hold, a damaged file, and a host whose clock is slow."""

from __future__ import annotations

import contextlib
import time
from pathlib import Path
from typing import cast

import pytest

from broker_auth.errors import BrokerAuthError
from broker_auth.hosts import publishing
from broker_auth.hosts.registration import read_host
from broker_auth.hosts.synchronizer import Synchronizer
from broker_auth.natsio.bucket import Bucket
from broker_auth.policy.revocation_records import Record, is_in_force, key_of, restored_after
from broker_auth.policy.revocations import MAX_PATTERNS, Revocation, RevocationKind
from broker_auth.settings.revocation_store import create, open_store
from broker_auth.settings.revocations import RevocationList, read_revocations
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
