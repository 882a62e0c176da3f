"""The service sends in few writes, in order and in bounded memory, with and without TLS."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import nats
import pytest
from nats.errors import ConnectionClosedError, OutboundBufferLimitError

from broker_auth.callout import client as clients
from broker_auth.callout.client import BrokerClient
from broker_auth.deploy.pki import CertificateAuthority
from broker_auth.sandbox.natsserver import NatsServer, free_port
from tests.callout.deployment import eventually
from tests.callout.hostile import HostileBroker
from tests.deadlines import HANG_SECONDS

LIMIT: Final = 256 * 1024


@dataclass
class Pair:
    """A client that is connected to a broker.

    Attributes:
        drops: messages that were lost, of each drop.
        errors: reports of the event loop.
    """

    client: BrokerClient
    broker: HostileBroker
    drops: list[int] = field(default_factory=list)
    errors: list[dict[str, Any]] = field(default_factory=list)

    async def received(self, count: int) -> list[str]:
        async with asyncio.timeout(HANG_SECONDS):
            return [(await self.broker.answers.get())[0] for _ in range(count)]


@pytest.fixture(params=["tcp", "tls"])
async def pair(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Pair]:
    monkeypatch.setattr(clients, "MAX_UNSENT_BYTES", LIMIT)
    ours = theirs = None
    if request.param == "tls":
        authority = CertificateAuthority.create()
        (tmp_path / "ca.pem").write_bytes(authority.certificate_pem)
        certificate, key = authority.server().write(tmp_path, "server")
        ours = ssl.create_default_context(cafile=tmp_path / "ca.pem")
        theirs = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        theirs.load_cert_chain(certificate, key)
    port = free_port()
    async with HostileBroker(port, tls=theirs).listening() as broker:
        drops: list[int] = []
        client = BrokerClient(lambda _, lost: drops.append(lost))
        pair = Pair(client, broker, drops)
        asyncio.get_running_loop().set_exception_handler(lambda _, context: pair.errors.append(context))
        await client.connect(f"{'tls' if ours else 'nats'}://127.0.0.1:{port}", tls=ours, allow_reconnect=False)
        yield pair
        await client.close()


def writes_of(client: BrokerClient, monkeypatch: pytest.MonkeyPatch) -> list[bytes]:
    """Return a list to which the data of each later write is added."""
    written: list[bytes] = []
    writer = client._writer()
    assert writer is not None
    write = writer.write

    def counted(data: bytes) -> None:
        written.append(data)
        write(data)

    monkeypatch.setattr(writer, "write", counted)
    return written


async def test_answers_of_a_batch_leave_in_one_write_and_in_order(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    written = writes_of(pair.client, monkeypatch)
    for batch in range(3):
        for number in range(32):
            pair.client.send(f"answer.{batch}.{number}", b"x" * 2000)
        assert pair.client.unsent > 32 * 2000
        await asyncio.sleep(0)
        assert len(written) == batch + 1
        assert pair.client.pending_data_size == 0
    assert await pair.received(96) == [f"answer.{batch}.{number}" for batch in range(3) for number in range(32)]


async def test_order_among_messages_that_nats_py_sends_is_kept(pair: Pair) -> None:
    for number in range(0, 20, 2):
        await pair.client.publish(f"answer.{number}", b"x")
        pair.client.send(f"answer.{number + 1}", b"x")
    assert await pair.received(20) == [f"answer.{number}" for number in range(20)]
    assert pair.client.unsent == 0


async def test_data_for_a_broker_that_does_not_read_is_bounded_and_counted(pair: Pair) -> None:
    pair.broker.stop_reading()
    sent, largest = 0, 0

    async def send() -> None:
        nonlocal sent, largest
        while True:
            for _ in range(8):
                pair.client.send("answer", b"x" * 4000)
                sent += 1
                largest = max(largest, pair.client.unsent)
            await asyncio.sleep(0)

    async with asyncio.timeout(HANG_SECONDS):
        with pytest.raises(OutboundBufferLimitError):
            await send()
    assert LIMIT - 4100 * 9 < largest <= LIMIT
    assert len(pair.drops) == 1
    assert LIMIT // 4100 - 10 < pair.drops[0] <= sent
    with pytest.raises(ConnectionClosedError):
        pair.client.send("answer", b"x")
    await eventually(lambda: pair.client.is_closed)
    assert pair.client.unsent == 0


async def test_sending_after_the_connection_ended_is_not_an_error(pair: Pair) -> None:
    writer = pair.client._writer()
    assert writer is not None
    pair.client.send("answer", b"x")
    writer.close()
    writer.close()  # after which a TLS transport raises when it is written to (CPython 3.11)
    await eventually(lambda: pair.client.is_closed)
    assert pair.errors == []


@pytest.mark.e2e
async def test_answers_leave_through_a_websocket_in_order(tmp_path: Path) -> None:
    config = tmp_path / "server.conf"
    config.write_text('listen: "127.0.0.1:-1"\nwebsocket { listen: "127.0.0.1:-1", no_tls: true }\n')
    async with NatsServer(config) as server:
        reader = await nats.connect(f"nats://127.0.0.1:{server.port()}")
        answers = await reader.subscribe("answer.*")
        await reader.flush()
        client = BrokerClient()
        await client.connect(f"ws://127.0.0.1:{server.port('websocket')}", allow_reconnect=False)
        for number in range(100):
            client.send(f"answer.{number}", b"x" * 2000)
        async with asyncio.timeout(HANG_SECONDS):
            received = [(await answers.next_msg(HANG_SECONDS)).subject for _ in range(100)]
        assert received == [f"answer.{number}" for number in range(100)]
        assert client.unsent == 0
        await client.close()
        await reader.close()
