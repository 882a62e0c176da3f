"""A Choria fleet with tokens and without certificates: Choria's server and client through one listener."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest

from broker_auth.deploy.plan import Topology
from broker_auth.sandbox.identities import Identity
from broker_auth.sandbox.sandbox import Sandbox
from tests.interop.choria_program import STARTUP_SECONDS, Choria, ChoriaRefused, found_by_ping, running, server

pytestmark = pytest.mark.e2e

IDENTITY = "node1.example.net"


@pytest.mark.parametrize("by", ["organization", "chain issuer"])
async def test_client_request_is_answered_by_a_server(choria_server: Choria, tmp_path: Path, by: str) -> None:
    async with Sandbox(tmp_path / "sandbox", Topology.SINGLE) as sandbox:
        make = sandbox.issuer.client if by == "organization" else sandbox.issuer.client_by_chain
        client = configuration(sandbox, tmp_path / "client", make("up=alice", "fleet_management"))
        node = configuration(sandbox, tmp_path / "node", sandbox.issuer.server(IDENTITY))
        async with server(choria_server, tmp_path / "node.log", node):
            await until_found(choria_server, client)
            # To this server only, and back to a reply subject that only this client may subscribe to.
            output = await run(choria_server, client, "req", "rpcutil", "ping", "-I", IDENTITY, "--json")
            answer = json.loads(output[output.index("{\n") :])
        assert [(reply["sender"], reply["statuscode"]) for reply in answer["replies"]] == [(IDENTITY, 0)]
        assert {(record.rule, record.code) for record in sandbox.audit_records()} >= {
            ("server", "admitted"),
            ("client", "admitted"),
        }
        assert "permissions violation" not in (tmp_path / "node.log").read_text().lower()


async def test_client_without_fleet_management_reaches_no_server(choria_server: Choria, tmp_path: Path) -> None:
    async with Sandbox(tmp_path / "sandbox", Topology.SINGLE) as sandbox:
        manager = configuration(sandbox, tmp_path / "manager", sandbox.issuer.client("up=alice", "fleet_management"))
        viewer = configuration(sandbox, tmp_path / "viewer", sandbox.issuer.client("up=bob", "events_viewer"))
        node = configuration(sandbox, tmp_path / "node", sandbox.issuer.server(IDENTITY))
        async with server(choria_server, tmp_path / "node.log", node):
            await until_found(choria_server, manager)
            assert found_by_ping(await run(choria_server, viewer, "ping")) == []
        assert "admitted" in {record.code for record in sandbox.audit_records() if record.name == "up=bob"}


async def test_token_without_its_key_is_denied(choria_server: Choria, tmp_path: Path) -> None:
    async with Sandbox(tmp_path / "sandbox", Topology.SINGLE) as sandbox:
        stolen, own = sandbox.issuer.client("up=alice", "org_admin"), sandbox.issuer.client("up=thief")
        thief = configuration(sandbox, tmp_path / "thief", Identity(token=stolen.token, seed=own.seed))
        log = tmp_path / "thief.log"
        # Choria would retry forever.
        async with running(choria_server, log, "ping", "--config", str(thief)), asyncio.timeout(STARTUP_SECONDS):
            while not (records := sandbox.audit_records()):
                await asyncio.sleep(0.05)
        assert {(record.rule, record.code) for record in records} == {("client", "nonce_signature")}


def configuration(sandbox: Sandbox, directory: Path, identity: Identity) -> Path:
    """Return a configuration of Choria for the subject of a token, server or client."""
    directory.mkdir()
    token, seed, file = directory / "token.jwt", directory / "key.seed", directory / "choria.conf"
    token.write_text(identity.token)
    seed.write_text(identity.seed.hex())
    settings = {
        "identity": IDENTITY,  # an option of servers; a client's identity is in its token
        "collectives": "mcollective",
        "main_collective": "mcollective",
        "rpcauthorization": "0",
        "plugin.choria.middleware_hosts": sandbox.fleet_url.replace("tls://", "nats://"),
        "plugin.choria.server.provision": "false",
        "plugin.security.provider": "choria",
        "plugin.security.choria.ca": sandbox.ca,
        "plugin.security.choria.token_file": token,
        "plugin.security.choria.seed_file": seed,
        "plugin.security.issuer.names": "choria",
        "plugin.security.issuer.choria.public": sandbox.settings.issuers[0].hex,
    }
    file.write_text("".join(f"{name} = {value}\n" for name, value in settings.items()))
    return file


async def until_found(choria: Choria, client: Path) -> None:
    async with asyncio.timeout(STARTUP_SECONDS):
        while found_by_ping(await run(choria, client, "ping")) != [IDENTITY]:
            pass  # every ping waits for answers itself


async def run(choria: Choria, client: Path, *arguments: str) -> str:
    try:
        return await asyncio.to_thread(choria.run, *arguments, "--config", str(client))
    except ChoriaRefused as refused:
        return str(refused)
