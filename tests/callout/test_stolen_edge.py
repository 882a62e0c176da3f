"""Attacks on the fleet by a stolen edge, with every key and certificate on it.

The attacker is part of this module: it speaks NATS and does things that nats-server does not.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import signal
import ssl
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from broker_auth.deploy.plan import Topology
from broker_auth.natsio.nkey import NkeyKind, decode_public, public_nkey
from broker_auth.sandbox.client import connect
from broker_auth.sandbox.sandbox import Sandbox
from tests.builders.peers import fleet_chain
from tests.builders.requests import Server, fleet, node, provisioner
from tests.callout.deployment import eventually
from tests.callout.hostile import HostileBroker
from tests.deadlines import HANG_SECONDS

pytestmark = pytest.mark.e2e


class Relay:
    """A server that poses as the edge, and sends the fleet's nonce to the service.

    Attributes:
        connect: the CONNECT line of the service, with its signature.
    """

    def __init__(self, sandbox: Sandbox, nonce: str) -> None:
        self._sandbox = sandbox
        self._nonce = nonce
        self.connect: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()

    @contextlib.asynccontextmanager
    async def listening(self) -> AsyncIterator[Relay]:
        url = urlsplit(self._sandbox.deployment.settings.brokers[1].urls[0])
        server = await asyncio.start_server(self._serve, url.hostname, url.port)
        async with server:
            yield self
            server.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        info = {"server_id": "N", "version": "2.12.8", "proto": 1, "max_payload": 1 << 20, "headers": True}
        info |= {"nonce": self._nonce, "tls_required": True, "auth_required": True}
        with contextlib.suppress(OSError, ConnectionError, asyncio.IncompleteReadError):
            writer.write(b"INFO " + json.dumps(info).encode() + b"\r\n")
            context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
            pki = self._sandbox.directory / "pki"
            context.load_cert_chain(pki / "edge.pem", pki / "edge.key")
            await writer.start_tls(context)
            message = await reader.readuntil(b"\r\n")
            if message.startswith(b"CONNECT") and not self.connect.done():
                self.connect.set_result(message)
        writer.close()


class Thief:
    """A connection to the fleet's listener; TLS demands a member's certificate."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, info: dict[str, Any]) -> None:
        self._reader = reader
        self._writer = writer
        self.nonce: str = info["nonce"]

    @staticmethod
    async def reach(sandbox: Sandbox) -> Thief:
        url = urlsplit(sandbox.fleet_url)
        reader, writer = await asyncio.open_connection(url.hostname, url.port)
        info = json.loads((await reader.readuntil(b"\r\n")).partition(b" ")[2])
        member = sandbox.credentials("fleet")
        await writer.start_tls(member.tls(), server_hostname=url.hostname)
        return Thief(reader, writer, info)

    async def log_in(self, connect: bytes) -> str:
        """Send the CONNECT line; return the account in which the fleet's server places it, or the error."""
        self._writer.write(connect + b"PING\r\n")
        account = ""
        async with asyncio.timeout(HANG_SECONDS):
            while line := await self._reader.readline():
                if line.startswith(b"INFO"):
                    account = json.loads(line.partition(b" ")[2]).get("remote_account", "")
                if line.startswith(b"PONG") and account:
                    return account
                if line.startswith(b"PONG"):
                    self._writer.write(b"PING\r\n")
                if line.startswith(b"-ERR"):
                    return line.decode().strip()
        return "closed"

    async def close(self) -> None:
        self._writer.close()
        with contextlib.suppress(OSError, ConnectionError):
            await self._writer.wait_closed()


async def relayed(sandbox: Sandbox) -> tuple[str, bytes]:
    """Send a CONNECT of the service to the fleet; return the result of the login, and the line."""
    await sandbox.servers["edge"].__aexit__(None, None, None)
    thief = await Thief.reach(sandbox)
    try:
        async with Relay(sandbox, thief.nonce).listening() as relay, asyncio.timeout(HANG_SECONDS):
            message = await relay.connect
        return await thief.log_in(message), message
    finally:
        await thief.close()


