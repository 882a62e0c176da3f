"""The settings, typed and complete, as built by :mod:`broker_auth.settings.load`.

Plain data: secrets are read, durations are seconds, paths are absolute. Public keys stay as
:class:`KeySource` (already checked to be loadable); :mod:`broker_auth.settings.policy` builds a
:class:`broker_auth.policy.model.Policy` from these settings.
"""

from __future__ import annotations

from dataclasses import dataclass, field, fields, replace
from enum import StrEnum
from ipaddress import IPv4Network, IPv6Network
from pathlib import Path
from typing import Final

from broker_auth.errors import InputError
from broker_auth.natsio.bucket import NODES, OUTPOSTS, REVOCATIONS, BucketSpec
from broker_auth.natsio.tls import TLSFiles
from broker_auth.policy.model import Accounts as AccountNames
from broker_auth.policy.model import Serves
from broker_auth.secret import Secret

__all__ = [
    "AccountNames",
    "AuditKind",
    "AuditOutput",
    "AuditSettings",
    "BrokerSettings",
    "ClientCertificates",
    "FleetAuth",
    "KeySource",
    "ProvisioningSettings",
    "ReaderAccess",
    "Role",
    "ServedZone",
    "ServerSettings",
    "ServingSettings",
    "Settings",
    "StoredRequests",
    "StreamSettings",
    "Zone",
]

FLEET_ZONE: Final = "fleet"
COUNTER_SUFFIX: Final = ".counter"


class ClientCertificates(StrEnum):
    """The treatment of client certificates by a listener."""

    REQUIRED = "required"
    OPTIONAL = "optional"  # requested, and verified if given
    NONE = "none"  # not requested

    @property
    def described(self) -> str:
        """The predicate of a sentence about a listener."""
        return {
            ClientCertificates.REQUIRED: "requires a client certificate",
            ClientCertificates.OPTIONAL: "accepts a client certificate, and clients without one",
            ClientCertificates.NONE: "does not ask for a client certificate",
        }[self]


class Role(StrEnum):
    """The purpose of a broker; ``config render``, ``report`` and ``doctor`` depend on it."""

    FLEET = "fleet"
    EDGE = "edge"
    GATE = "gate"
    SINGLE = "single"
    MIXED = "mixed"

    @property
    def client_certificates(self) -> ClientCertificates:
        """The treatment of client certificates by such a broker's listener."""
        own = {Role.FLEET: ClientCertificates.REQUIRED, Role.MIXED: ClientCertificates.OPTIONAL}
        return own.get(self, ClientCertificates.NONE)

    @property
    def verifies_clients(self) -> bool:
        """Whether the fleet's members can present their certificates there."""
        return self.client_certificates is not ClientCertificates.NONE

    @property
    def requires_certificates(self) -> bool:
        """Whether nobody can connect there without a certificate."""
        return self.client_certificates is ClientCertificates.REQUIRED

    @property
    def is_outpost(self) -> bool:
        """Whether such brokers are linked to the fleet and separated from it: by zone, keys and rules."""
        return self in (Role.EDGE, Role.GATE)

    @property
    def serves(self) -> Serves:
        """The rules by which the service decides for such brokers."""
        return {Role.EDGE: Serves.EDGE, Role.GATE: Serves.GATE}.get(self, Serves.FLEET)


class FleetAuth(StrEnum):
    """The ways in which the fleet's servers authorize connections (docs/static-fleet.md)."""

    CALLOUT = "callout"  # they ask this service
    STATIC = "static"  # they decide by their own configuration


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerSettings:
    """The settings of a nats-server for ``config render``: ``plugin.broker_auth.broker.<name>.server.*``.

    Addresses are ``host:port``. ``leaf_listen`` is the fleet's listener for leaf nodes; ``leaf_users``, ``leaf_gates``
    and ``leaf_branches`` are the names in the leaf certificates of edges, gates and branch networks, ``leaf_remotes``
    an edge's or a gate's URLs of that listener. ``websocket_listen`` uses TLS without client certificates.
    """

    name: str
    listen: str | None = None
    tls: TLSFiles = field(default_factory=TLSFiles)
    cipher_suites: tuple[str, ...] = ()
    curves: tuple[str, ...] = ()
    client_advertise: str | None = None
    max_connections: int | None = None
    websocket_listen: str | None = None
    leaf_listen: str | None = None
    leaf_remotes: tuple[str, ...] = ()
    leaf_tls: TLSFiles = field(default_factory=TLSFiles)
    leaf_users: tuple[str, ...] = ()
    leaf_gates: tuple[str, ...] = ()
    leaf_branches: tuple[str, ...] = ()
    store_dir: Path | None = None
    cluster_name: str | None = None
    cluster_listen: str | None = None
    cluster_routes: tuple[str, ...] = ()
    monitor_listen: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class BrokerSettings:
    """A nats-server or cluster whose authorization requests this service answers."""

    name: str
    urls: tuple[str, ...]
    role: Role
    tls: TLSFiles
    server: ServerSettings
    zone: str = FLEET_ZONE

    @property
    def takes_nodes(self) -> bool:
        """Whether unprovisioned nodes connect to this broker."""
        if self.role is Role.GATE:
            return False
        return self.role is not Role.FLEET or self.server.websocket_listen is not None

    @property
    def takes_nodes_and_provisioners(self) -> bool:
        """Whether nodes and provisioners connect to this broker, and so share the provisioning account's limit."""
        return self.takes_nodes and self.role is not Role.EDGE


