"""A host that serves an edge alone, with none of the fleet's keys, follows what is revoked on a host of the fleet."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from nats.aio.client import Client

from broker_auth.deploy.pki import CertificateAuthority
from broker_auth.natsio.nkey import NkeyKind, generate_seed, public_nkey
from broker_auth.sandbox.client import ConnectRefusedError, Credentials, connect
from broker_auth.settings.revocation_store import create
from tests.callout.deployment import eventually
from tests.hosts.two_hosts import KEYS, Host, apply_buckets
from tests.operate.deployment import EdgeDeployment

pytestmark = pytest.mark.e2e
NOBODY = ("--sessions", "none")
EVERYWHERE = "in force on every other host"
# All that the host of the edge has; the certificates of CAs and of the signer are public.
FILES = ("edge-user.seed", "edge-account.seed", "edge-curve.seed", "ca.pem", "signer.pem")
READER = ("reader.seed", "reader.pem", "reader.key")


class Apart:
    """The edge topology with a host for each zone, which share no file."""

    def __init__(self, directory: Path) -> None:
        self.deployment = EdgeDeployment(directory)
        seed, other = generate_seed(NkeyKind.USER), CertificateAuthority.create("readers")
        self.deployment.write_secret("reader.seed", seed)
        other.client("edge-host.example.net").write(directory, "reader")
        both = self.deployment.authority.certificate_pem + other.certificate_pem
        (directory / "accepted.pem").write_bytes(both)
        zone = "plugin.broker_auth.zone.edge."
        self.deployment.write_config(
            *KEYS,
            "plugin.broker_auth.broker.fleet.server.tls.ca = accepted.pem",
            f"{zone}reader_nkey = {public_nkey(seed)}",
            f"{zone}reader_seed_file = reader.seed",
            f"{zone}reader_certificate = reader.pem",
            f"{zone}reader_key = reader.key",
        )
        create(directory / "revoked.json")
        self.fleet = Host(self.deployment.config, "fleet-host", "--zone", "fleet")
        self.edge = Host(self._copied(directory / "away"), "edge-host", "--zone", "edge")

    def _copied(self, directory: Path) -> Path:
        """Copy what a host of the edge needs to a directory."""
        directory.mkdir()
        for name in ("broker.conf", *FILES, *READER):
            shutil.copy(self.deployment.directory / name, directory / name)
        create(directory / "revoked.json")
        config = directory / "broker.conf"
        general, fleet = "plugin.broker_auth.tls.", "plugin.broker_auth.broker.fleet.tls."
        text = config.read_text()  # the service's certificate for the fleet is not there
        for name in ("certificate", "key"):
            text = text.replace(f"{general}{name} =", f"{fleet}{name} =")
        config.write_text(text)
        return config

    @contextlib.contextmanager
    def running(self) -> Iterator[Apart]:
        with self.deployment.running(service=False):
            asyncio.run(apply_buckets(self.deployment.settings(), 1))
            with self.fleet.service, self.edge.service:
                yield self

    def token(self) -> str:
        """Return the token of nodes, and write it to a file."""
        text = self.deployment.provisioning_token()
        self.token_file.write_text(text)
        return text

    @property
    def seed(self) -> Path:
        """The seed by which sessions at the edge are ended."""
        return self.deployment.directory / "edge-break-glass.seed"

    @property
    def token_file(self) -> Path:
        """The file with the last token."""
        return self.deployment.directory / "node.jwt"

    async def node(self, token: str) -> Client:
        credentials = Credentials(ca=self.deployment.directory / "ca.pem", token=token)
        return await connect(self.deployment.url("edge"), "n1", credentials)

    async def is_admitted(self, token: str) -> bool:
        try:
            await (await self.node(token)).close()
        except ConnectRefusedError:
            return False
        return True


@pytest.fixture(scope="module")
def apart(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Apart]:
    with Apart(tmp_path_factory.mktemp("apart")).running() as running:
        yield running


async def follows(apart: Apart) -> None:
    await eventually(lambda: not apart.edge.troubles() and not apart.fleet.troubles())


async def test_node_at_the_edge_is_gone_and_kept_out_when_the_command_returns(apart: Apart) -> None:
    await follows(apart)
    token = apart.token()
    node = await apart.node(token)
    try:
        done = await apart.fleet.command(
            "revoke", "token", apart.token_file, "--sessions", "all", "--break-glass", apart.seed
        )
        assert done.code == 0, done.err
        assert EVERYWHERE in done.out
        assert apart.edge.held.records == apart.fleet.held.records
        assert not await apart.is_admitted(token)
        await eventually(lambda: node.is_closed)
    finally:
        await node.close()
    restored = await apart.fleet.command("restore", "token", apart.token_file)
    assert restored.code == 0, restored.err
    assert await apart.is_admitted(token)


async def test_host_of_the_edge_that_does_not_follow_is_named(apart: Apart) -> None:
    await follows(apart)
    os.killpg(apart.edge.service.pid, signal.SIGSTOP)
    try:
        done = await apart.fleet.command("revoke", "node", "n2", *NOBODY)
    finally:
        os.killpg(apart.edge.service.pid, signal.SIGCONT)
    assert done.code == 1
    assert "of zone edge has not confirmed" in done.err
    await eventually(lambda: apart.edge.held.records == apart.fleet.held.records)
    assert (await apart.fleet.command("restore", "node", "n2")).code == 0


async def test_host_of_the_edge_knows_at_its_start_what_was_revoked_meanwhile(apart: Apart) -> None:
    await follows(apart)
    token = apart.token()
    assert await asyncio.to_thread(apart.edge.service.terminate) == 0
    done = await apart.fleet.command("revoke", "token", apart.token_file, *NOBODY)
    assert done.code == 0, done.err  # it said that it was stopped
    await apart.edge.service.start()
    assert not await apart.is_admitted(token)
    assert (await apart.fleet.command("restore", "token", apart.token_file)).code == 0
    assert await apart.is_admitted(token)


async def test_command_on_the_host_of_the_edge_ends_sessions_there_and_says_that_this_is_all(apart: Apart) -> None:
    await follows(apart)
    token = apart.token()
    node = await apart.node(token)
    try:
        done = await apart.edge.command("revoke", "token", apart.token_file, "--break-glass", apart.seed)
        assert "ended 1 session" in done.out, done.err
        await eventually(lambda: node.is_closed)
        assert not await apart.is_admitted(token)
    finally:
        await node.close()
    undone = await apart.edge.command("restore", "token", apart.token_file)
    assert await apart.is_admitted(token)
    without = [
        await apart.edge.command(command, "node", "n3", *options)
        for command, options in (("revoke", NOBODY), ("restore", ()))
    ]
    for one in (done, undone, *without):
        assert one.code == 1
        assert "in force in zone edge on this host" in one.out
        assert "other hosts do not learn of it from here" in one.err
    assert ("node", "n3") not in apart.fleet.held.records
    assert (await apart.edge.command("revoke", "node", "n3", *NOBODY, "--dry-run")).code == 0


async def test_server_that_does_not_know_the_reader_is_reported_until_it_does(apart: Apart) -> None:
    """As before the fleet's configuration was rendered again. The edge goes on with what it knows."""
    await follows(apart)
    server = apart.deployment.servers["fleet"]
    text, nkey = server.config.read_text(), apart.deployment.settings().readers["edge"]
    try:
        server.config.write_text(text.replace(f', "{nkey}"', ""))
        await asyncio.to_thread(server.restart)
        await eventually(lambda: any("refuses the service" in line for line in apart.edge.troubles()))
    finally:
        server.config.write_text(text)
        await asyncio.to_thread(server.restart)
    await follows(apart)
    for command in ("revoke", "restore"):
        done = await apart.fleet.command(command, "node", "n4", *(NOBODY if command == "revoke" else ()))
        assert done.code == 0, done.err