async def test_signature_for_an_edge_is_useless_at_the_fleet(tmp_path: Path) -> None:
    """The fleet's nonce, shown by the thief to the service, comes back signed with a key the fleet does not know."""
    async with Sandbox(tmp_path, Topology.EDGE) as sandbox:
        answer, message = await relayed(sandbox)
        assert b'"sig"' in message
        # The fleet does not know the edge's service user; only the certificate counts, which the thief had before.
        assert answer == "choria"
        record = sandbox.audit_record("broker-auth")
        assert record is not None
        assert (record.rule, record.account) == ("verified_tls", "choria")
        for number in range(10):
            await (await connect(sandbox.fleet_url, f"m{number}", sandbox.credentials("fleet"))).close()


async def test_fleet_logs_in_during_attacks_by_a_stolen_edge(tmp_path: Path) -> None:
    """The edge claims chains with costly keys, as fast as it can, reads no answer, and delays a reload.

    Logins succeed only within the fleet's own time limit for them, which bounds how long each may take.
    """
    async with Sandbox(tmp_path, Topology.EDGE) as sandbox:
        await sandbox.servers["edge"].__aexit__(None, None, None)
        async with stolen(sandbox) as edge:
            flooding = asyncio.create_task(flood(sandbox, edge))
            await eventually(lambda: "edge" in zones(sandbox))
            for number in range(30):
                if number == 10:
                    sandbox.service.signal(signal.SIGHUP)
                await (await connect(sandbox.fleet_url, f"member{number}", sandbox.credentials("fleet"))).close()
            assert "not reloaded" not in await sandbox.service.logged(r"\(zone fleet\)")
            assert not flooding.done()
            flooding.cancel()
            await asyncio.gather(flooding, return_exceptions=True)
        assert zones(sandbox, "admit") == {"fleet"}


def zones(sandbox: Sandbox, *decisions: str) -> set[str]:
    """Return the zones that have decided about connections; of some decisions only, if any are named."""
    return {record.zone for record in sandbox.audit_records() if not decisions or record.decision in decisions}


@contextlib.asynccontextmanager
async def stolen(sandbox: Sandbox) -> AsyncIterator[HostileBroker]:
    """Run a hostile broker in place of the edge; yield it once the service has subscribed there."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    pki = sandbox.directory / "pki"
    context.load_cert_chain(pki / "edge.pem", pki / "edge.key")
    port = urlsplit(sandbox.deployment.settings.brokers[1].urls[0]).port
    assert port
    async with HostileBroker(port, tls=context).listening() as edge:
        async with asyncio.timeout(HANG_SECONDS):
            await edge.subscribed.wait()
        yield edge


async def flood(sandbox: Sandbox, edge: HostileBroker) -> None:
    """Send requests endlessly, without reading the answers."""
    seed = sandbox.deployment.settings.zone("edge").xkey_seed
    assert seed
    service = decode_public(public_nkey(seed.reveal()), NkeyKind.CURVE)
    server, chain = Server(), fleet_chain()
    asks = (fleet(chains=(chain,) * 8), fleet(), provisioner(), node())
    while True:
        wires = [server.sealed(asked, service, now=int(time.time())) for asked in asks]
        try:
            for data, xkey in wires * 25:
                edge.ask(data, "_INBOX.flood", header=b"Nats-Server-Xkey: " + xkey.encode())
            if edge.reading:
                edge.stop_reading()
            await edge.flush()
            await asyncio.sleep(0)
        except (OSError, KeyError, AttributeError):  # a TLS connection that has ended (CPython 3.11)
            await asyncio.sleep(0.05)  # the service has dropped this connection, and makes another


async def test_relay_opens_the_callout_account_if_the_edge_shares_the_fleets_keys(tmp_path: Path) -> None:
    """This attack works if an edge has the fleet's keys; `config check` warns of that."""
    changes = {f"plugin.broker_auth.zone.edge.{key}": None for key in _ZONE_KEYS}
    async with Sandbox(tmp_path, Topology.EDGE, changes=changes) as sandbox:
        answer, _ = await relayed(sandbox)
        assert answer == "AUTH"


_ZONE_KEYS = (
    "nkey_seed_file",
    "issuer_seed_file",
    "xkey_seed_file",
    "break_glass_nkey",
    "kick_nkey",
    "kick_seed_file",
)
