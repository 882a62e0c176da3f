"""Shows isolation live: which clients receive whose messages.

The absence of a message is never shown by waiting: a later message on the same connection proves that an earlier one
was not delivered (NATS preserves the order of one publisher's messages).
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from typing import Final

from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.errors import Error as NatsError
from nats.js.errors import NotFoundError

from broker_auth.demo.observation import Observation
from broker_auth.deploy.plan import Topology
from broker_auth.natsio.client import round_trip
from broker_auth.natsio.natspy import violates
from broker_auth.operate import logins
from broker_auth.operate.answers import request_json
from broker_auth.operate.logins import AccessError, Login
from broker_auth.sandbox.client import connect
from broker_auth.sandbox.sandbox import Sandbox

_SECONDS: Final = 15.0
_EVENT: Final = "choria.lifecycle.event.startup.provision_mode_server"
_YES: Final = "yes"
_NO: Final = "no"


async def show_isolation(sandbox: Sandbox) -> list[Observation]:
    """Connect a provisioner, two unprovisioned nodes and a fleet member, and observe which messages they receive."""
    async with AsyncExitStack() as stack:

        async def enter(url: str, name: str, who: str, inbox: str = "_INBOX") -> Client:
            client = await connect(url, name, sandbox.credentials(who), inbox=inbox)
            stack.push_async_callback(client.close)
            return client

        fleet = await enter(sandbox.fleet_url, "fleet-member", "fleet")
        provisioner = await enter(sandbox.fleet_url, "provisioner", "provisioner", "provisioning.reply.provisioner")
        first = await enter(sandbox.node_url, "node1.example.net", "node")
        second = await enter(sandbox.node_url, "node2.example.net", "node")
        steps: list[tuple[str, str, Callable[[], Awaitable[str]]]] = [
            (
                "the provisioner sends a request to a waiting node and gets an answer",
                _YES,
                lambda: _asks(provisioner, first),
            ),
            (
                "another node receives the provisioner's requests to it",
                _NO,
                lambda: _forbidden(second, "provisioning.node.node1.example.net"),
            ),
            ("another node receives its answers", _NO, lambda: _forbidden(second, "provisioning.reply.>")),
            ("a node may subscribe to the fleet's subjects", _NO, lambda: _forbidden(first, "mcollective.>")),
            (
                "a node may publish to the fleet",
                _NO,
                lambda: _may_publish(first, "mcollective.broadcast.agent.rpcutil"),
            ),
            ("the fleet reaches a waiting node", _NO, lambda: _fleet_reaches(fleet, provisioner, first)),
            ("the fleet receives more from a node than its lifecycle events", _NO, lambda: _fleet_hears(fleet, first)),
            (
                "the node's lifecycle event is in the fleet's stream CHORIA_EVENTS",
                _YES,
                lambda: _streamed(fleet, first),
            ),
        ]
        if sandbox.topology is Topology.EDGE:
            steps.append(
                (
                    "a stolen edge logs in to the fleet with relayed signatures",
                    _NO,
                    lambda: _logs_in_as_the_service(sandbox),
                )
            )
        return [Observation(what=what, expected=expected, happened=await step()) for what, expected, step in steps]


async def _logs_in_as_the_service(sandbox: Sandbox) -> str:
    """Present the service's key of the edge to the fleet, like an attacker who relays the fleet's nonce to the service.

    The attacker needs a member's certificate for TLS, and gains nothing beyond it: the account is the fleet's. A static
    fleet refuses a key that it does not know.
    """
    zone = sandbox.deployment.settings.zone("edge")
    login = Login(what="an attacker", nkey_seed=zone.nkey_seed, name="attacker")
    try:
        client = await logins.connect(sandbox.fleet_url, login, sandbox.credentials("fleet").tls())
    except AccessError:
        return _NO
    try:
        answer = await request_json(client, "$SYS.REQ.USER.INFO")
    finally:
        await client.close()
    return _NO if answer["data"]["account"] == sandbox.deployment.settings.accounts.fleet else _YES


async def _asks(provisioner: Client, node: Client) -> str:
    async def answer(message: Msg) -> None:
        await message.respond(b"pong")

    subscription = await node.subscribe("provisioning.node.node1.example.net", cb=answer)
    await round_trip(node)
    await _until_routed(provisioner, "provisioning.node.node1.example.net")
    reply = await provisioner.request("provisioning.node.node1.example.net", b"ping", timeout=_SECONDS)
    await subscription.unsubscribe()
    return _YES if reply.data == b"pong" else _NO


async def _until_routed(client: Client, subject: str) -> None:
    """Repeat a request until the subscription has crossed the leaf link and is answered."""
    async with asyncio.timeout(_SECONDS):
        while True:
            try:
                await client.request(subject, b"", timeout=1)
            except NatsError:
                await asyncio.sleep(0.02)
            else:
                return


async def _forbidden(client: Client, subject: str) -> str:
    return _NO if await violates(client, lambda: client.subscribe(subject)) else _YES


async def _may_publish(client: Client, subject: str) -> str:
    return _NO if await violates(client, lambda: client.publish(subject, b"x")) else _YES


async def _fleet_reaches(fleet: Client, provisioner: Client, node: Client) -> str:
    received: asyncio.Queue[bytes] = asyncio.Queue()

    async def receive(message: Msg) -> None:
        received.put_nowait(message.data)
        if message.reply:
            await message.respond(b"pong")

    subscription = await node.subscribe("provisioning.node.node1.example.net", cb=receive)
    await round_trip(node)
    await fleet.publish("provisioning.node.node1.example.net", b"from the fleet")
    await round_trip(fleet)
    await _until_routed(provisioner, "provisioning.node.node1.example.net")
    await subscription.unsubscribe()
    seen = [received.get_nowait() for _ in range(received.qsize())]
    return _YES if b"from the fleet" in seen or not seen else _NO


async def _fleet_hears(fleet: Client, node: Client) -> str:
    received: asyncio.Queue[str] = asyncio.Queue()

    async def receive(message: Msg) -> None:
        if not message.subject.startswith(("_INBOX", "$JS")):
            received.put_nowait(message.subject)

    subscription = await fleet.subscribe(">", cb=receive)
    await round_trip(fleet)
    async with asyncio.timeout(_SECONDS):
        while received.empty():  # until the subscription has crossed the leaf link
            await node.publish("provisioning.registration.node1", b"facts")
            await node.publish(_EVENT, b"{}")
            await round_trip(node)
            await asyncio.sleep(0.02)
    await subscription.unsubscribe()
    seen = {received.get_nowait() for _ in range(received.qsize())}
    return _NO if seen == {_EVENT} else _YES


async def _streamed(fleet: Client, node: Client) -> str:
    await node.publish(_EVENT, b'{"identity": "node1.example.net"}')
    await round_trip(node)
    streams = fleet.jetstream()
    async with asyncio.timeout(_SECONDS):
        while True:
            try:
                message = await streams.get_last_msg("CHORIA_EVENTS", _EVENT)
            except NotFoundError:  # not yet transferred over the leaf link
                await asyncio.sleep(0.02)
            else:
                return _YES if message.subject == _EVENT else _NO
