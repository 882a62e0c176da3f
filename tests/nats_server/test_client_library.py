"""Fact 25: when nats-py stops reconnecting, which the service and the examples must not do."""

from __future__ import annotations

import asyncio
import time

import pytest

from tests.nats_server.responder import Request
from tests.nats_server.site import Site

pytestmark = pytest.mark.e2e


async def test_fact_25_expired_session_closes_the_client_permanently(sandbox: Site) -> None:
    """This holds for any number of allowed attempts; the error callback is not called."""
    server = await sandbox.serve()
    await sandbox.responder(server, lambda request: sandbox.signer.admit(request, exp=int(time.time()) + 1))
    closed = asyncio.Event()

    async def on_close() -> None:
        closed.set()

    client = await sandbox.client(server, allow_reconnect=True, max_reconnect_attempts=-1, closed_cb=on_close)
    await asyncio.wait_for(closed.wait(), 15)
    assert client.is_closed
    assert "user authentication expired" in str(client.last_error).lower()


@pytest.mark.parametrize("attempts", [2, -1], ids=["bounded", "unlimited"])
async def test_fact_25_refusals_close_the_client_unless_attempts_are_unlimited(sandbox: Site, attempts: int) -> None:
    server = await sandbox.serve()
    responder = await sandbox.responder(server)
    closed, kept_trying = asyncio.Event(), asyncio.Event()
    refused: list[Request] = []

    def refuse(request: Request) -> bytes:
        refused.append(request)
        if len(refused) == 6:
            kept_trying.set()
        return sandbox.signer.deny(request, "no")

    async def on_close() -> None:
        closed.set()

    client = await sandbox.client(
        server, allow_reconnect=True, max_reconnect_attempts=attempts, reconnect_time_wait=0.05, closed_cb=on_close
    )
    responder.answer = refuse
    await client.force_reconnect()
    await asyncio.wait_for((closed if attempts > 0 else kept_trying).wait(), 15)
    assert closed.is_set() == (attempts > 0)
    assert kept_trying.is_set() == (attempts < 0)