@dataclass(frozen=True, slots=True, kw_only=True)
class Zone:
    """Brokers that share keys and worker processes (docs/policy.md#zones).

    Attributes:
        nkey_seed: seed of the user that logs in to the zone's brokers; None if not read.
        issuer_seed: seed of the account that signs responses to them.
        xkey_seed: seed of the curve key that seals their requests; None if requests are in clear.
        break_glass_nkey: public key of the user that the zone's servers admit to their system account.
        kick_nkey: public key of the user that may only list and end the connections of the zone's servers.
        kick_seed_file: file with its seed, which commands read.
        reader_nkey: public key of the user that follows what was revoked, on a host without the fleet's zone.
        reader_seed_file: file with its seed, which only such a host reads.
        workers: number of worker processes.
        has_own_keys: False for an edge that uses the fleet's keys, as ``init`` of 0.1.0 configured it.
        served: whether its brokers ask this service; False for the fleet with static authorization.
    """

    name: str
    nkey_seed: Secret | None = None
    issuer_seed: Secret | None = None
    xkey_seed: Secret | None = None
    break_glass_nkey: str | None = None
    kick_nkey: str | None = None
    kick_seed_file: Path | None = None
    reader_nkey: str | None = None
    reader_seed_file: Path | None = None
    workers: int = 1
    has_own_keys: bool = True
    served: bool = True

    @property
    def is_fleet(self) -> bool:
        """Whether this is the fleet's zone; every other one is an edge's or a gate's."""
        return self.name == FLEET_ZONE


@dataclass(frozen=True, slots=True, kw_only=True)
class ReaderAccess:
    """The access of a zone's reader to the fleet, on a host that does not serve the fleet (docs/zones.md#readers).

    Attributes:
        seed: seed of its nkey.
        urls: of the broker with the buckets.
        tls: the CA of that broker, and the reader's own certificate.
    """

    seed: Secret
    urls: tuple[str, ...]
    tls: TLSFiles


@dataclass(frozen=True, slots=True, kw_only=True)
class KeySource:
    """The source of a public key: a file, or 64 hex characters written inline.

    Exactly one of ``path`` and ``hex`` is set. ``name`` is what audit records and ``token check``
    show as the signer: the path as written, the issuer's name, or the key's first hex digits.
    """

    name: str
    path: Path | None = None
    hex: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ProvisioningSettings:
    """``plugin.choria.network.provisioning.*`` and ``plugin.broker_auth.provision*``.

    Attributes:
        enabled: whether it is completely configured (docs/policy.md#two-modes).
        client_passwords: also empty in the settings of a zone that does not use them.
    """

    enabled: bool = False
    signers: tuple[KeySource, ...] = ()
    client_passwords: tuple[Secret, ...] = ()
    provisioner_without_token: bool = False
    provisioner_identities: tuple[str, ...] = ()
    require_mtls: bool = True
    isolate_nodes: bool = True
    allow_non_expiring_tokens: bool = False
    max_subscriptions: int = 64
    max_payload: int = 1024 * 1024
    max_connections: int = 10_000


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamSettings:
    """``plugin.choria.network.stream.*``: retention in seconds, replicas; defaults are Choria's.

    A retention of 0 means that the stream is not created; replicas of -1 mean as many as the cluster supports.

    Attributes:
        max_bytes: limit for each event stream; not in Choria.
        max_msgs: limit for each event stream; not in Choria.
        provisioner_election_ttl: time to live in the provisioners' own bucket; not in Choria.
    """

    event_retention: float = 24 * 3600.0
    event_replicas: int = -1
    machine_retention: float = 24 * 3600.0
    machine_replicas: int = -1
    advisory_retention: float = 7 * 24 * 3600.0
    advisory_replicas: int = -1
    leader_election_ttl: float = 60.0
    leader_election_replicas: int = -1
    max_bytes: int = 1024**3
    max_msgs: int = 1_000_000
    provisioner_election_ttl: float = 10.0


