"""``sweep`` finds and ends the sessions that would not be admitted now, and says of which it does not know."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from pathlib import Path

import pytest

from broker_auth.sandbox.client import ConnectRefusedError, Credentials, connect
from broker_auth.sandbox.identities import Identity
from broker_auth.sandbox.sandbox import Sandbox
from broker_auth.secret import Secret
from broker_auth.settings.revocation_store import create
from broker_auth.tokens.issue import signing_key_from_seed
from tests.cli.running import Run, run
from tests.deadlines import HANG_SECONDS

pytestmark = pytest.mark.e2e

CHANGES = {
    "plugin.broker_auth.revocations": "revoked.json",
    "plugin.broker_auth.audit.requests": "sample",
}


async def sweep(sandbox: Sandbox, *args: object) -> Run:
    return await asyncio.to_thread(run, "sweep", *args, "--config", sandbox.deployment.configuration)


async def recorded(sandbox: Sandbox, *names: str) -> None:
    for name in names:
        assert await asyncio.to_thread(sandbox.audit_record, name, HANG_SECONDS), name


async def test_sessions_that_would_not_be_admitted_now_are_found_and_ended(tmp_path: Path) -> None:
    directory = tmp_path / "sandbox"
    directory.mkdir()
    create(directory / "revoked.json")
    async with Sandbox(directory, issuer=True, changes=CHANGES) as sandbox:
        await sweep_sessions(sandbox)


async def sweep_sessions(sandbox: Sandbox) -> None:
    operator = sandbox.credentials("system")  # any certificate of the fleet; the token counts

    def client(made: Identity) -> Credentials:
        return replace(operator, user="", password="", token=made.token, seed=made.seed)

    alice, bob = sandbox.issuer.client("up=alice"), sandbox.issuer.client("up=bob")
    sessions = {
        "alice": await connect(sandbox.fleet_url, "alice", client(alice)),
        "bob": await connect(sandbox.fleet_url, "bob", client(bob)),
        "node1": await connect(sandbox.node_url, "node1", sandbox.credentials("node")),
    }
    # Of the second connection of an identity no request is stored; that of the first one counts.
    sessions["bob2"] = await connect(sandbox.fleet_url, "bob", client(bob))
    await recorded(sandbox, "alice", "bob", "node1")
    clean = await sweep(sandbox)
    assert (clean.code, clean.out, clean.err) == (0, "0 sessions would not be admitted now, 4 would be\n", "")
    key = signing_key_from_seed(Secret(alice.seed.hex()), "alice").public_hex
    revoked = await asyncio.to_thread(
        run, "revoke", "key", key, "--sessions", "none", "--config", sandbox.deployment.configuration
    )
    assert revoked.code == 0, revoked.err
    result = await sweep(sandbox, "--json")
    assert result.code == 1
    (one,) = result.json["sessions"]
    assert (one["identity"], one["code"], one["broker"]) == ("up=alice", "revoked", "fleet")
    assert (result.json["admitted"], result.json["not_known"], result.json["missing"]) == (3, [], [])
    for session in sessions.values():
        await session.flush()
    ended = await sweep(sandbox, "--end")
    assert (ended.code, "1 session ended, 3 would be\n" in ended.out) == (0, True), (ended.out, ended.err)
    async with asyncio.timeout(HANG_SECONDS):
        while not sessions["alice"].is_closed:
            await asyncio.sleep(0.01)
    with pytest.raises(ConnectRefusedError):
        await connect(sandbox.fleet_url, "alice", client(alice))
    for name in ("bob", "bob2", "node1"):
        await sessions[name].flush()
    await says_what_it_does_not_know(sandbox)
    for session in sessions.values():
        await session.close()


async def says_what_it_does_not_know(sandbox: Sandbox) -> None:
    sandbox.audit_file.with_name("audit.edge.jsonl").unlink()
    unknown = await sweep(sandbox)
    assert unknown.code == 3
    assert "not known: broker edge: 1 session without an audit record in these files" in unknown.out
    (sandbox.directory / "keys/edge/kick.seed").unlink()
    unasked = await sweep(sandbox)
    assert unasked.code == 1
    assert "broker edge was not asked" in unasked.err
