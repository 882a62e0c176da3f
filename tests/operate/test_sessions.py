"""``revoke`` ends the sessions that the revoked thing let in, on the fleet and on the edge, and no other."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest
import pytest_asyncio
from nats.aio.client import Client

from broker_auth.sandbox.client import ConnectRefusedError, Credentials, connect
from broker_auth.sandbox.sandbox import Sandbox
from broker_auth.settings.revocation_store import create
from tests.cli.running import Run, run
from tests.deadlines import HANG_SECONDS

pytestmark = pytest.mark.e2e


@pytest_asyncio.fixture
async def sandbox(tmp_path: Path) -> AsyncIterator[Sandbox]:
    """Yield an edge deployment with an organization issuer and a file of revocations."""
    directory = tmp_path / "sandbox"
    directory.mkdir()
    create(directory / "revoked.json")
    changes = {"plugin.broker_auth.revocations": "revoked.json", "plugin.broker_auth.workers": "2"}
    async with Sandbox(directory, issuer=True, changes=changes) as running:
        yield running


async def command(sandbox: Sandbox, name: str, *args: object) -> Run:
    """Run a command beside the test's connections."""
    return await asyncio.to_thread(run, name, *args, "--config", sandbox.deployment.configuration)


async def ends(client: Client) -> None:
    async with asyncio.timeout(HANG_SECONDS):
        while not client.is_closed:
            await asyncio.sleep(0.01)


async def stays(*clients: Client) -> None:
    for client in clients:
        await client.flush()


async def refused(url: str, name: str, credentials: Credentials) -> bool:
    try:
        client = await connect(url, name, credentials)
    except ConnectRefusedError:
        return True
    await client.close()
    return False


async def test_sessions_of_what_was_revoked_end_and_no_other(sandbox: Sandbox, tmp_path: Path) -> None:
    operator = sandbox.credentials("system")  # any certificate of the fleet; the token counts

    def client(caller: str, *, chained: bool = False) -> Credentials:
        made = sandbox.issuer.client_by_chain(caller) if chained else sandbox.issuer.client(caller)
        return replace(operator, user="", password="", token=made.token, seed=made.seed)

    alice, bob, dave = client("up=alice"), client("up=bob"), client("up=dave")
    carol = client("up=carol", chained=True)
    pki = sandbox.directory / "pki"
    dave = replace(dave, certificate=pki / "member.pem", key=pki / "member.key")
    one, two = (
        Credentials(ca=sandbox.ca, token=sandbox.node_issuer.node_token(issued=time.time() - age)) for age in (1, 2)
    )
    sessions = {
        "alice": await connect(sandbox.fleet_url, "alice", alice),
        "bob": await connect(sandbox.fleet_url, "bob", bob),
        "carol": await connect(sandbox.fleet_url, "carol", carol),
        "dave": await connect(sandbox.fleet_url, "dave", dave),
        "node1": await connect(sandbox.node_url, "node1", one),
        "node2": await connect(sandbox.node_url, "node2", two),
    }
    (tmp_path / "one.jwt").write_text(one.token)

    def issuer_id() -> str:
        record = sandbox.audit_record("carol")
        assert record
        return record.issuer_id

    cases: list[tuple[str, tuple[object, ...]]] = [
        ("alice", ("identity", "up=alice")),
        ("carol", ("chain-issuer", issuer_id(), "--yes")),
        ("dave", ("certificate", pki / "member.pem")),
        ("node1", ("token", tmp_path / "one.jwt")),
    ]
    left = dict(sessions)
    for who, what in cases:
        assert sandbox.audit_record(who)
        shown = await command(sandbox, "revoke", *what, "--dry-run")
        assert (shown.code, "would end 1 session\n" in shown.out) == (0, True), (shown.out, shown.err)
        await stays(*left.values())
        done = await command(sandbox, "revoke", *what)
        assert (done.code, "ended 1 session\n" in done.out) == (0, True), (done.out, done.err)
        await ends(left.pop(who))
        await stays(*left.values())
    assert await refused(sandbox.node_url, "node1", one)
    assert await refused(sandbox.fleet_url, "alice", alice)
    assert not await refused(sandbox.node_url, "node3", two)
    restored = await command(sandbox, "restore", "identity", "up=alice")
    assert restored.code == 0, restored.err
    assert not await refused(sandbox.fleet_url, "alice", alice)
    for session in sessions.values():
        await session.close()


async def test_command_fails_where_a_session_may_be_left(sandbox: Sandbox) -> None:
    node = await connect(sandbox.node_url, "node1", sandbox.credentials("node"))
    kick_seed = sandbox.directory / "keys/edge/kick.seed"
    kick_seed.rename(elsewhere := sandbox.directory / "elsewhere.seed")
    unseen = await command(sandbox, "revoke", "node", "node1")
    assert unseen.code == 1
    assert "broker edge was not asked" in unseen.err
    assert "in force in zones" in unseen.out  # and yet it is revoked
    await stays(node)
    seeds = ("--kick-seed", elsewhere)
    key = "ab" * 32
    untold = await command(sandbox, "revoke", "key", key)
    assert untold.code == 1
    assert f"sessions of key {key} cannot be told from others; use `broker-auth sweep --end`" in untold.err
    sandbox.audit_file.with_name("audit.edge.jsonl").unlink()
    unknown = await command(sandbox, "revoke", "token-id", "another", *seeds)
    assert unknown.code == 1
    assert "broker edge: 1 session without an audit record on this host" in unknown.err
    await stays(node)
    everybody = await command(sandbox, "revoke", "key", key, "--sessions", "all", *seeds)
    assert everybody.code == 0, everybody.err
    await ends(node)
