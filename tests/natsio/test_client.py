"""A machine in the middle that suppresses TLS gets no password or signature, and cannot inject messages."""

from __future__ import annotations

import asyncio
import contextlib
import json
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from nats.errors import Error as NatsError

from broker_auth.natsio.client import SecuredClient
from broker_auth.natsio.tls import tls_context
from broker_auth.operate.logins import AccessError, Login, connect
from broker_auth.sandbox.natsserver import free_port
from broker_auth.secret import Secret
from tests.callout.deployment import FleetDeployment
from tests.deadlines import HANG_SECONDS

INFO = {"server_id": "N", "version": "2.15.1", "proto": 1, "nonce": "of another server", "max_payload": 1024}
LOGIN = Login(what="the system user", user="system", password=Secret("not for them"))


class Between:
    """A server that sends the same message to every client, and stores what it receives."""

    def __init__(self, port: int, greeting: bytes) -> None:
        self.port = port
        self.received: list[bytes] = []
        self.gone = asyncio.Event()
        self._greeting = greeting

    async def _meet(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(self._greeting)
        self.received.append(await reader.read(100))
        writer.close()
        self.gone.set()

    @asynccontextmanager
    async def listening(self) -> AsyncIterator[Between]:
        async with await asyncio.start_server(self._meet, "127.0.0.1", self.port):
            yield self


def greeting(after: str = "", **more: Any) -> bytes:
    return f"INFO {json.dumps(INFO | more)}\r\n{after}".encode()


@pytest.mark.parametrize(
    "message",
    [
        pytest.param(greeting(), id="silent"),
        pytest.param(greeting(tls_required=False), id="not required"),
        pytest.param(greeting(tls_available=True), id="available"),
        pytest.param(greeting(tls_required="false"), id="no boolean"),
        pytest.param(greeting("PONG\r\n", tls_required=True), id="injected after INFO"),
    ],
)
@pytest.mark.parametrize("scheme", ["tls", "nats"])
async def test_no_login_is_sent_in_clear(message: bytes, scheme: str) -> None:
    context = ssl.create_default_context()
    async with Between(free_port(), message).listening() as between:
        with pytest.raises(AccessError, match="offers no TLS"):
            await connect(f"{scheme}://127.0.0.1:{between.port}", LOGIN, context)
        async with asyncio.timeout(HANG_SECONDS):
            await between.gone.wait()
    assert between.received == [b""]


async def test_tls_url_alone_enforces_tls() -> None:
    client = SecuredClient()
    async with Between(free_port(), greeting()).listening() as between:
        with pytest.raises(NatsError, match="offers no TLS"):
            await client.connect(f"tls://127.0.0.1:{between.port}", allow_reconnect=False)
        await client.close()  # since Python 3.12 the server waits for its connections to end


async def test_tls_is_not_required_without_tls_in_the_configuration() -> None:
    async with Between(free_port(), greeting()).listening() as between:
        with pytest.raises(AccessError):
            await connect(f"nats://127.0.0.1:{between.port}", LOGIN, None)
        async with asyncio.timeout(HANG_SECONDS):
            await between.gone.wait()
    assert between.received[0].startswith(b"CONNECT ")


@pytest.mark.e2e
async def test_service_does_not_sign_a_nonce_in_clear(tmp_path: Path) -> None:
    deployment = FleetDeployment(tmp_path)
    assert tls_context(deployment.settings().brokers[0].tls) is not None
    between = Between(deployment.ports["east"], greeting())
    service = deployment.service()
    service.launch()
    try:
        async with between.listening():
            await asyncio.to_thread(service.wait_for_log, "broker east: the server offers no TLS")
            async with asyncio.timeout(HANG_SECONDS):
                await between.gone.wait()
    finally:
        service.terminate()
    assert set(between.received) == {b""}


@pytest.mark.e2e
@pytest.mark.parametrize("message", [b"MSG $SYS.REQ.USER.AUTH 1 reply 900000000\r\n", b"MSG " + b"x" * 9_000_000])
async def test_connection_to_broker_with_endless_message_is_closed(tmp_path: Path, message: bytes) -> None:
    deployment = FleetDeployment(tmp_path)
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(tmp_path / "server.pem", tmp_path / "server.key")
    left = asyncio.Event()

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(greeting(tls_required=True))
        await writer.start_tls(context)
        with contextlib.suppress(ConnectionResetError):
            while line := await reader.readline():
                if line.startswith(b"PING"):
                    writer.write(b"PONG\r\n")
                elif line.startswith(b"SUB $SYS.REQ.USER.AUTH"):
                    writer.write(message)
        left.set()
        writer.close()

    service = deployment.service()
    service.launch()
    try:
        async with await asyncio.start_server(talk, "127.0.0.1", deployment.ports["east"]):
            async with asyncio.timeout(HANG_SECONDS):
                await left.wait()
    finally:
        service.terminate()
    log = "\n".join(service.log())
    assert "Traceback" not in log
    assert "PINGs" not in log, "it left for want of an answer, not because of the message"
