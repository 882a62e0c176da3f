"""Three fleet servers, two edges and two hosts of the service: revoked on one host is revoked everywhere, at once."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import pytest
from nats.aio.client import Client

from broker_auth.natsio.client import SecuredClient
from broker_auth.sandbox.client import ConnectRefusedError, Credentials, connect
from broker_auth.sandbox.identities import Identity, Issuer
from broker_auth.settings.revocation_store import create
from broker_auth.tokens.bounds import Bounds
from broker_auth.tokens.issue import new_seed, signing_key_from_seed
from tests.callout.deployment import eventually
from tests.deadlines import HANG_SECONDS
from tests.hosts.two_hosts import KEYS, Host, apply_buckets
from tests.operate.cluster import EDGES, FLEET, ClusterDeployment

pytestmark = pytest.mark.e2e
EVERYWHERE: Final = "in force on every other host"
REVOKED: Final = ("node", "server", "server2", "chained", "dave")
BY_RECORD: Final = ("node", "server2", "chained")  # nats-server does not show what let them in
ATTEMPTS: Final = 3  # of which each host decides some


@dataclass(frozen=True, slots=True)
class Session:
    """A client, the server that it is connected to, and what to revoke to end its session."""

    name: str
    server: str
    credentials: Credentials
    what: tuple[object, ...]


class ClusterOfHosts:
    """The deployment with both hosts running, and a session of each kind."""

    def __init__(self, directory: Path) -> None:
        self.deployment = ClusterDeployment(directory)
        key = signing_key_from_seed(new_seed(), "issuer")
        self.issuer = Issuer(key)
        self.deployment.write_config(
            *KEYS,
            "plugin.security.issuer.names = choria",
            f"plugin.security.issuer.choria.public = {key.public_hex}",
        )
        self.deployment.write_secret("edge2-break-glass.seed", self.deployment.edge2_break_glass)
        create(directory / "revoked.json")
        self.hosts = [Host(self.deployment.config, name) for name in ("first", "second")]
        self.authority = self.deployment.authority
        self.authority.client("dave.example.net").write(directory, "dave")
        self.sessions = {session.name: session for session in self._sessions()}

    def _sessions(self) -> Iterator[Session]:
        directory, member = self.deployment.directory, "client"
        node = self.issuer.node_token()
        (directory / "node.jwt").write_text(node)
        ca = directory / "ca.pem"

        def at_fleet(identity: Identity, pair: str = member) -> Credentials:
            files = directory / f"{pair}.pem", directory / f"{pair}.key"
            return Credentials(ca=ca, certificate=files[0], key=files[1], token=identity.token, seed=identity.seed)

        yield Session("node", "edge", Credentials(ca=ca, token=node), ("token", directory / "node.jwt"))
        server = at_fleet(self.issuer.server("s1.example.net"))
        yield Session("server", "fleet1", server, ("identity", "s1.example.net"))
        token = self.issuer.server("s2.example.net")
        (directory / "server2.jwt").write_text(token.token)
        yield Session("server2", "fleet3", at_fleet(token), ("token", directory / "server2.jwt"))
        yield Session(
            "chained", "fleet1", at_fleet(self.issuer.client_by_chain("up=carol")), ("chain-issuer", "", "--yes")
        )
        yield Session(
            "dave", "fleet2", at_fleet(self.issuer.client("up=dave"), "dave"), ("certificate", directory / "dave.pem")
        )
        yield Session("other", "fleet1", at_fleet(self.issuer.client("up=bob")), ())
        yield Session("node2", "edge2", Credentials(ca=ca, token=self.issuer.node_token(validity=3600)), ())

    @contextlib.contextmanager
    def running(self) -> Iterator[ClusterOfHosts]:
        with self.deployment.running(service=False):
            asyncio.run(apply_buckets(self.deployment.settings(), len(FLEET)))
            with self.hosts[0].service, self.hosts[1].service:
                yield self

    async def connect(self, session: Session, server: str = "") -> Client:
        return await connect(self.deployment.url(server or session.server), session.name, session.credentials)

    async def is_admitted(self, name: str, server: str = "") -> bool:
        """Return whether a client is admitted, in every attempt or in none."""
        results = set()
        for _ in range(ATTEMPTS):
            try:
                await (await self.connect(self.sessions[name], server)).close()
            except ConnectRefusedError:
                results.add(False)
            else:
                results.add(True)
        assert len(results) == 1
        return results.pop()

    async def admits_node(self, name: str, token: str, server: str = "edge") -> bool:
        """Return whether a node is admitted by a token."""
        node = Credentials(ca=self.deployment.directory / "ca.pem", token=token)
        try:
            await (await connect(self.deployment.url(server), name, node)).close()
        except ConnectRefusedError:
            return False
        return True

    async def what(self, name: str) -> tuple[object, ...]:
        """Return the arguments that revoke what admitted a session; a chain issuer's id is in the audit records."""
        kind, value, *options = self.sessions[name].what
        if kind == "chain-issuer":
            value = await eventually(lambda: self._issuer_id(name))
        return kind, value, *options

    def _issuer_id(self, name: str) -> str:
        return next((one.issuer_id for host in self.hosts for one in host.admissions(name)), "")

    async def without_record(self, name: str, client: Client) -> Host | None:
        """Return the host that did not admit a session; None if both answered nats-server."""
        assert isinstance(client, SecuredClient)

        def admitted_by() -> list[Host]:
            session = client.server_id, client.client_id
            records = [(host, (one.server_id, one.cid)) for host in self.hosts for one in host.admissions(name)]
            return [host for host, of in records if of == session]

        admitting = await eventually(admitted_by)
        return next(host for host in self.hosts if host not in admitting) if len(admitting) == 1 else None

    def seeds(self) -> list[object]:
        names = ("break-glass.seed", "edge-break-glass.seed", "edge2-break-glass.seed")
        return [part for name in names for part in ("--break-glass", self.deployment.directory / name)]


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ClusterOfHosts]:
    with ClusterOfHosts(tmp_path_factory.mktemp("cluster")).running() as running:
        yield running


