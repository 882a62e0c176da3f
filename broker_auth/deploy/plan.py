"""The input of ``init``, and which options are missing or superfluous."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path


class Topology(StrEnum):
    """The deployment shapes of docs/topologies.md."""

    EDGE = "edge"
    WEBSOCKET = "websocket"
    SINGLE = "single"


@dataclass(frozen=True, slots=True, kw_only=True)
class OwnFiles:
    """The operator's own PEM files. The edge's server certificate defaults to the fleet's.

    The fleet verifies edges with ``leaf_ca``, not with ``ca``, because any client certificate issued by ``ca``
    identifies a fleet member.
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


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """A deployment to be written.

    Attributes:
        directory: the target; created if it does not exist.
        hosts: names and addresses of the servers; the first is used in URLs.
        edge_host: the edge's host name in URLs, if it runs on another host.
        listen: the address that all listeners bind to.
        signer_cert: signers of provisioning tokens: files, or 64 hex characters.
        issuers: organization name and public key (64 hex characters).
        provisioners: identities that may be the user ``provisioner``.
        force: replace existing configurations; keys and certificates are always kept.
    """

    directory: Path
    topology: Topology = Topology.EDGE
    dev_pki: bool = False
    hosts: Sequence[str] = ()
    edge_host: str | None = None
    listen: str | None = None
    files: OwnFiles = field(default_factory=OwnFiles)
    signer_cert: Sequence[str] = ()
    issuers: Sequence[tuple[str, str]] = ()
    provisioners: Sequence[str] = ()
    port: int = 4222
    edge_port: int = 4223
    leaf_port: int = 7422
    websocket_port: int = 4443
    force: bool = False

    @property
    def host(self) -> str:
        """Host name in the fleet's URLs."""
        return self.hosts[0] if self.hosts else "127.0.0.1"

    @property
    def bind(self) -> str:
        """Address that listeners bind to; with a development PKI the default is loopback."""
        return self.listen or ("127.0.0.1" if self.dev_pki else "0.0.0.0")  # noqa: S104 - a server's listener


def missing_options(plan: Plan) -> list[str]:
    """Return every command line option that this plan lacks."""
    if plan.dev_pki:
        return []
    files, mutual = plan.files, plan.topology is not Topology.SINGLE
    options: list[tuple[str, object, bool]] = [
        ("--host", plan.hosts, True),
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
        ("--issuer", plan.issuers, not mutual),
        ("--signer-cert or --issuer", plan.signer_cert or plan.issuers, mutual),
    ]
    return [option for option, value, needed in options if needed and not value]


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
        ("--signer-cert", plan.signer_cert),
        ("--issuer", plan.issuers),
    ]
    return [option for option, value in options if value]
