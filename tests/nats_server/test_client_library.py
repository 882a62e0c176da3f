"""Fact 25: when nats-py gives up reconnecting, which the service and the examples must not."""

from __future__ import annotations

import asyncio
import time

import pytest

from tests.nats_server.oracle import Request
from tests.nats_server.site import Site

pytestmark = pytest.mark.e2e


async def test_fact_25_expired_session_closes_the_client_permanently(site: Site) -> None:
    """Regardless of the allowed attempts, and without calling its error callback."""
    server = await site.serve()
    await site.oracle(server, lambda request: site.signer.admit(request, exp=int(time.time()) + 1))
    closed = asyncio.Event()

    async def on_close() -> None:
        closed.set()

    client = await site.client(server, allow_reconnect=True, max_reconnect_attempts=-1, closed_cb=on_close)
    await asyncio.wait_for(closed.wait(), 15)
    assert client.is_closed
    assert "user authentication expired" in str(client.last_error).lower()


@pytest.mark.parametrize("attempts", [2, -1], ids=["bounded", "unlimited"])
async def test_fact_25_refusals_close_the_client_unless_attempts_are_unlimited(site: Site, attempts: int) -> None:
    server = await site.serve()
    oracle = await site.oracle(server)
    closed, tried_on = asyncio.Event(), asyncio.Event()
    refused: list[Request] = []

    def refuse(request: Request) -> bytes:
        refused.append(request)
        if len(refused) == 6:
            tried_on.set()
        return site.signer.deny(request, "no")

    async def on_close() -> None:
        closed.set()

    client = await site.client(
        server, allow_reconnect=True, max_reconnect_attempts=attempts, reconnect_time_wait=0.05, closed_cb=on_close
    )
    oracle.answer = refuse
    await client.force_reconnect()
    await asyncio.wait_for((closed if attempts > 0 else tried_on).wait(), 15)
    assert closed.is_set() == (attempts > 0)
    assert tried_on.is_set() == (attempts < 0)
