"""Hosts answer what let sessions in by their audit records, and commands wait for every host that can answer."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import AsyncIterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import cast

import msgspec
import pytest

from broker_auth.audit.record import AuditRecord, encode
from broker_auth.hosts import answering, asking
from broker_auth.hosts.answering import MAX_QUESTIONS, Answering
from broker_auth.hosts.asking import Asking
from broker_auth.hosts.questions import HostAnswer, Part, Place, answer_key, parts_of, question_key, read_answer
from broker_auth.hosts.registration import Host
from broker_auth.hosts.synchronizer import Synchronizer
from broker_auth.natsio.bucket import Bucket, KeyValue
from broker_auth.policy.revocations import RevocationKind
from broker_auth.settings.revocation_store import create
from tests.builders.clock import NOW
from tests.callout.deployment import eventually
from tests.hosts.memory_bucket import MemoryBucket

LEAKED = [(RevocationKind.TOKEN_ID, "leaked")]
ID = "0123456789abcdef"
LET_IN = Place("fleet", "N1", 1)
OTHER = Place("fleet", "N1", 2)
AT_EDGE = Place("edge", "E1", 1)
UNKNOWN = Place("fleet", "N1", 9)


class AnsweringHost:
    """A host with audit records, whose process synchronizes and answers while it runs."""

    def __init__(self, directory: Path, key: str, bucket: MemoryBucket) -> None:
        self.key = key
        self.bucket = bucket
        self.directory = directory / key
        self.directory.mkdir()
        create(self.directory / "revoked.json")
        self.answering: Answering | None = Answering(key, self.audit_file)
        self.files = True

    def audit_file(self, zone: str) -> Path | None:
        return self.directory / f"{zone}.json" if self.files else None

    def record(self, *admissions: tuple[Place, str]) -> None:
        """Write the record of each session to the file of its zone."""
        for place, token in admissions:
            record = AuditRecord(
                time=datetime.fromtimestamp(NOW, UTC),
                decision="admit",
                rule="tokens",
                rule_number=3,
                code="admitted",
                reason="",
                zone=place.zone,
                server_id=place.server,
                cid=place.cid,
                token_id=token,
            )
            with (self.directory / f"{place.zone}.json").open("ab") as file:
                file.write(encode(record))

    async def register(self) -> None:
        value = msgspec.json.encode(Host(name=f"name of {self.key}"))
        await self.bucket.put(f"host.{self.key}", value, 0)

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        name = self.key, f"name of {self.key}"
        synchronizer = Synchronizer(self.directory / "revoked.json", name, set, answering=self.answering)
        await synchronizer._step(cast(Bucket, self.bucket))
        task = asyncio.create_task(synchronizer._follow(cast(Bucket, self.bucket)))
        try:
            yield
        finally:
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task


@pytest.fixture
def bucket() -> MemoryBucket:
    return MemoryBucket()


@pytest.fixture
def hosts(tmp_path: Path, bucket: MemoryBucket) -> list[AnsweringHost]:
    return [AnsweringHost(tmp_path, key, bucket) for key in ("a1", "b2")]


def asker(bucket: MemoryBucket) -> Asking:
    return Asking(cast(Bucket, bucket), {})


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Wait for a moment only: the test knows that nothing comes."""
    monkeypatch.setattr(asking, "ANSWER_SECONDS", 0.3)