@contextlib.asynccontextmanager
async def connected(cluster: ClusterOfHosts, *names: str) -> AsyncIterator[dict[str, Client]]:
    clients = {name: await cluster.connect(cluster.sessions[name]) for name in names}
    try:
        yield clients
    finally:
        for client in clients.values():
            await client.close()


async def gone(client: Client) -> None:
    await eventually(lambda: client.is_closed)


async def test_everything_revoked_is_gone_everywhere_and_comes_back_when_restored(cluster: ClusterOfHosts) -> None:
    async with connected(cluster, *cluster.sessions) as clients:
        for number, name in enumerate(REVOKED):
            host = cluster.hosts[number % 2]
            if name in BY_RECORD:  # the record of what let it in is on the other host
                while (other := await cluster.without_record(name, clients[name])) is None:
                    await clients[name].close()
                    clients[name] = await cluster.connect(cluster.sessions[name])
                host = other
            done = await host.command("revoke", *await cluster.what(name), *cluster.seeds())
            assert (done.code, EVERYWHERE in done.out) == (0, True), (name, done.out, done.err)
            assert "ended 1 session\n" in done.out, done.out
            await gone(clients.pop(name))
            for client in clients.values():
                await client.flush()
            for server in EDGES if name == "node" else FLEET:
                assert not await cluster.is_admitted(name, server), (name, server)
        assert sorted(clients) == ["node2", "other"]
        for client in clients.values():
            await client.flush()
    for number, name in enumerate(REVOKED):
        await restore(cluster, name, cluster.hosts[number % 2])
        assert await cluster.is_admitted(name)


async def restore(cluster: ClusterOfHosts, name: str, host: Host) -> None:
    kind, value, *_ = await cluster.what(name)
    done = await host.command("restore", kind, value)
    assert (done.code, EVERYWHERE in done.out) == (0, True), (name, done.out, done.err)


async def test_token_for_two_nodes_admits_two_at_all_edges_and_hosts_together(cluster: ClusterOfHosts) -> None:
    token = cluster.issuer.node_token(bounds=Bounds(max_nodes=2))

    async def login(name: str, server: str) -> str:
        return name if await cluster.admits_node(name, token, server) else ""

    names = [f"counted{number}" for number in range(4)]
    servers = [*EDGES, *EDGES]
    at_each: dict[str, set[str]] = {server: set() for server in EDGES}
    async with asyncio.timeout(HANG_SECONDS):  # on a busy machine a node may not be counted in time, and comes again
        while any(len(admitted) < 2 for admitted in at_each.values()):
            for server, name in zip(servers, await asyncio.gather(*map(login, names, servers)), strict=True):
                at_each[server] |= {name} - {""}
            servers.reverse()  # the next time each node at the other edge
    assert len(at_each["edge"] | at_each["edge2"]) == 2


async def test_revoked_stays_so_while_streams_are_stopped(cluster: ClusterOfHosts) -> None:
    """Without two of three servers nothing can be written to the bucket, and the files of the hosts count."""
    first, second = cluster.hosts
    done = await first.command("revoke", *await cluster.what("node"), *cluster.seeds())
    assert done.code == 0, done.err
    numbered, unused = [
        cluster.issuer.node_token(bounds=Bounds(max_nodes=3), validity=validity) for validity in (3600, 7200)
    ]
    async with asyncio.timeout(HANG_SECONDS):
        while not await cluster.admits_node("counted", numbered):
            pass
    for name in FLEET[1:]:
        await asyncio.to_thread(cluster.deployment.servers[name].kill)
    await eventually(lambda: all("were not exchanged" in str(host.troubles()) for host in cluster.hosts))
    async with connected(cluster, "server", "other", "node2") as clients:
        done = await first.command("revoke", *await cluster.what("server"), *cluster.seeds())
        assert done.code == 1
        assert "other hosts may not know yet" in done.err
        await gone(clients.pop("server"))
        done = await second.command("revoke", *await cluster.what("server"), "--sessions", "none")
        assert done.code == 1
        async with asyncio.timeout(HANG_SECONDS):  # by the host that counted it
            while not await cluster.admits_node("counted", numbered):
                pass
        for token in (numbered, unused) * ATTEMPTS:
            assert not await cluster.admits_node("new", token)
        await second.service.stop()
        await second.service.start()  # by its file
        for name in ("node", "server"):
            assert not await cluster.is_admitted(name)
        for client in clients.values():
            await client.flush()
        assert await cluster.is_admitted("chained")
    for name in FLEET[1:]:
        await asyncio.to_thread(cluster.deployment.start, name)
    await eventually(lambda: not any(host.troubles() for host in cluster.hosts))
    assert not await cluster.is_admitted("node", "edge2")
    assert not await cluster.is_admitted("server")
    for name in ("node", "server"):
        await restore(cluster, name, second)
        assert await cluster.is_admitted(name)
