"""A deployment with an edge, whose servers and service a test starts as it needs them, with faults or without."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

from broker_auth.deploy.pki import CertificateAuthority, signer
from broker_auth.deploy.render import render
from broker_auth.natsio.nkey import NkeyKind, generate_seed, public_nkey
from broker_auth.operate.access import Access
from broker_auth.sandbox.natsserver import NatsServer, free_port
from broker_auth.sandbox.service import READY, ServiceProcess
from broker_auth.secret import Secret
from broker_auth.settings.load import load
from broker_auth.settings.model import Settings
from broker_auth.tokens.bounds import make_bounds
from broker_auth.tokens.issue import load_signing_key, provisioning_claims
from tests.builders.seeds import write_secret, write_zone_seeds

LEAF_NAME: Final = "edge.leaf.example.net"
MEMBER: Final = "member.example.net"
PROVISIONER: Final = "provisioner.example.net"
PASSWORD: Final = "hunter2-provisioner"
SYSTEM_PASSWORD: Final = "hunter2-system"
CONFIG: Final = """\
plugin.choria.network.provisioning.signer_cert = signer.pem
plugin.choria.network.provisioning.client_password = {password}
plugin.choria.network.system.user = admin
plugin.choria.network.system.password = {system_password}
plugin.choria.network.stream.leader_election_ttl = 2s
plugin.broker_auth.client_ca = ca.pem
plugin.broker_auth.provisioner.identities = {provisioner}
plugin.broker_auth.nkey_seed_file = user.seed
plugin.broker_auth.issuer_seed_file = account.seed
plugin.broker_auth.xkey_seed_file = curve.seed
plugin.broker_auth.break_glass_nkey = {break_glass}
plugin.broker_auth.zone.edge.nkey_seed_file = edge-user.seed
plugin.broker_auth.zone.edge.issuer_seed_file = edge-account.seed
plugin.broker_auth.zone.edge.xkey_seed_file = edge-curve.seed
plugin.broker_auth.zone.edge.break_glass_nkey = {edge_break_glass}
plugin.broker_auth.kick_nkey = {kick}
plugin.broker_auth.zone.edge.kick_nkey = {edge_kick}
plugin.broker_auth.audit.output = log, file:audit.json
plugin.broker_auth.tls.ca = ca.pem
plugin.broker_auth.tls.certificate = client.pem
plugin.broker_auth.tls.key = client.key
plugin.broker_auth.brokers = fleet, edge
plugin.broker_auth.broker.fleet.urls = tls://127.0.0.1:{fleet}
plugin.broker_auth.broker.fleet.role = fleet
plugin.broker_auth.broker.fleet.server.listen = 127.0.0.1:{fleet}
plugin.broker_auth.broker.fleet.server.tls.certificate = server.pem
plugin.broker_auth.broker.fleet.server.tls.key = server.key
plugin.broker_auth.broker.fleet.server.tls.ca = ca.pem
plugin.broker_auth.broker.fleet.server.store_dir = js
plugin.broker_auth.broker.fleet.server.leaf.listen = 127.0.0.1:{leaf}
plugin.broker_auth.broker.fleet.server.leaf.tls.ca = leaf-ca.pem
plugin.broker_auth.broker.fleet.server.leaf.user = {leaf_name}
plugin.broker_auth.broker.edge.urls = tls://127.0.0.1:{edge}
plugin.broker_auth.broker.edge.role = edge
plugin.broker_auth.broker.edge.server.listen = 127.0.0.1:{edge}
plugin.broker_auth.broker.edge.server.tls.certificate = edge.pem
plugin.broker_auth.broker.edge.server.tls.key = edge.key
plugin.broker_auth.broker.edge.server.leaf.remotes = tls://127.0.0.1:{leaf}
plugin.broker_auth.broker.edge.server.leaf.tls.ca = ca.pem
plugin.broker_auth.broker.edge.server.leaf.tls.certificate = leaf.pem
plugin.broker_auth.broker.edge.server.leaf.tls.key = leaf.key
"""
Edit = Callable[[str], str]


class EdgeDeployment:
    """The edge topology on free ports, all files in one directory.

    A :class:`.Sandbox` starts complete and without faults, on files of ``init``. Here a test may change the rendered
    configuration of a server, leave out the service or the leaf link, and replace any line of a short ``broker.conf``.

    Attributes:
        edits: changes to a rendered configuration by broker, to plant faults; set before running.
        service: the service, while running with one.
    """

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.config = directory / "broker.conf"
        self.authority = CertificateAuthority.create()
        self.edits: dict[str, Edit] = {}
        self.servers: dict[str, NatsServer] = {}
        self.service: ServiceProcess | None = None
        self.ports = {name: free_port() for name in ("fleet", "edge", "leaf")}
        self.break_glass = generate_seed(NkeyKind.USER)
        self.edge_break_glass = generate_seed(NkeyKind.USER)
        self.kick = generate_seed(NkeyKind.USER)
        self.edge_kick = generate_seed(NkeyKind.USER)
        links = CertificateAuthority.create("links")
        (directory / "ca.pem").write_bytes(self.authority.certificate_pem)
        (directory / "leaf-ca.pem").write_bytes(links.certificate_pem)
        for name, pair in (
            ("server", self.authority.server()),
            ("client", self.authority.client(MEMBER)),
            ("provisioner", self.authority.client(PROVISIONER)),
            ("edge", self.authority.server(routes=False)),
            ("leaf", links.client(LEAF_NAME)),
            ("signer", signer(algorithm="ec")),
        ):
            pair.write(directory, name)
        for prefix in ("", "edge-"):
            write_zone_seeds(directory, prefix)
        self.write_secret("break-glass.seed", self.break_glass)
        self.write_secret("edge-break-glass.seed", self.edge_break_glass)
        self.write_config()

    @property
    def break_glass_seeds(self) -> tuple[Secret, ...]:
        """The break-glass seeds of both zones."""
        return (Secret(self.break_glass), Secret(self.edge_break_glass))

    def write_secret(self, name: str, text: str) -> Path:
        return write_secret(self.directory / name, text)

    def write_config(self, *extra: str) -> None:
        """Write the configuration; a line in ``extra`` replaces the line of the same key."""
        text = CONFIG.format(
            password=PASSWORD,
            system_password=SYSTEM_PASSWORD,
            provisioner=PROVISIONER,
            leaf_name=LEAF_NAME,
            break_glass=public_nkey(self.break_glass),
            edge_break_glass=public_nkey(self.edge_break_glass),
            kick=public_nkey(self.kick),
            edge_kick=public_nkey(self.edge_kick),
            **self.ports,
        )
        lines = {line.partition(" = ")[0]: line for line in [*text.splitlines(), *extra]}
        self.write_secret("broker.conf", "\n".join(lines.values()) + "\n")

    def settings(self) -> Settings:
        return load(self.config, {}, serving=True)

    def url(self, name: str) -> str:
        return f"tls://127.0.0.1:{self.ports[name]}"

    def provisioning_token(self, *names: str, max_nodes: int | None = None) -> str:
        """Return the token of an unprovisioned node; of these names only, if any are given."""
        key = load_signing_key((self.directory / "signer.key").read_bytes(), "signer")
        claims = provisioning_claims(
            now=time.time(),
            validity=600,
            token=Secret("s3cret"),
            urls=["nats://x:4222"],
            bounds=make_bounds(names, (), max_nodes),
        )
        return key.sign(claims)

    def access(self, **options: object) -> Access:
        return Access(settings=self.settings(), **options)  # type: ignore[arg-type]

    def server(self, name: str) -> NatsServer:
        """Return a nats-server with its rendered and edited configuration, not started."""
        settings = self.settings()
        broker = next(broker for broker in settings.brokers if broker.name == name)
        text = render(settings, broker)
        edited = self.edits[name](text) if name in self.edits else text
        assert (edited != text) == (name in self.edits), "the planted fault changed nothing"
        path = self.directory / f"{name}.conf"
        path.write_text(edited)
        return NatsServer(path)

    @contextlib.contextmanager
    def running(self, *, service: bool = True, linked: bool = True) -> Iterator[EdgeDeployment]:
        """Start both servers, wait for their link, and start the service; a planted fault may prevent either."""
        with contextlib.ExitStack() as stack:
            fleet = stack.enter_context(self.server("fleet"))
            edge = stack.enter_context(self.server("edge"))
            if linked:
                for server in (fleet, edge):
                    server.wait_for_log("Leafnode connection created")
            self.servers = {"fleet": fleet, "edge": edge}
            for server in self.servers.values():
                stack.callback(server.kill)  # a graceful stop would wait for answers that nothing sends
            if service:
                self.service = stack.enter_context(serving(self.config))
            yield self


@contextlib.contextmanager
def serving(config: Path, *, ready: str = READY) -> Iterator[ServiceProcess]:
    """Run a service from its log line ``ready`` until the end of the block."""
    service = ServiceProcess(config, config.with_name("serve.log"))
    service.launch()
    try:
        service.wait_for_log(ready)
        yield service
    finally:
        service.terminate()
