"""Revokes a leaked provisioning token with ``broker-auth revoke``, while nodes wait by it and by another one."""

from __future__ import annotations

import asyncio
import sys
import time
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Final

from nats.aio.client import Client

from broker_auth.demo.observation import Observation
from broker_auth.errors import OperationError
from broker_auth.natsio.client import round_trip
from broker_auth.sandbox.client import ConnectRefusedError, Credentials, connect
from broker_auth.sandbox.lifetime import dies_with_parent
from broker_auth.sandbox.sandbox import Sandbox

FILE: Final = "revoked.json"  # in the deployment's directory
_THIEF: Final = "thief.example.net"
_OTHER: Final = "node5.example.net"
_SECONDS: Final = 30.0
_LOOK_SECONDS: Final = 0.05


async def show_revocation(sandbox: Sandbox) -> list[Observation]:
    """Connect a node by each of two tokens, revoke one of them, and observe who stays and who may come back."""
    now = time.time()
    leaked, other = (
        Credentials(ca=sandbox.ca, token=sandbox.node_issuer.node_token(issued=now - age)) for age in (1, 2)
    )
    async with AsyncExitStack() as stack:

        async def enter(name: str, credentials: Credentials) -> Client:
            client = await connect(sandbox.node_url, name, credentials)
            stack.push_async_callback(client.close)
            return client

        thief, node = await enter(_THIEF, leaked), await enter(_OTHER, other)
        for name in (_THIEF, _OTHER):  # what let a session in is known once its record is written
            await asyncio.to_thread(sandbox.audit_record, name)
        file = sandbox.directory / "leaked.jwt"
        file.write_text(leaked.token)
        await _revoke(sandbox, file)
        rows = [
            ("a leaked token is revoked: the session that it let in", "ended", await _ends(thief)),
            ("the leaked token is used again", "denied: revoked", await _again(sandbox, leaked)),
            ("the session of a node with another token", "goes on", await _goes_on(node)),
        ]
    return [Observation(what=what, expected=expected, happened=happened) for what, expected, happened in rows]


async def _revoke(sandbox: Sandbox, token: Path) -> None:
    """Run the command.

    Raises:
        OperationError: it failed; contains what it printed.
    """
    arguments = ["revoke", "token", str(token), "--config", str(sandbox.deployment.configuration)]
    process = await asyncio.create_subprocess_exec(
        *dies_with_parent([sys.executable, "-m", "broker_auth", *arguments]),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    try:
        async with asyncio.timeout(_SECONDS):
            shown, _ = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
    if process.returncode != 0:
        raise OperationError(f"broker-auth revoke failed: {shown.decode(errors='replace').strip()}")


async def _ends(client: Client) -> str:
    for _ in range(round(_SECONDS / _LOOK_SECONDS)):
        if client.is_closed:
            return "ended"
        await asyncio.sleep(_LOOK_SECONDS)
    return "goes on"


async def _again(sandbox: Sandbox, credentials: Credentials) -> str:
    before = sandbox.audit_record(_THIEF)
    try:
        client = await connect(sandbox.node_url, _THIEF, credentials)
    except ConnectRefusedError:
        record = await asyncio.to_thread(sandbox.audit_record, _THIEF, after=before)
        return f"denied: {record.code}" if record is not None else "no decision"
    await client.close()
    return "admitted"


async def _goes_on(client: Client) -> str:
    if client.is_closed:
        return "ended"
    await round_trip(client)
    return "goes on"
