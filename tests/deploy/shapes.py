"""Settings of each deployment topology, with certificates of a development PKI."""

from __future__ import annotations

import dataclasses
import ssl
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from broker_auth.deploy.pki import CertificateAuthority, Pair
from broker_auth.natsio.nkey import NkeyKind, generate_seed, public_nkey
from broker_auth.natsio.tls import TLSFiles
from broker_auth.sandbox.natsserver import free_port
from broker_auth.secret import Secret
from broker_auth.settings.model import (
    AccountNames,
    BrokerSettings,
    ProvisioningSettings,
    Role,
    ServerSettings,
    Settings,
    StreamSettings,
    Zone,
)

Topology = Literal["edge", "websocket", "single", "mixed"]
LEAF_NAME = "edge.leaf.example.net"
GATE_NAME = "gate.leaf.example.net"
BRANCH_NAME = "branch.leaf.example.net"


@dataclass(frozen=True, slots=True, kw_only=True)
class Shape:
    """A deployment: settings to render, and the means to connect to it."""

    directory: Path
    authority: CertificateAuthority
    settings: Settings
    break_glass: dict[str, str]
    kick: dict[str, str]
    reader: dict[str, str] = dataclasses.field(default_factory=dict)

    def broker(self, name: str) -> BrokerSettings:
        return next(broker for broker in self.settings.brokers if broker.name == name)

    def zone(self, name: str) -> Zone:
        """Return the zone of a broker."""
        return self.settings.zone(self.broker(name).zone)

    def url(self, name: str) -> str:
        return self.broker(name).urls[0]

    def tls(self, pair: Pair | None = None, name: str = "client") -> ssl.SSLContext:
        """Return a client's TLS context, with or without a certificate."""
        context = ssl.create_default_context(cafile=str(self.directory / "ca.pem"))
        if pair:
            context.load_cert_chain(*pair.write(self.directory, name))
        return context


def build(directory: Path, topology: Topology = "edge", *, xkey: bool = True, cluster: bool = False) -> Shape:
    authority = CertificateAuthority.create()
    (directory / "ca.pem").write_bytes(authority.certificate_pem)
    brokers = _brokers(directory, authority, topology, cluster)
    break_glass = {broker.zone: generate_seed(NkeyKind.USER) for broker in brokers}
    kick = {zone: generate_seed(NkeyKind.USER) for zone in break_glass}
    zones = tuple(_zone(name, break_glass[name], kick[name], xkey) for name in break_glass)
    return Shape(
        directory=directory,
        authority=authority,
        settings=_settings(directory, brokers, zones),
        break_glass=break_glass,
        kick=kick,
    )


def with_readers(shape: Shape, *names: str) -> Shape:
    """Return the deployment with the bucket of revocations, and with a reader for each zone that it is not fleet.

    Args:
        shape: the deployment.
        names: more zones, whose servers are elsewhere.
    """
    settings = shape.settings
    zones = (
        *settings.zones,
        *(Zone(name=name, break_glass_nkey=public_nkey(generate_seed(NkeyKind.USER))) for name in names),
    )
    readers = {zone.name: generate_seed(NkeyKind.USER) for zone in zones if not zone.is_fleet}
    zones = tuple(
        dataclasses.replace(zone, reader_nkey=public_nkey(readers[zone.name])) if zone.name in readers else zone
        for zone in zones
    )
    revoked = shape.directory / "revoked.json"
    settings = dataclasses.replace(settings, zones=zones, revocations=revoked, revocations_bucket=True)
    return dataclasses.replace(shape, settings=settings, reader=readers)


def with_server(shape: Shape, name: str, /, **changes: object) -> Shape:
    """Return the deployment with some settings of one server changed."""
    brokers = tuple(
        dataclasses.replace(broker, server=dataclasses.replace(broker.server, **changes))  # type: ignore[arg-type]
        if broker.name == name
        else broker
        for broker in shape.settings.brokers
    )
    return dataclasses.replace(shape, settings=dataclasses.replace(shape.settings, brokers=brokers))


