"""A complete deployment on this machine: servers, service, credentials. Used by the demo and by tests.

Everything runs on loopback in one directory: the files written by :mod:`broker_auth.deploy.init`, nats-server
processes with its configurations, and ``broker-auth serve`` as a separate process.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from contextlib import AsyncExitStack
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Final

import msgspec

from broker_auth.audit.record import AuditRecord, Record
from broker_auth.deploy.init import Deployment, initialize
from broker_auth.deploy.pki import CertificateAuthority
from broker_auth.deploy.plan import Edge, Plan, Topology
from broker_auth.deploy.render import render
from broker_auth.files.writing import write_private
from broker_auth.operate.access import Access
from broker_auth.operate.streams import plan as streams
from broker_auth.operate.streams.change import change_buckets
from broker_auth.sandbox.client import Credentials, connect
from broker_auth.sandbox.identities import Issuer
from broker_auth.sandbox.natsserver import NatsServer, free_port
from broker_auth.sandbox.service import ServiceProcess
from broker_auth.settings.load import load
from broker_auth.settings.model import FleetAuth, Role, Settings
from broker_auth.tokens.issue import DEFAULT_ORGANIZATION, SigningKey, load_signing_key, new_seed, signing_key_from_seed

_RECORD_SECONDS: Final = 15.0  # an idle machine writes records within milliseconds after the answer
_LOOK_SECONDS: Final = 0.02
_EDGE_AND_GATE: Final = (Edge("edge", "127.0.0.1"), Edge("gate", "127.0.0.1", Role.GATE))


class Sandbox:
    """A deployment on this machine; an async context manager that starts and stops its processes."""

    def __init__(
        self,
        directory: Path,
        topology: Topology = Topology.EDGE,
        *,
        issuer: bool = False,
        gate: bool = False,
        changes: Mapping[str, str | None] | None = None,
        fleet_auth: FleetAuth = FleetAuth.CALLOUT,
    ) -> None:
        """Write the deployment into ``directory``, without starting it.

        Args:
            directory: an empty or missing directory.
            topology: the topology of the deployment.
            issuer: run it in issuer mode, as the single topology always is.
            gate: add a gate to the edge topology.
            changes: keys of ``broker.conf`` to be set, or removed if the value is None.
            fleet_auth: how the fleet's servers authorize connections.
        """
        self.directory = directory
        self.topology = topology
        self.audit_file = directory / "audit.jsonl"
        audit: dict[str, str | None] = {"plugin.broker_auth.audit.output": f"file:{self.audit_file}"}
        self.deployment = _write(
            directory, topology, audit | dict(changes or {}), issuer=issuer, gate=gate, fleet_auth=fleet_auth
        )
        self.servers = {
            name: NatsServer(file, log_file=directory / f"{name}.log") for name, file in self.deployment.servers.items()
        }
        zones = len(self.deployment.settings.served_zones)
        self.service = ServiceProcess(self.deployment.configuration, directory / "serve.log", zones=zones)
        self._stack = AsyncExitStack()

    @property
    def settings(self) -> Settings:
        """The settings in ``broker.conf``."""
        return self.deployment.settings

    @property
    def ca(self) -> Path:
        """The CA that clients verify the servers with."""
        return self._pki("ca.pem")

    @property
    def fleet_url(self) -> str:
        """URL for the fleet."""
        return self.settings.brokers[0].urls[0]

    @property
    def node_url(self) -> str:
        """URL for unprovisioned nodes."""
        if self.topology is Topology.WEBSOCKET:
            return f"wss://{self.settings.brokers[0].server.websocket_listen}"
        return self._url(Role.EDGE) if self.topology is Topology.EDGE else self.fleet_url

    @property
    def gate_url(self) -> str:
        """URL for members without a certificate, in a sandbox with a gate."""
        return self._url(Role.GATE)

    def _url(self, role: Role) -> str:
        return next(broker.urls[0] for broker in self.settings.brokers if broker.role is role)

    async def __aenter__(self) -> Sandbox:
        """Start the servers, then the service."""
        try:
            for server in self.servers.values():
                await self._stack.enter_async_context(server)
            self._stack.push_async_callback(self.service.stop)
            await self.service.start()
        except BaseException:
            await self._stack.aclose()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Stop everything, the service first."""
        await self._stack.aclose()

    async def apply_streams(self) -> None:
        """Create the fleet's streams and buckets, like ``broker-auth streams apply``.

        Raises:
            OperationError: JetStream refused.
        """
        client = await connect(self.fleet_url, "streams", self.credentials("fleet"))
        try:
            await streams.apply(client, await streams.plan(client, streams.target_streams(self.settings.streams, 1)))
        finally:
            await client.close()
        if self.settings.buckets:
            service = await Access(settings=self.settings).callout(self.settings.brokers[0])
            try:
                await change_buckets(service, self.settings, 1, dry_run=False)
            finally:
                await service.close()

    @property
    def issuer(self) -> Issuer:
        """Issuer of tokens for servers and clients; in issuer mode also for nodes."""
        return Issuer(self._signing_key("issuer.seed"))

    @property
    def node_issuer(self) -> Issuer:
        """Issuer of provisioning tokens."""
        return self.issuer if self.settings.issuer_mode else Issuer(self._signing_key("signer.key"))

    def credentials(self, who: str) -> Credentials:
        """Return valid credentials of ``fleet``, ``provisioner``, ``system`` or ``node``."""
        if who == "node":
            return Credentials(ca=self.ca, token=self.node_issuer.node_token())
        user, password = {
            "fleet": ("", ""),
            "provisioner": ("provisioner", self.settings.provisioning.client_passwords[0].reveal()),
            "system": (self.settings.system_user or "", self.settings.system_passwords[0].reveal()),
        }[who]
        credentials = Credentials(ca=self.ca, user=user, password=password)
        if self.settings.issuer_mode:
            permission = {"fleet": "org_admin", "provisioner": "provisioner", "system": "system_user"}[who]
            identity = self.issuer.client(f"up={who}", permission)
            credentials = replace(credentials, token=identity.token, seed=identity.seed)
        if self.topology is not Topology.SINGLE:
            name = {"fleet": "member", "provisioner": "provisioner", "system": "operator"}[who]
            credentials = replace(credentials, certificate=self._pki(f"{name}.pem"), key=self._pki(f"{name}.key"))
        return credentials

    def foreign_pair(self, name: str) -> tuple[Path, Path]:
        """Create a client certificate of another CA with the same name as ours; return certificate and key."""
        return CertificateAuthority.create().client(name).write(self.directory, "foreign")

    def audit_records(self) -> list[AuditRecord]:
        """Return all decisions that are completely written."""
        decoder: msgspec.json.Decoder[Record] = msgspec.json.Decoder(Record)
        files = [path for path in self.deployment.settings.audit_files if path.exists()]
        records = [decoder.decode(line) for path in files for line in path.read_bytes().split(b"\n")[:-1]]
        decisions = [record for record in records if isinstance(record, AuditRecord)]
        return sorted(decisions, key=lambda record: record.time)

    def audit_record(
        self, client: str, seconds: float = _RECORD_SECONDS, *, after: AuditRecord | None = None
    ) -> AuditRecord | None:
        """Return the last decision about a connection of this name; wait up to ``seconds`` for one to be written.

        With ``after`` one later than that.
        """
        deadline = time.monotonic() + seconds
        while True:
            for record in reversed(self.audit_records()):
                if client in (record.client, record.name):
                    if record == after:
                        break
                    return record
            if time.monotonic() > deadline:
                return None
            time.sleep(_LOOK_SECONDS)

    def _signing_key(self, file: str) -> SigningKey:
        return load_signing_key(self._pki(file).read_bytes(), file)

    def _pki(self, name: str) -> Path:
        return self.directory / "pki" / name


