"""No sequence of commands, outages and restarts has a host admit what it knows to be revoked."""

from __future__ import annotations

import asyncio
import contextlib
import tempfile
import time
from pathlib import Path
from typing import Final, cast

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule, run_state_machine_as_test

from broker_auth.errors import BrokerAuthError
from broker_auth.hosts import publishing
from broker_auth.hosts.synchronizer import Synchronizer
from broker_auth.natsio.bucket import Bucket
from broker_auth.policy.revocation_records import is_in_force
from broker_auth.policy.revocations import Revocation, RevocationKind
from broker_auth.settings.revocation_store import create, open_store
from broker_auth.settings.revocations import RevocationList, read_revocations
from tests.hosts.memory_bucket import MemoryBucket, StoredStream

HOSTS: Final = 3
VALUES: Final = ("n1",)
KEYS: Final = {value: (RevocationKind.NODE, value) for value in VALUES}
hosts = st.integers(0, HOSTS - 1)
values = st.sampled_from(VALUES)


class PlayedHost:
    """A host: its file, its workers, and the process that synchronizes while the service runs."""

    def __init__(self, directory: Path, name: str) -> None:
        self.file = directory / name / "revoked.json"
        self.file.parent.mkdir()
        create(self.file)
        self.name = name
        self.running = True
        self.workers: RevocationList = read_revocations(self.file)  # by which its workers decide
        self.good = self.file.read_bytes()  # the content before the file was damaged
        self.damaged = False
        self.synchronizer = self.process()

    def process(self) -> Synchronizer:
        return Synchronizer(self.file, (self.name, self.name), lambda: {self.workers.version})

    def follow(self) -> None:
        """Read the file as workers do: its last good state stays in force."""
        with contextlib.suppress(BrokerAuthError):
            self.workers = read_revocations(self.file)

    def denies(self, value: str) -> bool:
        record = self.workers.records.get(KEYS[value])
        return record is not None and is_in_force(record, 0)


