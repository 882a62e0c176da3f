"""A fleet whose servers decide by themselves: what members may do, without any service, and the way there and back."""

from __future__ import annotations

import asyncio
import contextlib
import signal
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from nats.aio.client import Client

from broker_auth.deploy.init import write_zone_keys
from broker_auth.deploy.render import render
from broker_auth.deploy.workspace import Workspace
from broker_auth.natsio.client import round_trip
from broker_auth.natsio.nkey import NkeyKind, generate_seed
from broker_auth.operate import logins
from broker_auth.operate.answers import request_json
from broker_auth.operate.logins import Login
from broker_auth.policy.permissions import SYSTEM
from broker_auth.sandbox.client import ConnectRefusedError, connect
from broker_auth.sandbox.natsserver import NatsServer, free_port
from broker_auth.sandbox.sandbox import Sandbox, change
from broker_auth.secret import Secret
from broker_auth.settings.load import load
from broker_auth.settings.model import FleetAuth
from tests.callout.deployment import eventually
from tests.deadlines import HANG_SECONDS

pytestmark = [pytest.mark.e2e, pytest.mark.asyncio(loop_scope="module")]
OWN = "plugin.broker_auth."
SOON = 2.0  # seconds, after which clients of NATS try the next server
ROUNDS = 4  # of the servers that a client knows, which a busy machine may need
NO_TOKENS: dict[str, str | None] = {
    "plugin.choria.network.client_signer_cert": None,
    "plugin.choria.network.server_signer_cert": None,
}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def sandbox(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Sandbox]:
    """Yield a static fleet and its edge."""
    directory = tmp_path_factory.mktemp("static") / "sandbox"
    async with Sandbox(directory, fleet_auth=FleetAuth.STATIC, changes=NO_TOKENS) as running:
        yield running


async def info(sandbox: Sandbox, who: str) -> dict[str, Any]:
    """Log in, and return what nats-server says of that user."""
    client = await connect(sandbox.fleet_url, who, sandbox.credentials(who))
    try:
        answer = await request_json(client, "$SYS.REQ.USER.INFO")
    finally:
        await client.close()
    return dict(answer["data"])


async def test_permissions_are_those_of_the_policy(sandbox: Sandbox) -> None:
    accounts = {who: await info(sandbox, who) for who in ("fleet", "provisioner", "system")}
    assert {who: reported["account"] for who, reported in accounts.items()} == {
        "fleet": "choria",
        "provisioner": "provisioning",
        "system": "system",
    }
    assert [accounts[who].get("permissions") for who in ("fleet", "provisioner")] == [None, None]
    granted = accounts["system"]["permissions"]
    assert (set(granted["publish"]["allow"]), set(granted["subscribe"]["allow"])) == (
        set(SYSTEM.pub.allow),
        set(SYSTEM.sub.allow),
    )


async def test_only_listed_users_with_their_password_get_in(sandbox: Sandbox) -> None:
    member, provisioner, operator = (sandbox.credentials(who) for who in ("fleet", "provisioner", "system"))
    hashes = [
        part.split('"')[1]
        for part in sandbox.deployment.servers["fleet"].read_text().split("password: ")
        if part[0] == '"'
    ]
    assert len(hashes) == 2
    guesses = [replace(user, password=text) for user in (provisioner, operator) for text in ("", "guess", *hashes)]
    unknown = [
        replace(member, user="stranger", password="x"),
        replace(member, user="fleet-member", password="x"),
        replace(member, token=sandbox.node_issuer.node_token()),
    ]
    for credentials in (*guesses, *unknown):
        with pytest.raises(ConnectRefusedError, match="Authorization"):
            await connect(sandbox.fleet_url, "guesser", credentials)
    with pytest.raises(ConnectRefusedError, match="Authorization"):
        await enter_by_nkey(sandbox, Secret(generate_seed(NkeyKind.USER)))


async def test_break_glass_user_gets_into_the_system_account(sandbox: Sandbox) -> None:
    seed = Secret((sandbox.directory / "keys" / "break-glass.seed").read_text().strip())
    assert await enter_by_nkey(sandbox, seed) == "system"


