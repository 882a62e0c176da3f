"""The input of ``init``, and which options are missing or superfluous."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Final

from broker_auth.settings.model import FleetAuth, Role
from broker_auth.tokens.issue import DEFAULT_ORGANIZATION

EDGE: Final = "edge"  # the edge's name where none is given
USER_PLACEHOLDER: Final = "{user}"  # in file names of users' certificates: member, provisioner, operator
PLACEHOLDER: Final = "{edge}"  # in file names of edges: the edge's name


class Topology(StrEnum):
    """The deployment shapes of docs/topologies.md."""

    EDGE = "edge"
    WEBSOCKET = "websocket"
    SINGLE = "single"
    MIXED = "mixed"


class Layout(StrEnum):
    """Locations that programs write to: in the deployment, as packages do (docs/systemd.md), or as containers do."""

    DIRECTORY = "directory"
    SYSTEM = "system"
    CONTAINER = "container"


@dataclass(frozen=True, slots=True, kw_only=True)
class OwnFiles:
    """The operator's own PEM files. The edge's server certificate defaults to the fleet's.

    ``leaf_ca`` is what the fleet verifies edges by. Not ``ca``, because whoever has a client certificate
    of that one is a member of the fleet. ``{edge}`` in the names of the four files of edges stands for the
    name of each. ``user_cert`` and ``user_key`` are written into contexts of the ``nats`` command and not read;
    ``{user}`` in them stands for "member", "provisioner" and "operator".
    """

    ca: Path | None = None
    server_cert: Path | None = None
    server_key: Path | None = None
    edge_cert: Path | None = None
    edge_key: Path | None = None
    leaf_ca: Path | None = None
    leaf_cert: Path | None = None
    leaf_key: Path | None = None
    service_cert: Path | None = None
    service_key: Path | None = None
    user_cert: Path | None = None
    user_key: Path | None = None

    def of_edge(self, name: str) -> OwnFiles:
        """Return the files of one edge, its name in place of ``{edge}``."""
        own = {
            item: Path(str(path).replace(PLACEHOLDER, name))
            for item in ("edge_cert", "edge_key", "leaf_cert", "leaf_key")
            if (path := getattr(self, item)) is not None
        }
        return dataclasses.replace(self, **own)


@dataclass(frozen=True, slots=True)
class Edge:
    """An edge or a gate to be written: its name, which is also its broker's and its zone's, and its host in URLs."""

    name: str
    host: str
    role: Role = Role.EDGE


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """A deployment to be written.

    Attributes:
        directory: where; made if it does not exist.
        hosts: names and addresses of the servers; the first stands in URLs.
        fleet_hosts: the fleet's servers, in URLs before ``hosts``; several are a cluster.
        edge_host: the host of the only edge in URLs, if it runs elsewhere.
        named_edges: edges with names, and gates; by default there is one edge, named "edge".
        layout: where audit records, the pid file and streams go.
        listen: the address all listeners bind to.
        signer_cert: signers of provisioning tokens: files, or 64 hex characters.
        issuers: organization name and public key (64 hex characters); without a key ``dev_pki`` makes one.
        provisioners: identities that may be the user ``provisioner``.
        force: replace existing configurations; keys and certificates are always kept.
        fleet_auth: how the fleet's servers authorize connections.
    """

    directory: Path
    topology: Topology = Topology.EDGE
    layout: Layout = Layout.DIRECTORY
    dev_pki: bool = False
    hosts: Sequence[str] = ()
    fleet_hosts: Sequence[str] = ()
    edge_host: str | None = None
    named_edges: Sequence[Edge] = ()
    listen: str | None = None
    files: OwnFiles = field(default_factory=OwnFiles)
    signer_cert: Sequence[str] = ()
    issuers: Sequence[tuple[str, str]] = ()
    provisioners: Sequence[str] = ()
    port: int = 4222
    edge_port: int = 4223
    gate_port: int = 4224
    leaf_port: int = 7422
    websocket_port: int = 4443
    cluster_port: int = 6222
    force: bool = False
    fleet_auth: FleetAuth = FleetAuth.CALLOUT

    @property
    def fleet_is_static(self) -> bool:
        """Whether the fleet's servers decide by themselves."""
        return self.fleet_auth is FleetAuth.STATIC

    @property
    def new_organization(self) -> str | None:
        """The organization that the development PKI makes an issuer for; None without one."""
        if not self.dev_pki:
            return None
        if self.topology is Topology.SINGLE and not self.issuers:
            return DEFAULT_ORGANIZATION
        return next((name for name, public in self.issuers if not public), None)

    @property
    def fleet(self) -> tuple[str, ...]:
        """The hosts in the fleet's URLs."""
        return tuple(self.fleet_hosts) or tuple(self.hosts[:1]) or ("127.0.0.1",)

    @property
    def clustered(self) -> bool:
        """Whether the fleet is a cluster."""
        return len(self.fleet_hosts) > 1

    @property
    def edges(self) -> tuple[Edge, ...]:
        """The edges and gates to be written."""
        if self.topology is not Topology.EDGE:
            return ()
        return tuple(self.named_edges) or (Edge(EDGE, self.edge_host or self.fleet[0]),)

    @property
    def has_user_certificates(self) -> bool:
        """Whether certificates of members, provisioners and operators are known or made."""
        return self.files.user_cert is not None or (self.dev_pki and self.topology is not Topology.SINGLE)

    @property
    def fleet_names(self) -> tuple[str, ...]:
        """Hosts for the certificate of the fleet's servers."""
        return (*self.hosts, *self.fleet_hosts, *((self.edge_host,) if self.edge_host else ()))

    def port_of(self, edge: Edge) -> int:
        """Return the port of an edge's or a gate's listener."""
        return self.gate_port if edge.role is Role.GATE else self.edge_port

    def edge_names(self, edge: Edge) -> tuple[str, ...]:
        """Return the hosts for an edge's certificate, with the fleet's only if both may be on one machine."""
        return (edge.host,) if self.named_edges else (edge.host, *self.fleet_names)

    @property
    def bind(self) -> str:
        """The address listeners bind to: a development PKI is for this machine, until other hosts are meant."""
        local = self.dev_pki and not (self.clustered or self.named_edges or self.layout is Layout.CONTAINER)
        return self.listen or ("127.0.0.1" if local else "0.0.0.0")  # noqa: S104 - a server's listener


