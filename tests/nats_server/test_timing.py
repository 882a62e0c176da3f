"""Facts 10 to 12: answers that come late, never, or are none."""

from __future__ import annotations

import asyncio
import time

import pytest

from broker_auth.natsio.nkey import NkeyKind, generate_seed
from tests.nats_server.oracle import Answer, Request, Signer
from tests.nats_server.site import TLS, Site

pytestmark = pytest.mark.e2e
VIOLATION = "-ERR 'Authorization Violation'"


async def test_fact_10_a_ping_comes_after_two_seconds_whatever_the_timeout_is(site: Site) -> None:
    """And before PONG, if the answer is later: a library that expects PONG takes it for a failure."""
    server = await site.serve(authorization="timeout: 30")
    decided = asyncio.Event()

    async def late(request: Request) -> bytes:
        await decided.wait()
        return site.signer.admit(request)

    await site.oracle(server, late)
    started = time.monotonic()
    wire = await site.wire(server)
    await wire.connect()
    line = await wire.line()
    waited = time.monotonic() - started
    assert line == "PING"
    assert waited >= 2.0, "the server leaves the service less time than it was built for"
    decided.set()
    assert await wire.verdict() == "PONG"


@pytest.mark.parametrize(
    ("tls", "authorization", "seconds"), [("none", "", 2), ("open", "", 11), ("none", "timeout: 7", 7)]
)
async def test_fact_10_a_request_expires_with_the_timeout(
    site: Site, tls: TLS, authorization: str, seconds: int
) -> None:
    server = await site.serve(tls=tls, authorization=authorization)
    context = None if tls == "none" else site.tls()
    oracle = await site.oracle(server, tls=context)
    assert await (await site.wire(server, context)).login() == "PONG"
    claims = oracle.claims[0]
    assert claims["exp"] - claims["iat"] == seconds


@pytest.mark.parametrize("silent", [True, False], ids=["silent", "down"])
async def test_fact_11_without_an_answer_nobody_gets_in(site: Site, silent: bool) -> None:
    server = await site.serve(authorization="timeout: 1")
    if silent:
        await site.oracle(server, lambda _: None)
    started = time.monotonic()
    wire = await site.wire(server)
    verdict = await wire.login()
    assert verdict == VIOLATION
    assert time.monotonic() - started >= 1.0


@pytest.mark.parametrize("debug", [True, False])
async def test_fact_11_that_a_service_is_silent_shows_only_in_a_debug_log(site: Site, debug: bool) -> None:
    server = await site.start(site.config(authorization="timeout: 1"), debug=debug)
    await site.oracle(server, lambda _: None)
    wire = await site.wire(server)
    assert await wire.login() == VIOLATION
    await site.logged(server, "authentication error")  # of which this log tells no reason
    assert any("callout response not received in time" in line for line in server.log()) == debug


@pytest.mark.parametrize("wrong", ["empty", "garbage", "other key"])
async def test_fact_11_an_answer_that_is_none_denies_at_once(site: Site, wrong: str) -> None:
    server = await site.serve(authorization="timeout: 100")
    other = Signer(generate_seed(NkeyKind.ACCOUNT))
    answers: dict[str, Answer] = {"empty": lambda _: b"", "garbage": lambda _: b"garbage", "other key": other.admit}
    await site.oracle(server, answers[wrong])
    assert await (await site.wire(server)).login() == VIOLATION


async def test_fact_12_a_silent_member_keeps_its_share_of_the_requests(site: Site) -> None:
    """Nobody else is asked in its place, as long as it is connected."""
    server = await site.serve(authorization="timeout: 3")
    good = await site.oracle(server, queue="q")
    silent = await site.oracle(server, lambda _: None, queue="q")
    wires = [await site.wire(server) for _ in range(24)]
    verdicts = await asyncio.gather(*(wire.login() for wire in wires))
    assert verdicts.count("PONG") == len(good.requests) > 0
    assert verdicts.count(VIOLATION) == len(silent.requests) > 0
    await silent.client.close()
    wires = [await site.wire(server) for _ in range(24)]
    assert await asyncio.gather(*(wire.login() for wire in wires)) == ["PONG"] * 24


async def test_fact_12_who_unsubscribes_first_and_answers_what_it_has_loses_nothing(site: Site) -> None:
    server = await site.serve(authorization="timeout: 20")
    stays, leaves = await site.oracle(server, queue="q"), await site.oracle(server, queue="q")
    unsubscribed = asyncio.Event()

    async def when_unsubscribed(request: Request) -> bytes:
        await unsubscribed.wait()
        return site.signer.admit(request)

    leaves.answer = when_unsubscribed
    before = [asyncio.create_task((await site.wire(server)).login()) for _ in range(24)]
    await leaves.heard()
    await leaves.unsubscribe()
    after = [(await site.wire(server)).login() for _ in range(24)]
    assert await asyncio.gather(*after) == ["PONG"] * 24
    unsubscribed.set()
    assert await asyncio.gather(*before) == ["PONG"] * 24
    assert len(stays.requests) + len(leaves.requests) == 48