async def enter_by_nkey(sandbox: Sandbox, seed: Secret) -> str:
    """Log in with a key and a member's certificate, and return the account."""
    login = Login(what="the owner of a key", nkey_seed=seed)
    client = await logins.connect(sandbox.fleet_url, login, sandbox.credentials("fleet").tls())
    try:
        return str((await request_json(client, "$SYS.REQ.USER.INFO"))["data"]["account"])
    finally:
        await client.close()


async def test_edge_asks_the_service_and_the_fleet_does_not(sandbox: Sandbox) -> None:
    for url, who in ((sandbox.fleet_url, "fleet"), (sandbox.node_url, "node")):
        await (await connect(url, f"asked-{who}", sandbox.credentials(who))).close()
    record = sandbox.audit_record("asked-node")
    assert record is not None
    assert {entry.zone for entry in sandbox.audit_records()} == {"edge"}
    assert not sandbox.audit_file.exists()


async def test_rotated_password_counts_after_a_reload_and_members_stay(sandbox: Sandbox) -> None:
    old = sandbox.credentials("provisioner")
    new = replace(old, password="another password")
    password_file = sandbox.directory / "keys" / "client_password"
    member = await connect(sandbox.fleet_url, "stays", sandbox.credentials("fleet"))
    provisioner = await connect(sandbox.fleet_url, "leaves", old)
    kept = password_file.read_text()
    try:
        password_file.write_text(new.password)
        await render_and_reload(sandbox)
        await (await connect(sandbox.fleet_url, "new", new)).close()
        with pytest.raises(ConnectRefusedError):
            await connect(sandbox.fleet_url, "old", old)
        async with asyncio.timeout(HANG_SECONDS):
            while provisioner.is_connected:
                await asyncio.sleep(0.02)
        await round_trip(member)
    finally:
        password_file.write_text(kept)
        await render_and_reload(sandbox)
        await member.close()
        await provisioner.close()


async def render_and_reload(sandbox: Sandbox) -> None:
    settings = load(sandbox.deployment.configuration, {}, serving=True)
    sandbox.deployment.servers["fleet"].write_text(render(settings, settings.brokers[0]))
    await asyncio.to_thread(sandbox.servers["fleet"].reload)


async def test_without_any_service_the_fleet_comes_and_goes(sandbox: Sandbox) -> None:
    """Runs last: it stops the service."""
    waiting = await connect(sandbox.node_url, "node-before", sandbox.credentials("node"))
    assert await sandbox.service.stop() == 0
    for who in ("fleet", "provisioner", "system"):
        await (await connect(sandbox.fleet_url, f"during-{who}", sandbox.credentials(who))).close()
    await asyncio.to_thread(sandbox.servers["fleet"].restart)
    for who in ("fleet", "provisioner", "system"):
        await (await connect(sandbox.fleet_url, f"after-{who}", sandbox.credentials(who))).close()
    with pytest.raises(ConnectRefusedError):
        await connect(sandbox.node_url, "node-during", sandbox.credentials("node"), seconds=SOON)
    await round_trip(waiting)
    await waiting.close()
    await sandbox.service.start()
    await (await connect(sandbox.node_url, "node-after", sandbox.credentials("node"))).close()


