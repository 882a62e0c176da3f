"""Facts 15 to 17: how nats-server applies each part of the user JWT in an answer."""

from __future__ import annotations

import json
import time
from typing import Any

import pytest
from nats.aio.client import Client
from nats.aio.msg import Msg

from broker_auth.natsio.client import round_trip
from broker_auth.sandbox.natsserver import NatsServer
from tests.deadlines import HANG_SECONDS
from tests.nats_server.site import Site

pytestmark = pytest.mark.e2e
VIOLATION = "-ERR 'Authorization Violation'"
DENY_ALL = {"pub": {"deny": [">"]}, "sub": {"deny": [">"]}}


class Watched:
    """A client and the errors that it received."""

    def __init__(self) -> None:
        self.client = Client()
        self.errors: list[str] = []

    async def note(self, error: Exception) -> None:
        self.errors.append(str(error).lower())

    async def refused(self, what: str) -> bool:
        """Return whether the server refused this since the last call; the error arrives before the PONG."""
        await round_trip(self.client)
        violated = any(f"permissions violation for {what}" in error for error in self.errors)
        self.errors.clear()
        return violated

    async def may_publish(self, subject: str) -> bool:
        await self.client.publish(subject, b"x")
        return not await self.refused("publish")

    async def may_subscribe(self, subject: str) -> bool:
        await self.client.subscribe(subject)
        return not await self.refused("subscription")


async def admitted(sandbox: Site, server: NatsServer, **options: Any) -> Watched:
    watched = Watched()
    watched.client = await sandbox.client(server, error_cb=watched.note, **options)
    return watched


async def answering(
    sandbox: Site, user: dict[str, Any] | None = None, accounts: str = "APP: {}", **claims: Any
) -> NatsServer:
    """Start a server and answer every request with this user JWT."""
    server = await sandbox.serve(accounts=accounts)
    await sandbox.responder(server, lambda request: sandbox.signer.admit(request, user=user, **claims))
    return server


async def test_fact_15_exp_ends_the_session_on_time(sandbox: Site) -> None:
    expires = int(time.time()) + 2
    server = await answering(sandbox, exp=expires)
    wire = await sandbox.wire(server)
    assert await wire.login() == "PONG"
    while (line := await wire.line()).startswith(("PING", "INFO")):
        pass
    assert line == "-ERR 'User Authentication Expired'"
    assert time.time() >= expires
    assert await wire.line() == ""


@pytest.mark.parametrize("claims", [{"exp": -60}, {"nbf": 3600}], ids=["expired", "not yet valid"])
async def test_fact_15_exp_and_nbf_are_enforced(sandbox: Site, claims: dict[str, Any]) -> None:
    times: dict[str, Any] = {name: int(time.time()) + offset for name, offset in claims.items()}
    server = await answering(sandbox, **times)
    assert await (await sandbox.wire(server)).login() == VIOLATION


async def test_fact_15_times_of_day_are_enforced(sandbox: Site) -> None:
    hour = time.gmtime().tm_hour
    later = {"start": f"{(hour + 2) % 24:02d}:00:00", "end": f"{(hour + 3) % 24:02d}:00:00"}
    server = await answering(sandbox, {"times": [later], "times_location": "UTC"})
    assert await (await sandbox.wire(server)).login() == VIOLATION


async def test_fact_15_permissions_are_enforced(sandbox: Site) -> None:
    allowed = {"allow": ["a.>"], "deny": ["a.secret"]}
    server = await answering(sandbox, {"pub": allowed, "sub": allowed})
    watched = await admitted(sandbox, server)
    for may in (watched.may_publish, watched.may_subscribe):
        assert [await may(subject) for subject in ("a.b", "a.secret", "b")] == [True, False, False]


async def test_fact_15_resp_limits_replies_to_a_request(sandbox: Site) -> None:
    user = {"pub": {"deny": [">"]}, "resp": {"max": 1, "ttl": 60_000_000_000}}
    server = await sandbox.serve()
    responder = await sandbox.responder(server)
    asker = await admitted(sandbox, server)
    responder.answer = lambda request: sandbox.signer.admit(request, user=user)
    answerer = await admitted(sandbox, server)
    replies = await asker.client.subscribe("answers")

    async def twice(message: Msg) -> None:
        await message.respond(b"one")
        await message.respond(b"two")

    await answerer.client.subscribe("question", cb=twice)
    await round_trip(answerer.client)
    await asker.client.publish("question", b"", reply="answers")
    assert (await replies.next_msg(timeout=HANG_SECONDS)).data == b"one"
    assert await answerer.refused("publish")


async def test_fact_15_name_is_reported_and_aud_selects_the_account(sandbox: Site) -> None:
    server = await sandbox.serve(accounts="APP: {}, OTHER: {}")
    await sandbox.responder(server, lambda request: sandbox.signer.admit(request, "OTHER", name="granted.example.net"))
    assert await (await sandbox.wire(server)).login(name="requested") == "PONG"
    operator = await sandbox.operate(server)
    question = json.dumps({"acc": "OTHER", "auth": True}).encode()
    reply = await operator.request("$SYS.REQ.SERVER.PING.CONNZ", question, timeout=HANG_SECONDS)
    (row,) = json.loads(reply.data)["data"]["connections"]
    assert (row["account"], row["authorized_user"], row["name"]) == ("OTHER", "granted.example.net", "requested")


async def test_fact_16_limits_addresses_and_types_in_an_answer_are_ignored(sandbox: Site) -> None:
    strict = {"subs": 1, "payload": 1, "data": 1, "src": ["192.0.2.0/24"], "allowed_connection_types": ["MQTT"]}
    server = await answering(sandbox, strict)
    client = await sandbox.client(server)
    subscriptions = [await client.subscribe("s") for _ in range(3)]
    await client.publish("s", b"more than one byte")
    for subscription in subscriptions:
        assert (await subscription.next_msg(timeout=HANG_SECONDS)).data == b"more than one byte"


async def test_fact_16_limits_of_the_account_are_enforced(sandbox: Site) -> None:
    server = await answering(sandbox, accounts="APP: { limits { max_subs: 2, max_payload: 10, max_connections: 2 } }")
    first, second, third = [await sandbox.wire(server) for _ in range(3)]
    assert await first.login() == "PONG"
    assert await second.login() == "PONG"
    assert await third.login() == "-ERR 'maximum account active connections exceeded'"
    await first.send("SUB a 1\r\nSUB b 2\r\nSUB c 3\r\n")
    assert (await first.verdict()).lower() == "-err 'maximum subscriptions exceeded'"
    await second.send("PUB a 11\r\n12345678901\r\n")
    assert (await second.verdict()).lower() == "-err 'maximum payload violation'"


async def test_fact_17_empty_allow_list_allows_everything(sandbox: Site) -> None:
    server = await answering(sandbox, {"pub": {"allow": []}, "sub": {"allow": []}})
    watched = await admitted(sandbox, server)
    assert await watched.may_publish("anything")
    assert await watched.may_subscribe("anything")


async def test_fact_17_deny_of_everything_denies_everything(sandbox: Site) -> None:
    server = await answering(sandbox, DENY_ALL)
    watched = await admitted(sandbox, server)
    assert not await watched.may_publish("anything")
    assert not await watched.may_subscribe("anything")