def _write(
    directory: Path,
    topology: Topology,
    changes: dict[str, str | None],
    *,
    issuer: bool,
    gate: bool,
    fleet_auth: FleetAuth,
) -> Deployment:
    plan = Plan(
        directory=directory,
        topology=topology,
        dev_pki=True,
        issuers=((DEFAULT_ORGANIZATION, ""),) if issuer else (),
        port=free_port(),
        edge_port=free_port(),
        gate_port=free_port(),
        named_edges=_EDGE_AND_GATE if gate else (),
        listen="127.0.0.1",
        leaf_port=free_port(),
        websocket_port=free_port(),
        fleet_auth=fleet_auth,
    )
    deployment = initialize(plan)
    if not deployment.settings.issuer_mode:  # in issuer mode the organization's issuer signs all tokens
        changes = _token_signer(directory) | changes
    return change(deployment, changes)


def _token_signer(directory: Path) -> dict[str, str | None]:
    """Create the key that signs tokens of servers and clients; return the keys that configure it."""
    seed = new_seed()
    write_private(directory / "pki" / "issuer.seed", seed.reveal().encode())
    public = signing_key_from_seed(seed, "issuer").public_hex
    return {"plugin.choria.network.client_signer_cert": public, "plugin.choria.network.server_signer_cert": public}


def change(deployment: Deployment, changes: Mapping[str, str | None]) -> Deployment:
    """Set or remove (None) keys of ``broker.conf``, and render the servers' configurations again."""
    lines = deployment.configuration.read_text().splitlines()
    kept = [line for line in lines if line.partition("=")[0].strip() not in changes]
    added = [f"{key} = {value}" for key, value in changes.items() if value is not None]
    deployment.configuration.write_text("\n".join([*kept, *added, ""]))
    settings = load(deployment.configuration, {}, serving=True)
    for broker in settings.brokers:
        deployment.servers[broker.name].write_text(render(settings, broker))
    return replace(deployment, settings=settings)
