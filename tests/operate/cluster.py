"""The edge deployment with a cluster of three fleet servers and a second edge, each with its faults."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from broker_auth.deploy.pki import CertificateAuthority
from broker_auth.deploy.render import render
from broker_auth.natsio.nkey import NkeyKind, generate_seed, public_nkey
from broker_auth.sandbox.natsserver import NatsServer, free_port
from broker_auth.secret import Secret
from broker_auth.settings.load import load
from tests.builders.seeds import write_zone_seeds
from tests.operate.deployment import EdgeDeployment, serving

FLEET: Final = ("fleet1", "fleet2", "fleet3")
EDGES: Final = ("edge", "edge2")
_FLEET_KEYS: Final = """\
plugin.broker_auth.brokers = fleet, edge, edge2
plugin.broker_auth.broker.fleet.urls = {urls}
plugin.broker_auth.broker.fleet.server.cluster.name = fleet
plugin.broker_auth.broker.fleet.server.cluster.listen = 127.0.0.1:{cluster}
plugin.broker_auth.broker.fleet.server.cluster.routes = {routes}
plugin.broker_auth.broker.fleet.server.leaf.user = {leaf_users}
plugin.broker_auth.broker.edge.server.leaf.remotes = {remotes}
"""
_EDGE_KEYS: Final = """\
plugin.broker_auth.zone.edge2.nkey_seed_file = edge2-user.seed
plugin.broker_auth.zone.edge2.issuer_seed_file = edge2-account.seed
plugin.broker_auth.zone.edge2.xkey_seed_file = edge2-curve.seed
plugin.broker_auth.zone.edge2.break_glass_nkey = {break_glass}
plugin.broker_auth.zone.edge2.kick_nkey = {kick}
plugin.broker_auth.broker.edge2.urls = tls://127.0.0.1:{port}
plugin.broker_auth.broker.edge2.role = edge
plugin.broker_auth.broker.edge2.server.listen = 127.0.0.1:{port}
plugin.broker_auth.broker.edge2.server.tls.certificate = edge.pem
plugin.broker_auth.broker.edge2.server.tls.key = edge.key
plugin.broker_auth.broker.edge2.server.leaf.remotes = {remotes}
plugin.broker_auth.broker.edge2.server.leaf.tls.ca = ca.pem
plugin.broker_auth.broker.edge2.server.leaf.tls.certificate = leaf2.pem
plugin.broker_auth.broker.edge2.server.leaf.tls.key = leaf2.key
"""


class ClusterDeployment(EdgeDeployment):
    """Three fleet servers and two edges on free ports; the servers are named as in :data:`FLEET` and :data:`EDGES`."""

    def __init__(self, directory: Path) -> None:
        self.edge2_break_glass = generate_seed(NkeyKind.USER)
        self.edge2_kick = generate_seed(NkeyKind.USER)
        self.fleet_ports = {name: (free_port(), free_port(), free_port()) for name in FLEET}  # clients, routes, leafs
        self.edge2_port = free_port()
        super().__init__(directory)

    @property
    def break_glass_seeds(self) -> tuple[Secret, ...]:
        """The break-glass seeds of the three zones."""
        return (*super().break_glass_seeds, Secret(self.edge2_break_glass))

    @property
    def kick_seeds(self) -> tuple[Secret, ...]:
        """The seeds of the kick users of the three zones."""
        return (Secret(self.kick), Secret(self.edge_kick), Secret(self.edge2_kick))

    def address(self, name: str) -> str:
        """Return host and port of a server's clients, as findings name it."""
        ports = {name: port for name, (port, _, _) in self.fleet_ports.items()}
        return f"127.0.0.1:{(ports | {'edge': self.ports['edge'], 'edge2': self.edge2_port})[name]}"

    def url(self, name: str) -> str:
        return f"tls://{self.address(name)}"

    def write_config(self, *extra: str) -> None:
        if not (self.directory / "edge2-user.seed").exists():
            write_zone_seeds(self.directory, "edge2-")
            links = CertificateAuthority.create("links of edge2")
            with (self.directory / "leaf-ca.pem").open("ab") as file:
                file.write(links.certificate_pem)
            links.client("edge2.leaf.example.net").write(self.directory, "leaf2")
        remotes = ", ".join(f"tls://localhost:{leaf}" for _, _, leaf in self.fleet_ports.values())
        keys = _FLEET_KEYS.format(
            urls=", ".join(map(self.url, FLEET)),
            cluster=self.fleet_ports["fleet1"][1],
            routes=", ".join(f"tls://localhost:{route}" for _, route, _ in self.fleet_ports.values()),
            leaf_users="edge.leaf.example.net, edge2.leaf.example.net",
            remotes=remotes,
        )
        users = {
            "break_glass": public_nkey(self.edge2_break_glass),
            "kick": public_nkey(self.edge2_kick),
        }
        keys += _EDGE_KEYS.format(port=self.edge2_port, remotes=remotes, **users)
        super().write_config(*keys.splitlines(), *extra)

    def server(self, name: str) -> NatsServer:
        """Return a nats-server with its rendered and edited configuration, not started."""
        environ = {}
        if name in FLEET:
            client, route, leaf = self.fleet_ports[name]
            values = {"NAME": name, "STORE_DIR": f"js-{name}", "LISTEN": f"127.0.0.1:{client}"}
            values |= {"CLUSTER_LISTEN": f"127.0.0.1:{route}", "LEAF_LISTEN": f"127.0.0.1:{leaf}"}
            environ = {f"BROKER_AUTH_BROKER_FLEET_SERVER_{key}": value for key, value in values.items()}
        settings = load(self.config, environ, serving=True)
        broker = next(one for one in settings.brokers if one.name == ("fleet" if name in FLEET else name))
        text = render(settings, broker)
        edited = self.edits[name](text) if name in self.edits else text
        assert (edited != text) == (name in self.edits), "the planted fault changed nothing"
        path = self.directory / f"{name}.conf"
        path.write_text(edited)
        return NatsServer(path)

    def restart(self, name: str) -> None:
        """Start a server again, with its configuration rendered and edited again."""
        self.servers[name].kill()
        self.server(name)
        self.start(name)

    def start(self, name: str) -> None:
        """Start a server that was stopped."""
        self.servers[name].__enter__()

    @contextlib.contextmanager
    def running(self, *, service: bool = True, linked: bool = True) -> Iterator[ClusterDeployment]:
        """Start the servers, wait for the links of the edges, and start the service."""
        self.servers = {name: self.server(name) for name in (*FLEET, *EDGES)}
        with contextlib.ExitStack() as stack:
            for name, server in self.servers.items():
                stack.callback(server.kill)  # a graceful stop would wait for answers that nothing sends
                self.start(name)
            for name in FLEET:  # without a leader JetStream does not answer
                self.servers[name].wait_for_log("metadata leader")
            if linked:
                for name in EDGES:
                    self.servers[name].wait_for_log("Leafnode connection created")
            if service:
                self.service = stack.enter_context(serving(self.config))
            yield self
