"""Facts 16 and 27 to 29: resources of a server that one connection can use, and data it can reach."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest
from nats.aio.client import Client
from nats.js.api import StreamConfig

from broker_auth.sandbox.natsserver import NatsServer
from tests.deadlines import HANG_SECONDS
from tests.nats_server.site import Site
from tests.nats_server.wire import Wire

pytestmark = pytest.mark.e2e
LEAF_USERS = "authorization { users: [ { user: edge, password: x, account: APP } ] }"


async def ask(client: Client, subject: str, headers: dict[str, str] | None = None, **question: Any) -> dict[str, Any]:
    reply = await client.request(subject, json.dumps(question).encode(), timeout=HANG_SECONDS, headers=headers)
    answer: dict[str, Any] = json.loads(reply.data)
    return answer


async def with_streams(sandbox: Site) -> tuple[NatsServer, Client]:
    """Start a server with JetStream; connect a client in the account that may use it."""
    store = f'jetstream {{ store_dir: "{sandbox.directory}/js" }}'
    server = await sandbox.serve(accounts="APP: { jetstream: enabled }", extra=store)
    await sandbox.responder(server, lambda request: sandbox.signer.admit(request))
    return server, await sandbox.client(server)


async def test_fact_16_subscription_limit_does_not_close_a_leaf_connection(sandbox: Site) -> None:
    limits = "APP: { limits { max_subs: 50, max_leafnodes: 1 } }"
    server = await sandbox.serve(accounts=limits, extra=f'leafnodes {{ listen: "127.0.0.1:-1", {LEAF_USERS} }}')
    links = [await Wire.open(server.port("leaf")) for _ in range(2)]
    await links[0].connect(user="edge", **{"pass": "x"}, name="one", lang="")
    while await links[0].line() != "PONG":
        pass
    await links[0].send("".join(f"LS+ s.{number}\r\n" for number in range(100)))
    while (line := await links[0].line()).startswith(("LS+", "INFO", "PING")):
        pass
    assert line.lower() == "-err 'maximum subscriptions exceeded'"
    operator = await sandbox.operate(server)
    (link,) = (await ask(operator, "$SYS.REQ.SERVER.PING.LEAFZ"))["data"]["leafs"]
    assert link["subscriptions"] == 50
    await links[1].connect(user="edge", **{"pass": "x"}, name="two", lang="")
    while not (line := await links[1].line()).startswith("-ERR"):
        assert line


async def test_fact_27_system_account_controls_streams_of_all_accounts(sandbox: Site) -> None:
    server, client = await with_streams(sandbox)
    streams = client.jetstream()
    await streams.add_stream(name="SECRET", subjects=["secret.>"])
    await streams.publish("secret.one", b"for APP only")
    operator = await sandbox.operate(server)
    as_app = {"Nats-Request-Info": json.dumps({"acc": "APP", "svc": "APP"})}
    message = (await ask(operator, "$JS.API.STREAM.MSG.GET.SECRET", as_app, seq=1))["message"]
    assert message["subject"] == "secret.one"
    assert (await ask(operator, "$JS.API.STREAM.PURGE.SECRET", as_app))["purged"] == 1


async def test_fact_28_stream_keeps_every_subject_and_message_id(sandbox: Site) -> None:
    _, client = await with_streams(sandbox)
    streams = client.jetstream()
    bounded = StreamConfig(name="BOUNDED", subjects=["b.>"], max_msgs=3, duplicate_window=0.1)
    await streams.add_stream(bounded)
    await streams.add_stream(name="OPEN", subjects=["o.>"])
    for number in range(10):
        for prefix in "bo":
            await streams.publish(f"{prefix}.{number}", b"")
    kept = {name: (await ask(client, f"$JS.API.STREAM.INFO.{name}"))["state"] for name in ("OPEN", "BOUNDED")}
    assert {name: state["num_subjects"] for name, state in kept.items()} == {"OPEN": 10, "BOUNDED": 3}
    same = {"Nats-Msg-Id": "same"}
    for subject in ("o.x", "b.x"):
        assert not (await streams.publish(subject, b"", headers=same)).duplicate
    async with asyncio.timeout(HANG_SECONDS):
        while (await streams.publish("b.x", b"", headers=same)).duplicate:  # until the duplicate window has passed
            await asyncio.sleep(0.02)
    assert (await streams.publish("o.x", b"", headers=same)).duplicate


async def test_fact_29_subject_with_invalid_utf_8_forces_a_stream_rebuild_at_start(sandbox: Site) -> None:
    server, client = await with_streams(sandbox)
    await client.jetstream().add_stream(name="EVENTS", subjects=["choria.lifecycle.>"])
    wire = await sandbox.wire(server)
    assert await wire.login() == "PONG"
    wire._writer.write(b"PUB choria.lifecycle.\xff 0\r\n\r\nPING\r\n")
    assert await wire.verdict() == "PONG"
    await client.close()
    await wire.close()
    await asyncio.to_thread(server.restart)
    await sandbox.logged(server, "Stream state corrupt subject detected")
