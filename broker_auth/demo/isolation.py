"""What isolation means, shown live: who hears whom.

"Hears nothing" is never shown by waiting: a later message that must arrive on the same connection
proves that an earlier one did not (NATS keeps the order of one publisher's messages).
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

from broker_auth.demo.outcome import Outcome
from broker_auth.deploy.plan import Topology
from broker_auth.natsio.client import round_trip
from broker_auth.natsio.natspy import violates
from broker_auth.operate import access
from broker_auth.operate.access import Login, request_json
from broker_auth.sandbox.client import connect
from broker_auth.sandbox.site import Site

_SECONDS: Final = 15.0
_EVENT: Final = "choria.lifecycle.event.startup.provision_mode_server"
_YES: Final = "yes"
_NO: Final = "no"


async def show_isolation(site: Site) -> list[Outcome]:
    """Connect a provisioner, two waiting nodes and a fleet member, and see who hears whom."""
    async with AsyncExitStack() as stack:

        async def enter(url: str, name: str, who: str, inbox: str = "_INBOX") -> Client:
            client = await connect(url, name, site.credentials(who), inbox=inbox)
            stack.push_async_callback(client.close)
            return client

        fleet = await enter(site.fleet_url, "fleet-member", "fleet")
        provisioner = await enter(site.fleet_url, "provisioner", "provisioner", "provisioning.reply.provisioner")
        first = await enter(site.node_url, "node1.example.net", "node")
        second = await enter(site.node_url, "node2.example.net", "node")
        steps: list[tuple[str, str, Callable[[], Awaitable[str]]]] = [
            ("the provisioner asks a waiting node and is answered", _YES, lambda: _asks(provisioner, first)),
            (
                "another node hears what the provisioner sends it",
                _NO,
                lambda: _forbidden(second, "provisioning.node.node1.example.net"),
            ),
            ("another node hears what it answers", _NO, lambda: _forbidden(second, "provisioning.reply.>")),
            ("a node may listen to the fleet", _NO, lambda: _forbidden(first, "mcollective.>")),
            ("a node may speak to the fleet", _NO, lambda: _may_publish(first, "mcollective.broadcast.agent.rpcutil")),
            ("the fleet reaches a waiting node", _NO, lambda: _fleet_reaches(fleet, provisioner, first)),
            ("the fleet hears anything of a node but its lifecycle events", _NO, lambda: _fleet_hears(fleet, first)),
            (
                "the node's lifecycle event is in the fleet's stream CHORIA_EVENTS",
                _YES,
                lambda: _streamed(fleet, first),
            ),
        ]
        if site.topology is Topology.EDGE:
            steps.append(
                (
                    "a stolen edge logs in to the fleet with what the service signs for it",
                    _NO,
                    lambda: _logs_in_as_the_service(site),
                )
            )
        return [Outcome(what=what, expected=expected, happened=await step()) for what, expected, step in steps]


async def _logs_in_as_the_service(site: Site) -> str:
    """Use the service's key of the edge at the fleet: what its thief gets signed by relaying the fleet's nonce.

    A member's certificate gets it through TLS, and is then all that counts: the account is the fleet's.
    """
    zone = site.deployment.settings.zone("edge")
    login = Login(what="a thief", nkey_seed=zone.nkey_seed, name="thief")
    client = await access.connect(site.fleet_url, login, site.credentials("fleet").tls())
    try:
        told = await request_json(client, "$SYS.REQ.USER.INFO")
    finally:
        await client.close()
    return _NO if told["data"]["account"] == site.deployment.settings.accounts.fleet else _YES


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
    """Interest crosses the leaf link in its own time: ask until somebody is there."""
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
    heard: asyncio.Queue[bytes] = asyncio.Queue()

    async def hear(message: Msg) -> None:
        heard.put_nowait(message.data)
        if message.reply:
            await message.respond(b"pong")

    subscription = await node.subscribe("provisioning.node.node1.example.net", cb=hear)
    await round_trip(node)
    await fleet.publish("provisioning.node.node1.example.net", b"from the fleet")
    await round_trip(fleet)
    await _until_routed(provisioner, "provisioning.node.node1.example.net")
    await subscription.unsubscribe()
    seen = [heard.get_nowait() for _ in range(heard.qsize())]
    return _YES if b"from the fleet" in seen or not seen else _NO


async def _fleet_hears(fleet: Client, node: Client) -> str:
    heard: asyncio.Queue[str] = asyncio.Queue()

    async def hear(message: Msg) -> None:
        if not message.subject.startswith(("_INBOX", "$JS")):
            heard.put_nowait(message.subject)

    subscription = await fleet.subscribe(">", cb=hear)
    await round_trip(fleet)
    async with asyncio.timeout(_SECONDS):
        while heard.empty():  # until the import is known across the leaf link
            await node.publish("provisioning.registration.node1", b"facts")
            await node.publish(_EVENT, b"{}")
            await round_trip(node)
            await asyncio.sleep(0.02)
    await subscription.unsubscribe()
    seen = {heard.get_nowait() for _ in range(heard.qsize())}
    return _NO if seen == {_EVENT} else _YES


async def _streamed(fleet: Client, node: Client) -> str:
    await node.publish(_EVENT, b'{"identity": "node1.example.net"}')
    await round_trip(node)
    streams = fleet.jetstream()
    async with asyncio.timeout(_SECONDS):
        while True:
            try:
                message = await streams.get_last_msg("CHORIA_EVENTS", _EVENT)
            except NotFoundError:  # still on its way across the leaf link
                await asyncio.sleep(0.02)
            else:
                return _YES if message.subject == _EVENT else _NO