def missing_options(plan: Plan) -> list[str]:
    """Return every command line option that this plan lacks."""
    if plan.dev_pki:
        return []
    files, mutual = plan.files, plan.topology is not Topology.SINGLE
    options: list[tuple[str, object, bool]] = [
        ("--host or --fleet-host", plan.hosts or plan.fleet_hosts, True),
        ("--ca", files.ca, True),
        ("--server-cert", files.server_cert, True),
        ("--server-key", files.server_key, True),
        ("--service-cert", files.service_cert, mutual),
        ("--service-key", files.service_key, mutual),
        ("--leaf-ca", files.leaf_ca, plan.topology is Topology.EDGE),
        ("--leaf-cert", files.leaf_cert, plan.topology is Topology.EDGE),
        ("--leaf-key", files.leaf_key, plan.topology is Topology.EDGE),
        ("--edge-cert", files.edge_cert, files.edge_key is not None),
        ("--edge-key", files.edge_key, files.edge_cert is not None),
        ("--user-cert", files.user_cert, files.user_key is not None),
        ("--user-key", files.user_key, files.user_cert is not None),
        ("--issuer", plan.issuers, not mutual),
        ("--issuer NAME=HEX", all(public for _, public in plan.issuers), True),
        ("--signer-cert or --issuer", plan.signer_cert or plan.issuers, mutual),
    ]
    return [option for option, value, needed in options if needed and not value]


def misfits_of_static(plan: Plan) -> list[str]:
    """Return the options that do not go with a static fleet (docs/static-fleet.md)."""
    if not plan.fleet_is_static:
        return []
    options: list[tuple[str, object]] = [
        (f"--topology {plan.topology}", plan.topology is not Topology.EDGE),
        ("--issuer", plan.issuers),
        ("--provisioner", plan.provisioners),
    ]
    return [option for option, value in options if value]


def superfluous_options(plan: Plan) -> list[str]:
    """Return the options that contradict ``--dev-pki``, which creates those files itself."""
    if not plan.dev_pki:
        return []
    files = plan.files
    options: list[tuple[str, object]] = [
        ("--ca", files.ca),
        ("--server-cert", files.server_cert),
        ("--server-key", files.server_key),
        ("--edge-cert", files.edge_cert),
        ("--edge-key", files.edge_key),
        ("--leaf-ca", files.leaf_ca),
        ("--leaf-cert", files.leaf_cert),
        ("--leaf-key", files.leaf_key),
        ("--service-cert", files.service_cert),
        ("--service-key", files.service_key),
        ("--user-cert", files.user_cert),
        ("--user-key", files.user_key),
        ("--signer-cert", plan.signer_cert),
    ]
    return [option for option, value in options if value]
