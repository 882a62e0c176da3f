"""A request whose node has to be counted is put aside: it delays nobody, and is answered and recorded once."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, Final

import pytest

from broker_auth.audit.file import StreamAudit
from broker_auth.callout import deferred
from broker_auth.callout.callout import Callout
from broker_auth.callout.connection import BrokerConnection
from broker_auth.callout.reply import ReplyWriter
from broker_auth.callout.request import RequestReader
from broker_auth.callout.service import HIGH_WATER_MARK, Service, _Waiting
from broker_auth.callout.stats import Stats
from broker_auth.natsio.nkey import NkeyKind, decode_seed
from broker_auth.policy.counting import Counted, NodeClaim
from broker_auth.settings.model import BrokerSettings
from tests.builders.policies import x509_policy
from tests.builders.requests import SERVER, node
from tests.builders.tokens import provisioning_claims, provisioning_signer, sign
from tests.callout.deployment import FleetDeployment, eventually
from tests.callout.test_reply import SEED
from tests.deadlines import HANG_SECONDS

NOW: Final = int(time.time())
MAX_OF_TOKEN: Final = 32  # fewer than really, so that the test is quick
MAX_DEFERRED: Final = HIGH_WATER_MARK + MAX_OF_TOKEN  # the last ones are parked
AHEAD: Final = 30  # seconds that the server's clock is ahead: no request becomes late on a busy machine
TIMES: Final = {"iat": NOW - 60, "nbf": NOW - 60, "exp": NOW + 3600}
UNBOUND: Final = sign(provisioning_claims(**TIMES), provisioning_signer())


def numbered(nodes: int = 2) -> str:
    """Return a token for a number of nodes."""
    extensions = {"broker-auth": {"max_nodes": nodes}}
    return sign(provisioning_claims(extensions=extensions, **TIMES), provisioning_signer())


TOKEN: Final = numbered()


class RecordingConnection(BrokerConnection):
    """A connection that is not connected, and notes what it would send.

    Attributes:
        answered: the subjects of answers, in their order.
        by_others: subjects that other workers have answered.
    """

    def __init__(self, broker: BrokerSettings, service: Service) -> None:
        super().__init__(broker, service.connections[0]._seed, service._on_request)
        self.answered: list[str] = []
        self.by_others: set[str] = set()

    def reply(self, subject: str, answer: bytes) -> None:
        assert answer
        self.answered.append(subject)

    def is_answered(self, subject: str) -> bool:
        return subject in self.by_others


class Played:
    """A service without brokers, and a counter that answers when it is told to."""

    def __init__(self, directory: Path, *, counts: bool = True) -> None:
        settings = FleetDeployment(directory).settings().serving("fleet")
        self._file = directory / "audit.jsonl"
        self._audit = StreamAudit(self._file)
        self.callout = Callout(
            policy=x509_policy(),
            reader=RequestReader(None),
            writer=ReplyWriter(decode_seed(SEED, NkeyKind.ACCOUNT), None),
            audit=self._audit,
            stats=Stats(),
        )
        contexts = {broker.name: None for broker in settings.brokers}
        self.service = Service(settings, self.callout, contexts, count=self.count if counts else None)
        self.connection = RecordingConnection(settings.brokers[0], self.service)
        self.claims: list[tuple[NodeClaim, asyncio.Future[Counted]]] = []
        self.stop = asyncio.Event()
        self.serving = asyncio.create_task(self.service.run(self.stop))

    async def count(self, claim: NodeClaim) -> Counted:
        result: asyncio.Future[Counted] = asyncio.get_running_loop().create_future()
        self.claims.append((claim, result))
        return await result

    def ask(self, subject: str, token: str = TOKEN) -> None:
        """Receive a request of a node, which has the name of the subject."""
        data = SERVER.wire(node(token, name=subject), now=int(time.time()) + AHEAD)
        opened = self.callout.open(data, None)
        assert opened is not None
        waiting = _Waiting(received=opened, broker="east", connection=self.connection, subject=subject)
        assert not self.service._backlog.put(waiting, 0, len(data), time.monotonic())
        self.service._arrived.set()

    def codes(self) -> dict[str, str]:
        """Return the recorded decision about each node."""
        self._audit.flush()
        records = [json.loads(line) for line in self._file.read_text().splitlines()]
        assert len({one["name"] for one in records}) == len(records), "recorded once"
        return {one["name"]: one["code"] for one in records}

    def decided(self) -> int:
        return sum(count for _, _, count in self.callout.stats.snapshot().decisions)

    async def claimed(self, count: int) -> None:
        """Wait until this number of nodes is to be counted."""
        await eventually(lambda: len(self.claims) == count)

    async def answered(self, *subjects: str) -> None:
        """Wait until all of these are answered."""
        await eventually(lambda: set(subjects) <= set(self.connection.answered))

    async def end(self) -> None:
        self.stop.set()
        async with asyncio.timeout(HANG_SECONDS):
            await self.serving
        self._audit.close()


@pytest.fixture
async def played(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Played]:
    monkeypatch.setattr(deferred, "MAX_OF_TOKEN", MAX_OF_TOKEN)
    monkeypatch.setattr(deferred, "MAX_DEFERRED", MAX_DEFERRED)
    played = Played(tmp_path)
    yield played
    for _, result in played.claims:
        if not result.done():
            result.set_result(Counted.UNKNOWN)
    await played.end()


async def test_request_is_put_aside_until_its_node_is_counted(played: Played) -> None:
    played.ask("aside")
    await played.claimed(1)
    played.ask("other", UNBOUND)
    await played.answered("other")
    assert played.codes() == {"other": "admitted"}
    assert (played.service.pending, played.decided()) == (1, 1)
    ((claim, result),) = played.claims
    assert claim == NodeClaim(token=TOKEN, node="aside")
    assert TOKEN not in repr(claim)
    result.set_result(Counted.YES)
    await played.answered("aside")
    assert played.codes() == {"other": "admitted", "aside": "admitted"}
    assert (played.service.pending, played.decided()) == (0, 2)
    assert played.connection.answered == ["other", "aside"]


async def test_decision_says_what_was_counted(played: Played) -> None:
    expected = {
        "yes": "admitted",
        "full": "token_used_up",
        "unknown": "nodes_not_counted",
        "broken": "nodes_not_counted",
    }
    results: dict[str, Any] = {"yes": Counted.YES, "full": Counted.USED_UP, "unknown": Counted.UNKNOWN}
    for name in expected:
        played.ask(name)
    await played.claimed(4)
    for claim, result in reversed(played.claims):  # in any order
        if claim.node == "broken":
            result.set_exception(OSError("unexpected"))
        else:
            result.set_result(results[claim.node])
    await played.answered(*expected)
    assert played.codes() == expected
    assert not played.service._deferred._of_token


async def test_request_that_another_worker_answered_meanwhile_is_not_answered_again(played: Played) -> None:
    played.ask("theirs")
    await played.claimed(1)
    played.connection.by_others.add("theirs")
    played.claims[0][1].set_result(Counted.YES)
    await eventually(lambda: not played.service.pending)
    assert not played.connection.answered
    assert not played.codes()


async def test_many_requests_for_one_token_or_many_tokens_wait_for_none(played: Played) -> None:
    for number in range(MAX_OF_TOKEN + 1):
        played.ask(f"of-one-{number}")
    await played.answered(f"of-one-{MAX_OF_TOKEN}")
    assert played.codes() == {f"of-one-{MAX_OF_TOKEN}": "nodes_not_counted"}
    tokens = [numbered(3 + number) for number in range(MAX_DEFERRED // MAX_OF_TOKEN)]
    for token in tokens:
        for number in range(MAX_OF_TOKEN):
            played.ask(f"{tokens.index(token)}-{number}", token)
    last = [f"{len(tokens) - 1}-{number}" for number in range(MAX_OF_TOKEN)]
    await played.answered(*last)
    assert len(played.claims) == MAX_DEFERRED
    played.ask("other", UNBOUND)
    await played.answered("other")
    for _, result in played.claims:
        result.set_result(Counted.YES)
    await eventually(lambda: not played.service.pending)
    codes = list(played.codes().values())
    assert (codes.count("admitted"), codes.count("nodes_not_counted")) == (MAX_DEFERRED + 1, MAX_OF_TOKEN + 1)


async def test_one_token_written_in_many_ways_leaves_places_for_others(played: Played) -> None:
    for number in range(MAX_DEFERRED):
        played.ask(f"of-one-{number}", TOKEN + "\n" * number)
    await played.answered(*(f"of-one-{number}" for number in range(MAX_OF_TOKEN, MAX_DEFERRED)))
    assert len(played.claims) == MAX_OF_TOKEN
    for _, result in played.claims:
        result.set_result(Counted.YES)


async def test_service_that_stops_waits_for_what_was_put_aside(played: Played) -> None:
    played.ask("last")
    await played.claimed(1)
    played.stop.set()
    await eventually(lambda: played.service._ending)
    assert not played.serving.done()
    played.claims[0][1].set_result(Counted.YES)
    async with asyncio.timeout(HANG_SECONDS):
        await played.serving
    assert played.connection.answered == ["last"]


async def test_host_that_counts_nothing_denies_at_once(tmp_path: Path) -> None:
    played = Played(tmp_path, counts=False)
    played.ask("uncounted")
    played.ask("other", UNBOUND)
    await played.answered("uncounted", "other")
    assert played.codes() == {"uncounted": "nodes_not_counted", "other": "admitted"}
    await played.end()
