"""Whoever has taken an edge, with every key and certificate on it, and what that is worth against the fleet.

The thief is written here: it speaks NATS by itself and does what no honest server does.
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
    """Poses as the edge towards the service, and shows it the fleet's nonce.

    Attributes:
        connect: what the service said in CONNECT, signature and all.
    """

    def __init__(self, site: Sandbox, nonce: str) -> None:
        self._site = site
        self._nonce = nonce
        self.connect: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()

    @contextlib.asynccontextmanager
    async def listening(self) -> AsyncIterator[Relay]:
        url = urlsplit(self._site.deployment.settings.brokers[1].urls[0])
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
            pki = self._site.directory / "pki"
            context.load_cert_chain(pki / "edge.pem", pki / "edge.key")
            await writer.start_tls(context)
            said = await reader.readuntil(b"\r\n")
            if said.startswith(b"CONNECT") and not self.connect.done():
                self.connect.set_result(said)
        writer.close()


class Thief:
    """A connection to the fleet's listener, with the certificate of a member to be let through TLS at all."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, info: dict[str, Any]) -> None:
        self._reader = reader
        self._writer = writer
        self.nonce: str = info["nonce"]

    @staticmethod
    async def reach(site: Sandbox) -> Thief:
        url = urlsplit(site.fleet_url)
        reader, writer = await asyncio.open_connection(url.hostname, url.port)
        info = json.loads((await reader.readuntil(b"\r\n")).partition(b" ")[2])
        member = site.credentials("fleet")
        await writer.start_tls(member.tls(), server_hostname=url.hostname)
        return Thief(reader, writer, info)

    async def log_in(self, connect: bytes) -> str:
        """The account that the fleet's server puts it in, or why it does not."""
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


async def relayed(site: Sandbox) -> tuple[str, bytes]:
    """Where the fleet puts who says what the service signs for the edge, and what that was."""
    await site.servers["edge"].__aexit__(None, None, None)
    thief = await Thief.reach(site)
    try:
        async with Relay(site, thief.nonce).listening() as relay, asyncio.timeout(HANG_SECONDS):
            said = await relay.connect
        return await thief.log_in(said), said
    finally:
        await thief.close()


async def test_what_the_service_signs_for_an_edge_opens_nothing_at_the_fleet(tmp_path: Path) -> None:
    """The fleet's nonce, shown by the thief to the service, comes back signed with a key the fleet does not know."""
    async with Sandbox(tmp_path, Topology.EDGE) as site:
        answer, said = await relayed(site)
        assert b'"sig"' in said
        # The service's own user is none there: what is left is the certificate that the thief had already.
        assert answer == "choria"
        record = site.audit_record("broker-auth")
        assert record is not None
        assert (record.rule, record.account) == ("verified_tls", "choria")
        for number in range(10):
            await (await connect(site.fleet_url, f"m{number}", site.credentials("fleet"))).close()


async def test_the_fleet_logs_in_while_a_stolen_edge_does_its_worst(tmp_path: Path) -> None:
    """It claims verified chains with costly keys, as fast as it can, reads no answer, and says no to a reload.

    Logins succeed only within the fleet's own time limit for them, which bounds how long each may take.
    """
    async with Sandbox(tmp_path, Topology.EDGE) as site:
        await site.servers["edge"].__aexit__(None, None, None)
        async with stolen(site) as edge:
            flooding = asyncio.create_task(flood(site, edge))
            await eventually(lambda: "edge" in zones(site))
            for number in range(30):
                if number == 10:
                    site.service.signal(signal.SIGHUP)
                await (await connect(site.fleet_url, f"member{number}", site.credentials("fleet"))).close()
            assert "not reloaded" not in await site.service.logged(r"\(zone fleet\)")
            assert not flooding.done()
            flooding.cancel()
            await asyncio.gather(flooding, return_exceptions=True)
        assert zones(site, "admit") == {"fleet"}


def zones(site: Sandbox, *decisions: str) -> set[str]:
    """Return the zones that have decided about connections; of some decisions only, if any are named."""
    return {record.zone for record in site.audit_records() if not decisions or record.decision in decisions}


@contextlib.asynccontextmanager
async def stolen(site: Sandbox) -> AsyncIterator[HostileBroker]:
    """The edge in the thief's hands, once the service has subscribed there."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    pki = site.directory / "pki"
    context.load_cert_chain(pki / "edge.pem", pki / "edge.key")
    port = urlsplit(site.deployment.settings.brokers[1].urls[0]).port
    assert port
    async with HostileBroker(port, tls=context).listening() as edge:
        async with asyncio.timeout(HANG_SECONDS):
            await edge.subscribed.wait()
        yield edge


async def flood(site: Sandbox, edge: HostileBroker) -> None:
    """Ask without end, and read nothing of what comes back."""
    seed = site.deployment.settings.zone("edge").xkey_seed
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
        except (OSError, KeyError, AttributeError):  # the last of a TLS connection that has ended (CPython 3.11)
            await asyncio.sleep(0.05)  # the service has dropped this connection, and makes another


async def test_with_the_fleets_keys_at_the_edge_the_relay_opens_the_callout_account(tmp_path: Path) -> None:
    """The attack works where an edge has no keys of its own: it is what `config check` warns of."""
    changes = {f"plugin.broker_auth.zone.edge.{key}": None for key in _ZONE_KEYS}
    async with Sandbox(tmp_path, Topology.EDGE, changes=changes) as site:
        answer, _ = await relayed(site)
        assert answer == "AUTH"


_ZONE_KEYS = ("nkey_seed_file", "issuer_seed_file", "xkey_seed_file", "break_glass_nkey")
