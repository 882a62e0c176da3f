"""A broker that does not read, floods or sends invalid data affects only its own clients."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from broker_auth.audit.sinks import Audit
from broker_auth.bench.kinds import Maker
from broker_auth.bench.materials import PlayedServer, Trust
from broker_auth.bench.site import BenchDeployment, Broker
from broker_auth.callout import client
from broker_auth.callout.callout import make_callout
from broker_auth.callout.hedging import Held
from broker_auth.callout.request import WireFault
from broker_auth.callout.service import Service, tls_contexts
from broker_auth.daemon.supervisor import OLDEST_SECONDS
from broker_auth.encoding import decode, encode
from broker_auth.errors import OperationError
from broker_auth.settings.load import load
from broker_auth.settings.policy import build_policy
from tests.callout.deployment import eventually
from tests.callout.hostile import HostileBroker
from tests.deadlines import HANG_SECONDS

TRUST = Trust()
ADVISORIES = b"$SYS.ACCOUNT.CLIENT.AUTH.ERR"


@dataclass
class Scene:
    """A service in this process between an honest broker and a stolen one."""

    service: Service
    honest: HostileBroker
    stolen: HostileBroker
    stop: asyncio.Event
    serving: asyncio.Task[None]
    server: PlayedServer = field(default_factory=PlayedServer)

    def request(self, number: int = 0) -> bytes:
        """Return a request of this moment: the service does not answer old ones."""
        return Maker(TRUST, self.server, time.time()).mtls(number).request.wire

    async def honest_login(self) -> None:
        """Log in through the honest broker; the service answers in time or not at all."""
        while not self.honest.answers.empty():
            self.honest.answers.get_nowait()
        self.honest.ask(self.request(), "inbox.login")
        async with asyncio.timeout(HANG_SECONDS):
            subject, _ = await self.honest.answers.get()
        assert subject == "inbox.login"


@pytest.fixture
async def scene(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Scene]:
    monkeypatch.setattr(client, "MAX_UNSENT_BYTES", 256 * 1024)
    deployment = BenchDeployment(
        tmp_path, TRUST, xkey=False, brokers=(Broker("honest", "fleet"), Broker("stolen", "fleet"))
    )
    settings = load(deployment.config, {}, serving=True).serving("fleet")
    service = Service(settings, make_callout(settings, build_policy(settings), Audit([])), tls_contexts(settings))
    stop = asyncio.Event()
    async with AsyncExitStack() as stack:
        honest, stolen = [
            await stack.enter_async_context(HostileBroker(broker.port).listening()) for broker in deployment.brokers
        ]
        serving = asyncio.create_task(service.run(stop))
        async with asyncio.timeout(HANG_SECONDS):
            await service.wait_ready()
        yield Scene(service, honest, stolen, stop, serving)
        stop.set()
        async with asyncio.timeout(HANG_SECONDS):
            await asyncio.gather(serving, return_exceptions=True)


async def test_broker_that_does_not_read_is_dropped_and_reconnected(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(client, "DEAD_CHECKS", 10**6)  # on a slow machine these would come first
    scene.stolen.stop_reading()
    stats = scene.service.callout.stats
    asked = 0
    async with asyncio.timeout(HANG_SECONDS):
        while not stats.dropped["stolen"]:
            wire = scene.request()
            for _ in range(50):
                scene.stolen.ask(wire, "inbox." + "x" * 900)  # an answer that is larger fills the socket sooner
            asked += 50
            await scene.stolen.flush()
            await scene.honest_login()
    assert 0 < stats.reply_failures <= asked, "lost answers are counted"
    assert scene.service.oldest < OLDEST_SECONDS
    async with asyncio.timeout(HANG_SECONDS):
        await eventually(lambda: scene.stolen.connections > 1)
        await scene.stolen.subscribed.wait()
    scene.stolen.ask(scene.request(), "inbox.again")
    async with asyncio.timeout(HANG_SECONDS):
        while (await scene.stolen.answers.get())[0] != "inbox.again":
            pass


async def test_broker_that_stops_reading_with_little_unsent_data_is_dropped(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(client, "STALL_SECONDS", 0.5)
    connection = next(connection for connection in scene.service.connections if connection.name == "stolen")
    inner = connection._client
    assert inner is not None
    # Like a socket whose buffer is full.
    inner.__class__ = type("Stalled", (client.BrokerClient,), {"unsent": property(lambda _: 17)})
    await eventually(lambda: scene.service.callout.stats.dropped["stolen"])
    await eventually(lambda: scene.stolen.connections > 1)
    await scene.honest_login()


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(b"INFO []\r\n", id="info is not an object"),
        pytest.param(b'INFO {"max_payload": "x"}\r\n', id="info of wrong types"),
        pytest.param(b"MSG \xff\xfe 1 3\r\nabc\r\n", id="subject is not UTF-8"),
        pytest.param(b"PONG\r\n" * 1000, id="unexpected pongs"),
        pytest.param(b"-ERR 'a\x1b[2J'\r\n", id="error"),
        pytest.param(b"HMSG $SYS.REQ.USER.AUTH 1 r 4000000 5\r\n", id="header larger than its message"),
        pytest.param(b"nonsense\r\n", id="nonsense"),
        pytest.param(b"PING\r\n" * 5000, id="pings"),
    ],
)
async def test_invalid_data_of_one_broker_does_not_affect_others_and_is_recovered_from(
    scene: Scene, data: bytes
) -> None:
    scene.stolen.send(data)
    await scene.honest_login()
    await asyncio.sleep(0)  # the service reads what was sent
    async with asyncio.timeout(HANG_SECONDS):
        while True:  # on this connection or the next one
            await scene.stolen.subscribed.wait()
            while not scene.stolen.answers.empty():
                scene.stolen.answers.get_nowait()
            scene.stolen.ask(scene.request(), "inbox.recovered")
            try:
                async with asyncio.timeout(1):
                    await scene.stolen.answers.get()
                    break
            except TimeoutError:
                continue


async def test_requests_with_long_reply_subjects_are_not_stored(scene: Scene) -> None:
    unanswered = scene.service.callout.stats.unanswered
    for _ in range(20):
        scene.stolen.ask(scene.request(), "inbox." + "x" * 100_000)
    async with asyncio.timeout(HANG_SECONDS):
        await eventually(lambda: unanswered[WireFault.NO_REPLY_SUBJECT] == 20)
    await scene.honest_login()


@pytest.mark.parametrize("size", ["x", None, 1.5, [], True])
async def test_a_broker_that_announces_no_number_as_its_largest_message_is_not_connected_to(
    scene: Scene, size: object
) -> None:
    scene.stolen.announce(max_payload=size)
    scene.stolen.end()
    async with asyncio.timeout(HANG_SECONDS):
        await eventually(lambda: scene.stolen.connections > 2)  # refused, and tried again
    await scene.honest_login()
    assert not scene.serving.done()


async def test_addresses_announced_by_a_broker_are_not_used(scene: Scene) -> None:
    visited = asyncio.Event()

    async def meet(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        visited.set()
        writer.close()

    async with await asyncio.start_server(meet, "127.0.0.1", 0) as elsewhere:
        port = elsewhere.sockets[0].getsockname()[1]
        scene.stolen.send(b'INFO {"connect_urls": ["127.0.0.1:%d"]}\r\n' % port * 50)
        await scene.honest_login()
        connection = next(connection for connection in scene.service.connections if connection.name == "stolen")
        assert connection._client is not None
        assert len(connection._client.servers) == 1
        scene.stolen.send(b"nonsense\r\n")
        await eventually(lambda: scene.stolen.connections > 1)
    assert not visited.is_set()


async def test_flood_of_claimed_chains_does_not_delay_another_brokers_login(scene: Scene) -> None:
    ending = asyncio.Event()

    async def flood() -> None:
        while not ending.is_set():
            for wire in [scene.request(number) for number in range(8)] * 5:
                scene.stolen.ask(wire, "inbox.flood")
            await scene.stolen.flush()
            await asyncio.sleep(0)  # a flush that does not wait blocks other tasks

    flooding = asyncio.create_task(flood())
    for _ in range(10):
        await scene.honest_login()
    ending.set()
    await flooding


async def test_unexpected_end_of_a_task_ends_the_service_in_order(
    scene: Scene, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(scene.service._backlog, "take", lambda _: 1 / 0)
    scene.honest.ask(scene.request(), "inbox.login")
    async with asyncio.timeout(HANG_SECONDS):
        with pytest.raises(OperationError, match=r"task ended unexpectedly: answering \(ZeroDivisionError\)"):
            await scene.serving
    assert "'answering' failed" in caplog.text


@pytest.mark.parametrize("iat", [b"1" + b"0" * 400, b"-1", b"1e400", b"18446744073709551616"])
async def test_invalid_time_costs_the_message_and_not_the_worker(scene: Scene, iat: bytes) -> None:
    """Both in a request, and in a copy that this worker would answer for others."""
    wire = scene.request()
    header, body, _ = wire.split(b".")
    claims = re.sub(rb'"iat":\d+', b'"iat":' + iat, decode(body))
    data = header + b"." + encode(claims) + b"." + b"A" * 86
    (connection,) = [connection for connection in scene.service.connections if connection.name == "stolen"]
    scene.stolen.ask(data, "inbox.odd")
    scene.service._answer_held(connection, [Held("inbox.copy", data, None)])
    await scene.honest_login()
    assert not scene.serving.done()


async def test_stopping_does_not_wait_for_an_unresponsive_broker(
    scene: Scene, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("broker_auth.callout.draining.DRAIN_SECONDS", 10.0 * HANG_SECONDS)
    scene.stolen.stop_reading()
    scene.honest.ask(scene.request(), "inbox.last")
    scene.stop.set()
    async with asyncio.timeout(HANG_SECONDS):
        await scene.serving
        assert (await scene.honest.answers.get())[0] == "inbox.last"
    assert "broker stolen: not drained: it has sent nothing for 1.5 s" in caplog.text
    assert "broker honest: not drained" not in caplog.text