class AuditKind(StrEnum):
    """The kinds of outputs for audit records."""

    LOG = "log"
    STDOUT = "stdout"
    FILE = "file"
    NATS = "nats"


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditOutput:
    """An output for audit records: ``path`` is set for a file, ``subject`` for NATS."""

    kind: AuditKind
    path: Path | None = None
    subject: str | None = None


class StoredRequests(StrEnum):
    """A choice of the audit records that store their request."""

    ALL = "true"
    NONE = "false"
    SAMPLE = "sample"


class ExpiredCrl(StrEnum):
    """A choice of what applies once the CRLs of a CA have expired."""

    KEEP = "keep"
    DENY = "deny"


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditSettings:
    """``plugin.broker_auth.audit.*``.

    Attributes:
        requests: which records store their redacted request.
        max_bytes: size at which a file is rotated; 0 disables rotation.
        keep: number of rotated files that are kept.
    """

    outputs: tuple[AuditOutput, ...] = (AuditOutput(kind=AuditKind.STDOUT),)
    requests: StoredRequests = StoredRequests.NONE
    max_bytes: int = 256 * 1024 * 1024
    keep: int = 4

    @property
    def subject(self) -> str | None:
        """The NATS subject on which records are published, if any."""
        return next((output.subject for output in self.outputs if output.subject), None)

    @property
    def path(self) -> Path | None:
        """The file to which records are written, if any."""
        return next((output.path for output in self.outputs if output.path), None)

    def of_zone(self, zone: Zone) -> AuditSettings:
        """Return the audit outputs of a zone: an edge has a separate file, so that it cannot fill the fleet's.

        An edge cannot reach the fleet's account, where records are published, and uses standard output instead.
        """
        if zone.is_fleet:
            return self
        outputs = [_of_edge(output, zone.name) for output in self.outputs if output.kind is not AuditKind.NATS]
        return replace(self, outputs=tuple(outputs) or (AuditOutput(kind=AuditKind.STDOUT),))

    def path_of(self, zone: str) -> Path | None:
        """Return the file to which a zone's records are written, if any; of the outputs of the fleet's zone."""
        outputs = (output if zone == FLEET_ZONE else _of_edge(output, zone) for output in self.outputs)
        return next((output.path for output in outputs if output.path), None)


def counter_socket(revocations: Path) -> Path:
    """Return the path of the socket for counting nodes, beside the file of revocations."""
    return revocations.with_name(revocations.name + COUNTER_SUFFIX)


