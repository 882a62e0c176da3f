"""Sessions end on three fleet servers and two edges, also where one server or edge does not answer."""

from __future__ import annotations

import asyncio
import hashlib
import signal
import ssl
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio
from nats.aio.client import Client

from broker_auth.audit.reader import read_recent_decisions
from broker_auth.audit.record import AuditRecord
from broker_auth.natsio.client import SecuredClient
from broker_auth.operate.logins import Login, connect
from broker_auth.operate.revoked_sessions import RevokedSessions, SessionTarget
from broker_auth.operate.sessions import FoundSessions, SessionEnder
from broker_auth.policy.revocations import Revocation, RevocationKind
from broker_auth.secret import Secret
from tests.deadlines import HANG_SECONDS
from tests.operate.cluster import FLEET, ClusterDeployment

pytestmark = [pytest.mark.e2e, pytest.mark.asyncio(loop_scope="module")]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def cluster(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[ClusterDeployment]:
    deployment = ClusterDeployment(tmp_path_factory.mktemp("cluster"))
    with deployment.running():
        yield deployment


class Connections:
    """Members with the service's certificate or another one, and nodes with one of two tokens."""

    def __init__(self, cluster: ClusterDeployment, label: str) -> None:
        """Connect nothing yet; the label is part of the nodes' names."""
        self.cluster = cluster
        self.label = label
        self.tokens = [cluster.provisioning_token(), cluster.provisioning_token()]
        self.concerned: list[Client] = []
        self.others: list[Client] = []

    async def open(self) -> None:
        """Connect a concerned member and another one to each fleet server, and such nodes to each edge."""
        for name in FLEET:
            self.concerned.append(await self._member(name, "client"))
            self.others.append(await self._member(name, "provisioner"))
        for name in ("edge", "edge2"):
            self.concerned.append(await self._node(name, f"leaked.{self.label}.{name}", self.tokens[0]))
            self.others.append(await self._node(name, f"node.{self.label}.{name}", self.tokens[1]))

    async def _member(self, server: str, pair: str) -> SecuredClient:
        directory = self.cluster.directory
        access = self.cluster.access(certificate=directory / f"{pair}.pem", key=directory / f"{pair}.key")
        tls = access.tls(access.settings.brokers[0])
        return await connect(self.cluster.url(server), Login(what="a member"), tls, seconds=HANG_SECONDS)

    async def _node(self, edge: str, name: str, token: str) -> SecuredClient:
        login = Login(what="a node", token=Secret(token), name=name)
        tls = self.cluster.access().tls(self.cluster.settings().brokers[1])
        return await connect(self.cluster.url(edge), login, tls, seconds=HANG_SECONDS)

    async def close(self) -> None:
        for client in (*self.concerned, *self.others):
            await client.close()

    async def records(self, count: int) -> list[AuditRecord]:
        """Return the records of these nodes, once all are written."""
        files = self.cluster.settings().audit_files
        async with asyncio.timeout(HANG_SECONDS):
            while True:
                records = [record for file in files if file.exists() for record in read_recent_decisions(file)]
                nodes = [record for record in records if f".{self.label}." in record.name]
                if len(nodes) >= count:
                    return nodes
                await asyncio.sleep(0.05)

    async def revoke(self) -> FoundSessions:
        """End the sessions of the concerned certificate and token."""
        nodes = await self.records(4)
        (token_id,) = {record.token_id for record in nodes if record.name.startswith("leaked.")}
        pem = (self.cluster.directory / "client.pem").read_text()
        fingerprint = hashlib.sha256(ssl.PEM_cert_to_DER_cert(pem)).hexdigest()
        entries = [
            Revocation(kind=RevocationKind.TOKEN_ID, value=token_id),
            Revocation(kind=RevocationKind.CERTIFICATE, value=fingerprint),
        ]
        access = self.cluster.access(kick=self.cluster.kick_seeds)
        files = access.settings.audit_files
        selector = RevokedSessions(
            access.settings,
            SessionTarget(entries, {}),
            lambda: [record for file in files for record in read_recent_decisions(file)],
        )
        async with SessionEnder(access, selector) as ender:
            return await ender.end()


async def ended(client: Client) -> None:
    async with asyncio.timeout(HANG_SECONDS):
        while not client.is_closed:
            await asyncio.sleep(0.01)


async def test_sessions_end_on_every_server_and_edge(cluster: ClusterDeployment) -> None:
    connections = Connections(cluster, "all")
    await connections.open()
    result = await connections.revoke()
    assert result.missing == ()
    assert {one.server for one in result.chosen} == {*FLEET, "edge", "edge2"}
    assert len(result.chosen) == len(connections.concerned)
    for client in connections.concerned:
        await ended(client)
    for client in connections.others:
        await client.flush()
    await connections.close()


async def test_silent_servers_are_named_and_delay_nothing_else(cluster: ClusterDeployment) -> None:
    connections = Connections(cluster, "frozen")
    await connections.open()
    await connections.records(4)
    cluster.servers["fleet3"].signal(signal.SIGSTOP)
    cluster.servers["edge2"].signal(signal.SIGSTOP)
    try:
        result = await connections.revoke()
        assert any("broker edge2 was not asked" in line for line in result.missing)
        assert any("broker fleet" in line and "2 of 3 servers answered" in line for line in result.missing)
        assert {one.server for one in result.chosen} == {"fleet1", "fleet2", "edge"}
        for client in (*connections.concerned[:2], connections.concerned[3]):
            await ended(client)
    finally:
        for name in ("fleet3", "edge2"):
            cluster.servers[name].signal(signal.SIGCONT)
    await connections.close()