async def test_each_host_tells_of_the_sessions_that_it_admitted(
    bucket: MemoryBucket, hosts: list[AnsweringHost]
) -> None:
    one, other = hosts
    one.record((LET_IN, "leaked"), (AT_EDGE._replace(zone="fleet"), "leaked"))
    other.record((OTHER, "another"), (AT_EDGE, "leaked"))
    many = [Place("fleet", "N2", cid) for cid in range(1, 5001)]
    other.record(*((place, "leaked" if place.cid % 2 else "another") for place in many))
    ask = asker(bucket)
    async with one.running(), other.running():
        await ask.ask(LEAKED, [LET_IN, OTHER, AT_EDGE, *many])
        assert ask.matches == {LET_IN: True, OTHER: False, AT_EDGE: True} | {one: bool(one.cid % 2) for one in many}
        await ask.ask(LEAKED, [UNKNOWN])
    assert UNKNOWN not in ask.matches
    assert not any(host.silent or host.troubles for host in ask.hosts.values())
    assert {host.name: host.since for host in ask.hosts.values()} == {"name of a1": NOW, "name of b2": NOW}
    assert len(ask.matches) == 5003


@pytest.mark.usefixtures("impatient")
async def test_older_host_and_host_that_ended_are_named_and_waited_for_once(
    bucket: MemoryBucket, hosts: list[AnsweringHost], monkeypatch: pytest.MonkeyPatch
) -> None:
    one, old = hosts
    old.answering = None
    gone = AnsweringHost(one.directory, "c3", bucket)
    await gone.register()
    left = msgspec.json.encode(Host(name="name of d4", left=True))
    await bucket.put("host.d4", left, 0)
    one.record((LET_IN, "leaked"))
    ask = asker(bucket)
    async with one.running(), old.running():
        await ask.ask(LEAKED, [LET_IN])
        assert not any(host.silent for host in ask.hosts.values())  # nothing is missing that they could tell
        await ask.ask(LEAKED, [LET_IN, UNKNOWN])
        assert {host.name: host.silent for host in ask.hosts.values()} == {
            "name of a1": False,
            "name of b2": True,
            "name of c3": True,
        }
        monkeypatch.setattr(asking, "ANSWER_SECONDS", 3600.0)
        await ask.ask(LEAKED, [UNKNOWN])
        assert [host.silent for host in ask.hosts.values()].count(True) == 2


async def test_host_without_records_says_why(bucket: MemoryBucket, hosts: list[AnsweringHost]) -> None:
    one, other = hosts
    other.files = False
    ask = asker(bucket)
    async with one.running(), other.running():
        await ask.ask(LEAKED, [UNKNOWN, AT_EDGE])
    assert ask.matches == {}
    troubles = {host.name: sorted(host.troubles) for host in ask.hosts.values()}
    assert troubles == {
        "name of a1": [f"there is no audit file {one.directory / f'{zone}.json'}" for zone in ("edge", "fleet")],
        "name of b2": ["plugin.broker_auth.audit.output names no file"],
    }


@pytest.mark.usefixtures("impatient")
async def test_hostile_answers_tell_nothing(bucket: MemoryBucket, hosts: list[AnsweringHost]) -> None:
    await hosts[0].register()
    ask = asker(bucket)
    task = asyncio.create_task(ask.ask(LEAKED, [UNKNOWN]))
    key = await eventually(lambda: next((key for key in bucket.stream.entries if key.startswith("question.")), None))
    question, right = key.split(".")[1], msgspec.json.encode(HostAnswer(known="m"))
    hostile = {
        answer_key(question, "a1", 1): b'{"known":"mm"}',
        answer_key(question, "a1", 0): right,  # a part without sessions
        answer_key(question, "a1", 100): right,
        answer_key(question, "ee", 1): right,  # of no host
        answer_key(ID, "a1", 1): right,  # to another question
        f"answer.{question}": right,
        "answer": b"[" * 5000,
    }
    for key, value in hostile.items():
        await bucket.put(key, value, 0)
    await task
    assert ask.matches == {}
    assert [host.silent for host in ask.hosts.values()] == [True]


async def answered(one: Answering, bucket: MemoryBucket) -> None:
    """Wait until everything that was asked is answered."""
    while True:
        await one.step(cast(Bucket, bucket))
        if not one.is_busy:
            return
        await asyncio.sleep(0.01)


