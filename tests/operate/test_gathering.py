"""Reports are bounded in time and size for any answer of a broker, and name what is missing."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Any

import pytest
from nats.aio.client import Client

from broker_auth.errors import OperationError
from broker_auth.operate.answers import request_json
from broker_auth.operate.logins import Login, connect
from broker_auth.operate.report import gathering
from broker_auth.operate.report.gathering import Ask, ask_system, gather
from broker_auth.operate.streams.plan import cluster_peers, current_config
from broker_auth.sandbox.natsserver import free_port
from broker_auth.times import parse_server_time
from tests.callout.deployment import eventually
from tests.callout.hostile import HostileBroker
from tests.deadlines import HANG_SECONDS

Reply = Callable[[str, dict[str, Any]], Iterator[bytes | float]]
STATSZ = {"server": {"id": "N1", "name": "one"}, "statsz": {"active_servers": 1}}


def encoded(value: object) -> bytes:
    return json.dumps(value).encode()


def page(server: str = "N1", rows: int = 1, total: int = 1, **more: Any) -> bytes:
    connections = [{"cid": number, "name": f"c{number}"} | more for number in range(rows)]
    return encoded({"server": {"id": server, "name": server}, "data": {"total": total, "connections": connections}})


class InvalidAnswers(HostileBroker):
    """A broker that answers requests with what ``reply`` yields: payloads, and seconds to pause."""

    def __init__(self, port: int, reply: Reply) -> None:
        super().__init__(port)
        self._reply = reply

    async def _talk(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        answering: set[asyncio.Task[None]] = set()
        try:
            while line := await reader.readline():
                words = line.decode().split()
                if words[0] == "PING":
                    writer.write(b"PONG\r\n")
                elif words[0] == "SUB":
                    self._sids[words[1].encode()] = words[-1].encode()
                elif words[0] == "PUB":
                    payload = (await reader.readexactly(int(words[-1]) + 2))[:-2]
                    answering.add(asyncio.create_task(self._answer(words[1], words[2], payload, writer)))
        finally:
            for task in answering:
                task.cancel()

    async def _answer(self, subject: str, inbox: str, payload: bytes, writer: asyncio.StreamWriter) -> None:
        sid = self._sids.get(inbox.encode()) or self._sids[inbox.rpartition(".")[0].encode() + b".*"]
        with contextlib.suppress(OSError):
            for item in self._reply(subject, json.loads(payload or b"{}")):
                if isinstance(item, float):
                    await asyncio.sleep(item)
                    continue
                writer.write(b"MSG %b %b %d\r\n" % (inbox.encode(), sid, len(item)) + item + b"\r\n")
                await writer.drain()


@asynccontextmanager
async def asked(reply: Reply) -> AsyncIterator[Client]:
    broker = InvalidAnswers(free_port(), reply)
    async with broker.listening(), asyncio.timeout(HANG_SECONDS):
        client = await connect(f"nats://127.0.0.1:{broker.port}", Login(what="an operator"), None)
        try:
            yield client
        finally:
            await client.close()


def system(first: Callable[[], Iterator[bytes | float]], further: Callable[[int], bytes] = lambda _: page()) -> Reply:
    """Return the answers of a single honest server, except for its pages."""

    def reply(subject: str, options: dict[str, Any]) -> Iterator[bytes | float]:
        if subject == "$SYS.REQ.SERVER.PING":
            yield encoded(STATSZ)
        elif subject.endswith("PING.CONNZ"):
            yield from first()
        else:
            yield further(options["offset"])

    return reply


@pytest.fixture(autouse=True)
def small_bounds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gathering, "MAX_CONNECTIONS", 5000)
    monkeypatch.setattr(gathering, "MAX_BYTES", 1024 * 1024)
    monkeypatch.setattr(gathering, "MAX_SERVERS", 20)


async def test_every_page_of_an_honest_server_is_shown() -> None:
    def further(offset: int) -> bytes:
        return page(rows=min(1024, 2500 - offset), total=2500)

    async with (
        asked(system(lambda: iter([page(rows=1024, total=2500)]), further)) as client,
        asyncio.timeout(HANG_SECONDS),
    ):
        result = await ask_system(client, Ask())
    assert sum(len(answer.rows) for answer in result.answers) == 2500
    assert result.missing == []


async def test_endless_pages_are_cut_off() -> None:
    endless = system(lambda: iter([page(rows=1024, total=10**12)]), lambda _: page(rows=1024, total=10**12))
    async with asked(endless) as client:
        result = await ask_system(client, Ask())
    assert sum(len(answer.rows) for answer in result.answers) <= 5000
    assert result.missing == ["its servers list more than 5000 connections; the rest is not shown"]


async def test_empty_page_ends_the_report() -> None:
    async with asked(system(lambda: iter([page(rows=1024, total=10**12)]), lambda _: page(rows=0))) as client:
        assert len((await ask_system(client, Ask())).answers) == 1


async def test_server_without_the_account_has_no_connections() -> None:
    unknown = encoded({"server": {"id": "N1", "name": "one"}, "data": {"total": 0, "connections": None}})
    async with asked(system(lambda: iter([unknown]), lambda _: unknown)) as client:
        result = await ask_system(client, Ask(account="elsewhere"))
    assert [answer.rows for answer in result.answers] == [[]]
    assert result.missing == []


async def test_large_answers_are_cut_off() -> None:
    large = system(lambda: iter([page(rows=1, total=10**6)]), lambda _: page(rows=1, name="x" * 200_000))
    async with asked(large) as client:
        result = await ask_system(client, Ask())
    assert result.missing == ["its servers answer with more than 1 MiB; the rest is not shown"]
    assert all(len(row.name) <= 256 for answer in result.answers for row in answer.rows)


async def test_endless_answers_are_cut_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gathering, "ANSWER_SECONDS", 1.0)

    def for_ever(_: str, __: dict[str, Any]) -> Iterator[bytes | float]:
        number = 0
        while True:
            yield page(f"N{number % 5}")
            yield 0.05
            number += 1

    async with asked(for_ever) as client:
        result = await gather(client, "$SYS.REQ.ACCOUNT.PING.CONNZ", Ask())
    assert len(result.answers) == 5
    assert any("answers more than once" in line for line in result.missing)
    assert any("for more than 1 s" in line for line in result.missing)


async def test_number_of_servers_is_bounded() -> None:
    def many(_: str, __: dict[str, Any]) -> Iterator[bytes | float]:
        yield from (page(f"N{number}") for number in range(10_000))

    async with asked(many) as client:
        result = await gather(client, "$SYS.REQ.ACCOUNT.PING.CONNZ", Ask())
    assert len(result.answers) == 20
    assert result.missing == ["more than 20 servers answer; the rest is not shown"]


INVALID = [
    pytest.param(b"", id="nothing"),
    pytest.param(b"[" * 100_000, id="nested"),
    pytest.param(b"[]", id="list"),
    pytest.param(encoded({"error": "no"}), id="error is not an object"),
    pytest.param(encoded({"error": {"description": "a\x1b[2J"}}), id="error with controls"),
    pytest.param(encoded({"server": 7, "data": []}), id="wrong types"),
    pytest.param(encoded({"server": {"id": "N"}, "data": {"connections": [{"cid": "x"}]}}), id="wrong row"),
    pytest.param(b'{"server": {"id": "N"}, "data": {"total": ' + b"9" * 5000 + b"}}", id="huge number"),
]


@pytest.mark.parametrize("payload", INVALID)
async def test_invalid_answer_is_reported_as_missing(payload: bytes) -> None:
    async with asked(system(lambda: iter([payload]))) as client:
        result = await ask_system(client, Ask())
    (line,) = result.missing
    assert "CONNZ" in line
    assert line.isprintable()
    assert len(line) < 500


@pytest.mark.parametrize("payload", INVALID)
async def test_invalid_first_answer_raises_an_operation_error(payload: bytes) -> None:
    async with asked(lambda *_: iter([payload])) as client:
        for ask in (cluster_peers(client), current_config(client, "CHORIA_EVENTS"), ask_system(client, Ask())):
            with contextlib.suppress(OperationError):
                await ask


async def test_oversized_message_closes_the_connection(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("broker_auth.operate.logins._LoginClient.max_message_bytes", 100_000)
    async with asked(lambda *_: iter([b"x" * 200_000])) as client:
        with pytest.raises(OperationError, match="no answer"):
            await request_json(client, "$SYS.REQ.SERVER.PING", seconds=1.0)
        await eventually(lambda: client.is_closed)


def test_invalid_server_time_is_ignored() -> None:
    assert parse_server_time("yesterday") is None
    assert parse_server_time("2026-11-21T22:43:12.267449897Z") == datetime(2026, 11, 21, 22, 43, 12, 267449, UTC)