class Sequences(RuleBasedStateMachine):
    """Hosts that revoke, restore, lose the bucket, restart; and what each of them knows to be revoked."""

    def __init__(self) -> None:
        super().__init__()
        self.directory = tempfile.TemporaryDirectory()
        self.hosts = [PlayedHost(Path(self.directory.name), f"h{number}") for number in range(HOSTS)]
        self.bucket = MemoryBucket()
        self.backup: StoredStream = self.bucket.copy()
        self.now = time.time()
        self.latest: dict[str, float] = {}  # the time of the latest revocation of each value, by any host
        self.restored: dict[str, float] = {}  # the time of the latest revocation that was restored
        self.known: dict[tuple[int, str], float] = {}  # the latest revocation that a host's workers have seen

    def teardown(self) -> None:
        self.outages_end()
        self.directory.cleanup()

    # -- commands -----------------------------------------------------------------------------

    @rule(number=hosts, value=values)
    def revoke(self, number: int, value: str) -> None:
        host = self.hosts[number]
        self.now += 1
        with contextlib.suppress(BrokerAuthError), open_store(host.file) as store:
            entry = Revocation(kind=RevocationKind.NODE, value=value, at=self.now)
            written = store.revoke([entry], self.now)
            self.latest[value] = max(self.latest.get(value, 0), written[0].at)
            assert not host.running or self.confirmed(host).denies(value)

    @rule(number=hosts, value=values)
    def restore(self, number: int, value: str) -> None:
        host = self.hosts[number]
        self.now += 1
        with contextlib.suppress(BrokerAuthError), open_store(host.file) as store:
            known = store.held.records.get(KEYS[value])
            store.restore([KEYS[value]], self.now)
            assert known is not None
            self.restored[value] = max(self.restored.get(value, 0), known.at)
            self.confirmed(host)

    def confirmed(self, host: PlayedHost) -> PlayedHost:
        """Return the host when its workers decide by the file, which the command holds until then."""
        if host.running:
            host.follow()
        return host

    @rule(number=hosts, value=values, following=st.sets(hosts))
    def revoke_everywhere(self, number: int, value: str, following: set[int]) -> None:
        """Check that every running host denies when the command returns and names no host."""
        host = self.hosts[number]
        self.now += 1
        try:
            with open_store(host.file) as store:
                written = store.revoke([Revocation(kind=RevocationKind.NODE, value=value, at=self.now)], self.now)
                self.latest[value] = max(self.latest.get(value, 0), written[0].at)
                self.confirmed(host)
            revision = asyncio.run(publishing.publish(self.shared, written, self.now))
        except BrokerAuthError:
            return
        for _ in range(2):  # the other hosts follow while the command waits
            for index, other in enumerate(self.hosts):
                self.step(other)
                if other.running and index in following:
                    other.follow()
        with contextlib.suppress(BrokerAuthError):
            if not asyncio.run(publishing.unconfirmed_hosts(self.shared, revision, host.name)):
                assert all(one.denies(value) for one in self.hosts if one.running)

    # -- time passes --------------------------------------------------------------------------

    @rule(number=hosts)
    def synchronize(self, number: int) -> None:
        self.step(self.hosts[number])

    @rule(number=hosts)
    def workers_follow(self, number: int) -> None:
        if self.hosts[number].running:
            self.hosts[number].follow()

    def step(self, host: PlayedHost) -> None:
        if host.running:
            with contextlib.suppress(BrokerAuthError):
                asyncio.run(host.synchronizer._step(self.shared))

    @property
    def shared(self) -> Bucket:
        return cast(Bucket, self.bucket)

    # -- what goes wrong ----------------------------------------------------------------------

    @rule(up=st.booleans())
    def reach(self, *, up: bool) -> None:
        self.bucket.up = up

    @rule(count=st.integers(0, 2))
    def lose_answers(self, count: int) -> None:
        self.bucket.lose_answers = count

    @rule()
    def back_up(self) -> None:
        self.backup = self.bucket.copy()

    @rule(empty=st.booleans())
    def roll_back(self, *, empty: bool) -> None:
        """Put an older copy or an empty bucket in the place of the bucket; a server restores a copy when it starts."""
        self.bucket.stream = StoredStream(created=str(self.now)) if empty else self.backup
        self.backup = self.bucket.copy()
        for host in [] if empty else self.hosts:
            host.synchronizer = host.process()

    @rule(number=hosts, cut=st.integers(1, 40))
    def damage(self, number: int, cut: int) -> None:
        host = self.hosts[number]
        if not host.damaged:
            host.good, host.damaged = host.file.read_bytes(), True
            host.file.write_bytes(host.good[:-cut])

    @rule(number=hosts)
    def repair(self, number: int) -> None:
        host = self.hosts[number]
        if host.damaged:
            host.file.write_bytes(host.good)
            host.damaged = False

    @rule(number=hosts, kill=st.booleans())
    def stop(self, number: int, *, kill: bool) -> None:
        host = self.hosts[number]
        if host.running:
            if not kill:
                asyncio.run(host.synchronizer.leave())
            host.running = False

    @rule(number=hosts)
    def start(self, number: int) -> None:
        """Start the service: it synchronizes if it can, reads its file, and refuses to start by one it cannot read."""
        host = self.hosts[number]
        if not host.running:
            host.running, host.synchronizer = True, host.process()
            self.step(host)
            try:
                host.workers = read_revocations(host.file)
            except BrokerAuthError:
                host.running = False

    # -- what must hold -----------------------------------------------------------------------

    @invariant()
    def nothing_known_to_be_revoked_is_admitted(self) -> None:
        for number, host in enumerate(self.hosts):
            for value in VALUES:
                record = host.workers.records.get(KEYS[value])
                if isinstance(record, Revocation):
                    self.known[number, value] = max(self.known.get((number, value), 0), record.at)
                seen = self.known.get((number, value), 0)
                if host.running and seen > self.restored.get(value, 0):
                    assert host.denies(value), (host.name, value)

    @rule()
    def outages_end(self) -> None:
        """Check that every host then holds the same: it denies what was revoked and not restored, and nothing else."""
        self.bucket.up, self.bucket.lose_answers = True, 0
        for number in range(HOSTS):
            self.repair(number)
            self.start(number)
        for _ in range(6):
            for host in self.hosts:
                self.step(host)
        for host in self.hosts:
            assert not host.synchronizer.trouble
            host.follow()
            assert host.workers.records == self.hosts[0].workers.records
            for value in VALUES:
                assert host.denies(value) == (self.latest.get(value, 0) > self.restored.get(value, 0)), value


def test_no_sequence_admits_what_was_revoked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(publishing, "CONFIRM_SECONDS", -1.0)  # hosts are not waited for
    run_state_machine_as_test(Sequences, settings=settings(max_examples=150, stateful_step_count=12, deadline=None))