def taken(parts: Sequence[Part], question: str = ID) -> list[KeyValue]:
    return [KeyValue(question_key(question, number), msgspec.json.encode(part), 1) for number, part in enumerate(parts)]


def answers(bucket: MemoryBucket) -> dict[str, HostAnswer]:
    read = {key: read_answer(entry) for key, entry in bucket.stream.entries.items()}
    return {key: one.answer for key, one in read.items() if one}


async def test_question_is_answered_once_it_is_complete_and_only_once(
    bucket: MemoryBucket, hosts: list[AnsweringHost]
) -> None:
    host = hosts[0]
    host.record((LET_IN, "leaked"))
    one = Answering("a1", host.audit_file)
    entries = taken(parts_of(LEAKED, [LET_IN, UNKNOWN])[0])
    one.take(entries[:1])
    await answered(one, bucket)
    assert answers(bucket) == {}
    one.take(entries)
    bucket.up = False  # its answer is kept until it can be written
    await answered(one, bucket)
    bucket.up, bucket.lose_answers = True, 1
    await answered(one, bucket)
    await answered(one, bucket)
    assert answers(bucket) == {answer_key(ID, "a1", 1): HostAnswer(known="m-", since=NOW)}
    bucket.stream.entries.clear()
    one.take(entries)  # read again after a reconnect
    await answered(one, bucket)
    assert answers(bucket) == {}


async def test_answer_that_the_bucket_refuses_is_dropped_soon(
    bucket: MemoryBucket, hosts: list[AnsweringHost], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(answering, "_RETRY_SECONDS", 0.0)
    one = Answering("a1", hosts[0].audit_file)
    bucket.up = False
    one.take(taken(parts_of(LEAKED, [UNKNOWN])[0]))
    await answered(one, bucket)
    bucket.up = True
    await answered(one, bucket)
    assert answers(bucket) == {}


async def test_questions_beyond_the_limits_are_ignored(
    bucket: MemoryBucket, hosts: list[AnsweringHost], monkeypatch: pytest.MonkeyPatch
) -> None:
    one = Answering("a1", hosts[0].audit_file)
    [first, last] = parts_of(LEAKED, [UNKNOWN])[0]
    for number in range(MAX_QUESTIONS + 5):
        one.take(taken([first], f"{number:016x}"))
    assert len(one._open) == MAX_QUESTIONS
    one.take(taken([first, last], "f" * 16))
    one.take(taken([first, last], "0" * 16))
    monkeypatch.setattr(answering, "MAX_BYTES", 100)
    one.take(taken([first, last], "1".zfill(16)))
    one.take([KeyValue(question_key("2".zfill(16), 1), b'{"parts":3}', 1)])
    await answered(one, bucket)
    assert list(answers(bucket)) == [answer_key("0" * 16, "a1", 1)]
    monkeypatch.setattr(answering, "SECONDS", -1.0)
    one.take([])
    assert not one._open


async def test_search_that_fails_answers_nothing_and_does_not_stop_the_next(
    bucket: MemoryBucket, hosts: list[AnsweringHost], monkeypatch: pytest.MonkeyPatch
) -> None:
    one = Answering("a1", hosts[0].audit_file)
    entries = taken(parts_of(LEAKED, [UNKNOWN])[0])
    with monkeypatch.context() as patch:
        patch.delattr(answering, "find_admissions")
        one.take(entries)
        await answered(one, bucket)
        patch.setattr(threading.Thread, "start", refuse)
        one.take(taken(parts_of(LEAKED, [UNKNOWN])[0], "1" * 16))
        await answered(one, bucket)
    assert answers(bucket) == {}
    one.take(taken(parts_of(LEAKED, [UNKNOWN])[0], "2" * 16))
    await answered(one, bucket)
    assert list(answers(bucket)) == [answer_key("2" * 16, "a1", 1)]


def refuse(_: object) -> None:
    raise RuntimeError("can't start new thread")
