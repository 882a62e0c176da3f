"""Facts 10 to 12: late, missing and invalid answers."""

from __future__ import annotations

import asyncio
import time

import pytest

from broker_auth.natsio.nkey import NkeyKind, generate_seed
from tests.nats_server.responder import Answer, Request, Signer
from tests.nats_server.site import TLS, Site

pytestmark = pytest.mark.e2e
VIOLATION = "-ERR 'Authorization Violation'"


async def test_fact_10_ping_is_sent_after_two_seconds_regardless_of_the_timeout(sandbox: Site) -> None:
    """A later answer is followed by PONG. A library that expects PONG first treats PING as a failure."""
    server = await sandbox.serve(authorization="timeout: 30")
    decided = asyncio.Event()

    async def late(request: Request) -> bytes:
        await decided.wait()
        return sandbox.signer.admit(request)

    await sandbox.responder(server, late)
    started = time.monotonic()
    wire = await sandbox.wire(server)
    await wire.connect()
    line = await wire.line()
    waited = time.monotonic() - started
    assert line == "PING"
    assert waited >= 2.0, "the server waits less than two seconds before it sends PING"
    decided.set()
    assert await wire.verdict() == "PONG"


@pytest.mark.parametrize(
    ("tls", "authorization", "seconds"), [("none", "", 2), ("open", "", 11), ("none", "timeout: 7", 7)]
)
async def test_fact_10_request_expires_after_the_timeout(
    sandbox: Site, tls: TLS, authorization: str, seconds: int
) -> None:
    server = await sandbox.serve(tls=tls, authorization=authorization)
    context = None if tls == "none" else sandbox.tls()
    responder = await sandbox.responder(server, tls=context)
    assert await (await sandbox.wire(server, context)).login() == "PONG"
    claims = responder.claims[0]
    assert claims["exp"] - claims["iat"] == seconds


@pytest.mark.parametrize("unresponsive", [True, False], ids=["unresponsive", "down"])
async def test_fact_11_client_is_refused_without_an_answer(sandbox: Site, unresponsive: bool) -> None:
    server = await sandbox.serve(authorization="timeout: 1")
    if unresponsive:
        await sandbox.responder(server, lambda _: None)
    started = time.monotonic()
    wire = await sandbox.wire(server)
    verdict = await wire.login()
    assert verdict == VIOLATION
    assert time.monotonic() - started >= 1.0


@pytest.mark.parametrize("debug", [True, False])
async def test_fact_11_missing_answer_is_logged_only_at_debug_level(sandbox: Site, debug: bool) -> None:
    server = await sandbox.start(sandbox.config(authorization="timeout: 1"), debug=debug)
    await sandbox.responder(server, lambda _: None)
    wire = await sandbox.wire(server)
    assert await wire.login() == VIOLATION
    await sandbox.logged(server, "authentication error")  # this line does not give the reason
    assert any("callout response not received in time" in line for line in server.log()) == debug


@pytest.mark.parametrize("wrong", ["empty", "garbage", "other key"])
async def test_fact_11_invalid_answer_denies_immediately(sandbox: Site, wrong: str) -> None:
    server = await sandbox.serve(authorization="timeout: 100")
    other = Signer(generate_seed(NkeyKind.ACCOUNT))
    answers: dict[str, Answer] = {"empty": lambda _: b"", "garbage": lambda _: b"garbage", "other key": other.admit}
    await sandbox.responder(server, answers[wrong])
    assert await (await sandbox.wire(server)).login() == VIOLATION


async def test_fact_12_unresponsive_member_keeps_its_share_of_requests(sandbox: Site) -> None:
    """As long as it is connected, its requests are not sent to another member."""
    server = await sandbox.serve(authorization="timeout: 3")
    good = await sandbox.responder(server, queue="q")
    unresponsive = await sandbox.responder(server, lambda _: None, queue="q")
    wires = [await sandbox.wire(server) for _ in range(24)]
    verdicts = await asyncio.gather(*(wire.login() for wire in wires))
    assert verdicts.count("PONG") == len(good.requests) > 0
    assert verdicts.count(VIOLATION) == len(unresponsive.requests) > 0
    await unresponsive.client.close()
    wires = [await sandbox.wire(server) for _ in range(24)]
    assert await asyncio.gather(*(wire.login() for wire in wires)) == ["PONG"] * 24


async def test_fact_12_unsubscribe_then_answer_pending_loses_no_request(sandbox: Site) -> None:
    server = await sandbox.serve(authorization="timeout: 20")
    stays, leaves = await sandbox.responder(server, queue="q"), await sandbox.responder(server, queue="q")
    unsubscribed = asyncio.Event()

    async def when_unsubscribed(request: Request) -> bytes:
        await unsubscribed.wait()
        return sandbox.signer.admit(request)

    leaves.answer = when_unsubscribed
    before = [asyncio.create_task((await sandbox.wire(server)).login()) for _ in range(24)]
    await leaves.received()
    await leaves.unsubscribe()
    after = [(await sandbox.wire(server)).login() for _ in range(24)]
    assert await asyncio.gather(*after) == ["PONG"] * 24
    unsubscribed.set()
    assert await asyncio.gather(*before) == ["PONG"] * 24
    assert len(stays.requests) + len(leaves.requests) == 48