class Fleet:
    """A cluster of two servers, and members that try to get in again and again."""

    def __init__(self, sandbox: Sandbox) -> None:
        self._sandbox = sandbox
        self.servers = [sandbox.servers["fleet"], NatsServer(sandbox.directory / "second.conf")]
        listen, route = ([free_port(), free_port()] for _ in range(2))
        listen[0] = int(sandbox.fleet_url.rpartition(":")[2])
        self.urls = [f"tls://127.0.0.1:{port}" for port in listen]
        broker = f"{OWN}broker.fleet."
        self._cluster: dict[str, str | None] = {
            f"{broker}urls": ", ".join(self.urls),
            f"{broker}server.cluster.name": "fleet",
            f"{broker}server.cluster.routes": ", ".join(f"tls://localhost:{port}" for port in route),
            f"{broker}server.store_dir": None,
        }
        self._members = [(f"127.0.0.1:{listen[index]}", f"127.0.0.1:{route[index]}") for index in range(2)]

    def write(self, changes: dict[str, str | None]) -> None:
        """Change ``broker.conf`` and render the configurations of both members."""
        first = self._cluster | {f"{OWN}broker.fleet.server.cluster.listen": self._members[0][1]} | changes
        self._sandbox.deployment = change(self._sandbox.deployment, first)
        environ = {
            "BROKER_AUTH_BROKER_FLEET_SERVER_NAME": "second",
            "BROKER_AUTH_BROKER_FLEET_SERVER_LISTEN": self._members[1][0],
            "BROKER_AUTH_BROKER_FLEET_SERVER_CLUSTER_LISTEN": self._members[1][1],
            "BROKER_AUTH_BROKER_FLEET_SERVER_LEAF_LISTEN": f"127.0.0.1:{free_port()}",
        }
        settings = load(self._sandbox.deployment.configuration, environ, serving=True)
        self.servers[1].config.write_text(render(settings, settings.brokers[0]))

    async def enter(self, who: str = "fleet") -> Client:
        """Get in at whichever server answers."""
        login = self._sandbox.credentials(who)
        failures = []
        for url in self.urls * ROUNDS:
            try:
                return await connect(url, f"moving-{who}", login, seconds=SOON)
            except ConnectRefusedError as error:
                failures.append(str(error))
        raise ConnectRefusedError("; ".join(failures))


async def test_a_cluster_moves_to_static_and_back_without_an_outage(tmp_path: Path) -> None:
    identities = f"{OWN}provisioner.identities"
    sandbox = Sandbox(tmp_path / "sandbox", changes=NO_TOKENS)
    fleet = Fleet(sandbox)
    fleet.write({})
    entered: list[str] = []
    async with contextlib.AsyncExitStack() as stack:
        await stack.enter_async_context(fleet.servers[1])
        await stack.enter_async_context(sandbox)
        logins = asyncio.create_task(log_in_for_ever(fleet, entered))
        stack.callback(logins.cancel)

        async def restart_all() -> None:
            for server in fleet.servers:
                await eventually_enters(entered)
                server.kill()  # because a stop waits 10 s for a login that is not decided yet
                await asyncio.to_thread(server.start)
            await eventually_enters(entered)

        kept = sandbox.settings.provisioning.provisioner_identities
        fleet.write({f"{OWN}fleet.auth": "static", identities: None})
        await restart_all()
        since = sandbox.service.mark()
        sandbox.service.signal(signal.SIGHUP)
        await sandbox.service.logged("zone fleet has been removed", since=since)
        assert await names_of_users(fleet) == {"fleet-member"}
        assert write_zone_keys(Workspace(sandbox.directory, force=False), "fleet")
        fleet.write({f"{OWN}fleet.auth": None, identities: ", ".join(kept)})
        since = sandbox.service.mark()
        sandbox.service.signal(signal.SIGHUP)
        await sandbox.service.logged("zone fleet is new", since=since)
        await restart_all()
        await sandbox.service.logged("broker fleet: subscribed", since=since)
        assert not logins.done(), logins.exception()
        assert "fleet-member" not in await names_of_users(fleet)


async def log_in_for_ever(fleet: Fleet, entered: list[str]) -> None:
    """Log in as everybody who belongs to the fleet; the first failure ends it."""
    while True:
        for who in ("fleet", "provisioner", "system"):
            await (await fleet.enter(who)).close()
            entered.append(who)


async def eventually_enters(entered: list[str]) -> None:
    """Wait until everybody has got in once more."""
    since = len(entered)
    await eventually(lambda: entered[since + 6 :])


async def names_of_users(fleet: Fleet) -> set[str]:
    client = await fleet.enter()
    try:
        return {(await request_json(client, "$SYS.REQ.USER.INFO"))["data"]["user"]}
    finally:
        await client.close()