def _of_edge(output: AuditOutput, zone: str) -> AuditOutput:
    if output.path is None:
        return output
    return replace(output, path=output.path.with_name(f"{output.path.stem}.{zone}{output.path.suffix}"))


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """A configuration that has been loaded and checked.

    Attributes:
        issuers: the key of each organization; not empty means issuer mode.
        pub_sub_ca: whether ``plugin.security.choria.ca`` is set, for issuer mode
            (docs/policy.md#4-a-verified-certificate-without-a-token).
        client_ca: PEM files with the roots of accepted chains (docs/policy.md#0-connections-not-served).
        client_crl: files of CRLs; empty in the settings of a zone that reads no chains.
        deny_expired_crl: whether certificates of a CA whose CRLs have expired are denied.
        token_leeway: seconds.
        chain_issuer_max_age: seconds.
        session_grace: seconds by which sessions of fleet members may outlive their credential.
        metrics_listen: ``host:port`` for metrics and health; None disables both.
        pid_file: file by which ``broker-auth reload`` finds the service.
        revocations: file with what was revoked; None if nothing can be.
        revocations_bucket: whether hosts exchange it by a bucket of the fleet.
        follower: how the zone that is served apart from the fleet's learns what was revoked.
        narrowed_to: the zone that these settings were narrowed to by :meth:`of_zone`; empty for all zones.
    """

    path: Path
    brokers: tuple[BrokerSettings, ...]
    zones: tuple[Zone, ...]
    accounts: AccountNames
    provisioning: ProvisioningSettings
    system_user: str | None
    system_passwords: tuple[Secret, ...]
    client_hosts: tuple[IPv4Network | IPv6Network, ...]
    client_signers: tuple[KeySource, ...]
    server_signers: tuple[KeySource, ...]
    deny_server_connections: bool
    issuers: tuple[KeySource, ...]
    pub_sub_ca: bool
    client_ca: tuple[Path, ...]
    token_leeway: float
    chain_issuer_max_age: float
    streams: StreamSettings
    audit: AuditSettings = field(default_factory=AuditSettings)
    metrics_listen: str | None = None
    pid_file: Path | None = None
    revocations: Path | None = None
    client_crl: tuple[Path, ...] = ()
    deny_expired_crl: bool = False
    revocations_bucket: bool = False
    session_grace: float = 0.0
    follower: ReaderAccess | None = None
    narrowed_to: str = ""

    @property
    def issuer_mode(self) -> bool:
        """Whether organization issuers are configured (docs/policy.md#two-modes)."""
        return bool(self.issuers)

    def serves(self, zone: str) -> Serves:
        """Return the kind of the brokers in a zone; a zone has brokers of one kind."""
        roles = {broker.role for broker in self.brokers if broker.zone == zone}
        return next((role.serves for role in roles), Serves.FLEET if zone == FLEET_ZONE else Serves.EDGE)

    def zone(self, name: str) -> Zone:
        """Return the zone of this name, which must be one of :attr:`zones`."""
        return next(zone for zone in self.zones if zone.name == name)

    @property
    def main_broker(self) -> BrokerSettings | None:
        """The broker with the streams and buckets: the first one other than edges and gates; None if all are."""
        return next((broker for broker in self.brokers if not broker.role.is_outpost), None)

    @property
    def buckets(self) -> tuple[BucketSpec, ...]:
        """The buckets in the callout account of :attr:`main_broker`."""
        if not self.revocations_bucket:
            return ()
        return (REVOCATIONS, NODES, OUTPOSTS) if self.readers else (REVOCATIONS, NODES)

    @property
    def readers(self) -> dict[str, str]:
        """The public key of the reader of each zone that has one; none without the bucket of revocations."""
        return {zone.name: zone.reader_nkey for zone in self.zones if zone.reader_nkey and self.revocations_bucket}

    @property
    def counter_socket(self) -> Path | None:
        """The socket of the process that counts the nodes of a token on this host; None if nothing counts them."""
        return counter_socket(self.revocations) if self.revocations and self.revocations_bucket else None

    @property
    def served_zones(self) -> tuple[Zone, ...]:
        """The zones whose brokers ask this service, the fleet's first if it is one of them."""
        return tuple(zone for zone in self.zones if zone.served)

    @property
    def fleet_is_static(self) -> bool:
        """Whether the fleet's servers decide by their own configuration (docs/static-fleet.md)."""
        return any(zone.is_fleet and not zone.served for zone in self.zones)

    @property
    def audit_files(self) -> tuple[Path, ...]:
        """The audit file of each zone; empty if records are not written to files."""
        narrowed = self.narrowed_to  # its audit settings already are those of the zone
        paths = [self.audit.path if narrowed else self.audit.of_zone(zone).path for zone in self.served_zones]
        return tuple(path for path in paths if path is not None)

    def of_zone(self, name: str) -> Settings:
        """Return the settings for the workers of one zone, without the other zones' secrets."""
        zone = self.zone(name)
        brokers = tuple(broker for broker in self.brokers if broker.zone == name)
        return replace(
            self,
            zones=(zone,),
            brokers=brokers,
            audit=self.audit.of_zone(zone),
            client_crl=self.client_crl if zone.is_fleet else (),
            narrowed_to=name,
        )

    def serving(self, name: str) -> ServingSettings:
        """Return the settings of one zone with the keys that its workers need.

        Raises:
            InputError: a key is missing, because these settings were not loaded for serving.
        """
        zone = self.zone(name)
        if zone.nkey_seed is None or zone.issuer_seed is None:
            raise InputError(f"zone {name} has no nkey_seed_file or no issuer_seed_file; run: broker-auth config check")
        served = ServedZone(
            name=name,
            nkey_seed=zone.nkey_seed,
            issuer_seed=zone.issuer_seed,
            xkey_seed=zone.xkey_seed,
            workers=zone.workers,
        )
        narrowed = self if self.narrowed_to == name else self.of_zone(name)
        values = {item.name: getattr(narrowed, item.name) for item in fields(Settings)}
        return ServingSettings(**values, served=served)


@dataclass(frozen=True, slots=True, kw_only=True)
class ServedZone:
    """The zone that a process serves, with every key that it needs; fields as in :class:`Zone`."""

    name: str
    nkey_seed: Secret
    issuer_seed: Secret
    xkey_seed: Secret | None
    workers: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ServingSettings(Settings):
    """Settings narrowed to one zone, complete for serving it. Made by :meth:`Settings.serving`."""

    served: ServedZone
