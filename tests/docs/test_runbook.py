"""The rotations in docs/runbook.md, performed step by step on a running deployment."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest
import pytest_asyncio

from broker_auth.files.writing import write_private
from broker_auth.natsio.nkey import NkeyKind, generate_seed
from broker_auth.sandbox.client import ConnectRefusedError, Credentials, connect
from broker_auth.sandbox.identities import Issuer
from broker_auth.sandbox.sandbox import Sandbox, change
from broker_auth.tokens.issue import new_seed, signing_key_from_seed

pytestmark = pytest.mark.e2e

PASSWORD = "plugin.choria.network.provisioning.client_password"
PREVIOUS = "plugin.broker_auth.provisioning.previous_client_password"
SIGNER = "plugin.choria.network.provisioning.signer_cert"
KEYS = {
    "plugin.broker_auth.issuer_seed_file": NkeyKind.ACCOUNT,
    "plugin.broker_auth.xkey_seed_file": NkeyKind.CURVE,
    "plugin.broker_auth.nkey_seed_file": NkeyKind.USER,
}


@pytest_asyncio.fixture
async def sandbox(tmp_path: Path) -> AsyncIterator[Sandbox]:
    """Yield an edge deployment."""
    async with Sandbox(tmp_path / "sandbox") as running:
        yield running


async def admitted(url: str, credentials: Credentials) -> bool:
    """Return whether a connection with these credentials, named ``node1``, is admitted."""
    try:
        client = await connect(url, "node1", credentials)
    except ConnectRefusedError:
        return False
    await client.close()
    return True


async def set_keys(sandbox: Sandbox, changes: dict[str, str | None]) -> None:
    """Change the configuration and reload."""
    change(sandbox.deployment, changes)
    await sandbox.service.reload()


async def test_provisioner_password_is_rotated_without_outage(sandbox: Sandbox) -> None:
    old = sandbox.credentials("provisioner")
    new = replace(old, password="a new password")
    write_private(sandbox.directory / "keys" / "client_password-2", new.password.encode())

    async def in_force() -> tuple[bool, bool]:
        return await admitted(sandbox.fleet_url, old), await admitted(sandbox.fleet_url, new)

    assert await in_force() == (True, False)
    await set_keys(sandbox, {PASSWORD: "file:keys/client_password-2", PREVIOUS: "file:keys/client_password"})
    assert await in_force() == (True, True)
    await set_keys(sandbox, {PREVIOUS: None})
    assert await in_force() == (False, True)


async def test_signer_of_provisioning_tokens_is_rotated_without_outage(sandbox: Sandbox) -> None:
    seed = new_seed()
    key = signing_key_from_seed(seed, "signer")
    assert key.public_hex
    old, new = sandbox.credentials("node"), Credentials(ca=sandbox.ca, token=Issuer(key).node_token())

    async def in_force() -> tuple[bool, bool]:
        return await admitted(sandbox.node_url, old), await admitted(sandbox.node_url, new)

    assert await in_force() == (True, False)
    await set_keys(sandbox, {SIGNER: f"{key.public_hex}, pki/signer.pem"})
    assert await in_force() == (True, True)
    await set_keys(sandbox, {SIGNER: key.public_hex})
    assert await in_force() == (False, True)


async def test_keys_are_rotated_with_a_restart(sandbox: Sandbox) -> None:
    for name, kind in KEYS.items():
        write_private(sandbox.directory / "keys" / f"new-{kind.name}.seed", generate_seed(kind).encode())
        change(sandbox.deployment, {name: f"keys/new-{kind.name}.seed"})
    for server in sandbox.servers.values():
        await asyncio.to_thread(server.stop)
        server.start()  # not in a thread, because the server ends with the thread that starts it
    assert not await admitted(
        sandbox.node_url, sandbox.credentials("node")
    )  # the running service still has the old keys
    await sandbox.service.stop()
    await sandbox.service.start()
    assert await admitted(sandbox.node_url, sandbox.credentials("node"))
    assert await admitted(sandbox.fleet_url, sandbox.credentials("fleet"))