def _brokers(
    directory: Path, authority: CertificateAuthority, topology: Topology, cluster: bool
) -> tuple[BrokerSettings, ...]:
    ca = directory / "ca.pem"
    own = _files(ca, authority.server().write(directory, "server"))
    listen = f"127.0.0.1:{free_port()}"
    server = ServerSettings(name="fleet-1", listen=listen, tls=own, store_dir=directory / "js")
    if cluster:
        route = free_port()
        server = dataclasses.replace(
            server,
            cluster_name="fleet",
            cluster_listen=f"127.0.0.1:{route}",
            cluster_routes=(f"nats-route://localhost:{route}",),
        )
    role = Role(topology) if topology in ("single", "mixed") else Role.FLEET
    if topology == "websocket":
        server = dataclasses.replace(server, websocket_listen=f"127.0.0.1:{free_port()}")
    if topology != "edge":
        return (BrokerSettings(name="fleet", urls=(f"tls://{listen}",), role=role, tls=own, server=server),)
    leaf = f"127.0.0.1:{free_port()}"
    server = dataclasses.replace(server, leaf_listen=leaf, leaf_users=(LEAF_NAME,))
    edge_listen = f"127.0.0.1:{free_port()}"
    edge = ServerSettings(
        name="edge-1",
        listen=edge_listen,
        tls=own,
        leaf_remotes=(f"tls://{leaf}",),
        leaf_tls=_files(ca, authority.client(LEAF_NAME).write(directory, "leaf")),
    )
    return (
        BrokerSettings(name="fleet", urls=(f"tls://{listen}",), role=Role.FLEET, tls=own, server=server),
        BrokerSettings(name="edge", urls=(f"tls://{edge_listen}",), role=Role.EDGE, tls=own, server=edge, zone="edge"),
    )


def with_gate(shape: Shape, *, xkey: bool = True) -> Shape:
    """Return the same deployment with a gate, and with a name for a branch network."""
    fleet = shape.broker("fleet")
    listen = f"127.0.0.1:{free_port()}"
    ca = shape.directory / "ca.pem"
    server = ServerSettings(
        name="gate-1",
        listen=listen,
        tls=fleet.tls,
        leaf_remotes=(f"tls://{fleet.server.leaf_listen}",),
        leaf_tls=_files(ca, shape.authority.client(GATE_NAME).write(shape.directory, "gate-leaf")),
    )
    gate = BrokerSettings(
        name="gate", urls=(f"tls://{listen}",), role=Role.GATE, tls=fleet.tls, server=server, zone="gate"
    )
    shape = with_server(shape, "fleet", leaf_gates=(GATE_NAME,), leaf_branches=(BRANCH_NAME,))
    break_glass, kick = ({**seeds, "gate": generate_seed(NkeyKind.USER)} for seeds in (shape.break_glass, shape.kick))
    settings = dataclasses.replace(
        shape.settings,
        brokers=(*shape.settings.brokers, gate),
        zones=(*shape.settings.zones, _zone("gate", break_glass["gate"], kick["gate"], xkey)),
    )
    return dataclasses.replace(shape, settings=settings, break_glass=break_glass, kick=kick)


def _files(ca: Path, pair: tuple[Path, Path]) -> TLSFiles:
    return TLSFiles(ca=ca, certificate=pair[0], key=pair[1])


def _zone(name: str, break_glass: str, kick: str, xkey: bool) -> Zone:
    return Zone(
        name=name,
        nkey_seed=Secret(generate_seed(NkeyKind.USER)),
        issuer_seed=Secret(generate_seed(NkeyKind.ACCOUNT)),
        xkey_seed=Secret(generate_seed(NkeyKind.CURVE)) if xkey else None,
        break_glass_nkey=public_nkey(break_glass),
        kick_nkey=public_nkey(kick),
    )


def _settings(directory: Path, brokers: tuple[BrokerSettings, ...], zones: tuple[Zone, ...]) -> Settings:
    return Settings(
        path=directory / "broker.conf",
        brokers=brokers,
        zones=zones,
        accounts=AccountNames(),
        provisioning=ProvisioningSettings(max_subscriptions=32, max_payload=2048, max_connections=4),
        system_user=None,
        system_passwords=(),
        client_hosts=(),
        client_signers=(),
        server_signers=(),
        deny_server_connections=False,
        issuers=(),
        pub_sub_ca=False,
        client_ca=(),
        token_leeway=0.0,
        chain_issuer_max_age=366 * 86_400.0,
        streams=StreamSettings(),
    )


def with_zones(shape: Shape, **changes: object) -> Shape:
    """Return the deployment with some keys of every zone changed."""
    zones = tuple(dataclasses.replace(zone, **changes) for zone in shape.settings.zones)  # type: ignore[arg-type]
    return dataclasses.replace(shape, settings=dataclasses.replace(shape.settings, zones=zones))
