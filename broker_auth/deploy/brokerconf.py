"""Writes ``broker.conf``: the keys that a plan needs, each below a comment from the key table."""

from __future__ import annotations

import textwrap
import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from broker_auth.deploy.members import member_names
from broker_auth.deploy.plan import Edge, Layout, Plan, Topology
from broker_auth.errors import InputError
from broker_auth.settings.keys.table import find
from broker_auth.settings.model import FLEET_ZONE, Role

KEYS = "keys"
CLIENT_PASSWORD = f"{KEYS}/client_password"
SYSTEM_PASSWORD = f"{KEYS}/system_password"


@dataclass(frozen=True, slots=True, kw_only=True)
class _Outputs:
    """Paths and addresses of programs, as values of ``broker.conf``."""

    audit: str
    streams: str
    pid_file: str | None = None
    metrics: str | None = None
    monitor: str | None = None


_OUTPUTS: Final = {
    Layout.DIRECTORY: _Outputs(audit="file:audit.jsonl", pid_file="broker-auth.pid", streams="jetstream"),
    Layout.SYSTEM: _Outputs(
        audit="file:/var/log/broker-auth/audit.jsonl",
        pid_file="/run/broker-auth/broker-auth.pid",
        streams="/var/lib/nats",
    ),
    # Read-only but for the streams: records go out with the log, and probes ask by HTTP.
    Layout.CONTAINER: _Outputs(audit="stdout", metrics="0.0.0.0:9464", monitor="127.0.0.1:8222", streams="/data"),
}

_ROLES: Final = {Topology.SINGLE: Role.SINGLE, Topology.MIXED: Role.MIXED}  # of the fleet's broker
_OWN = "plugin.broker_auth."
_CHORIA = "plugin.choria.network."
_ISSUER = "plugin.security.issuer."
_WIDTH = 100

Line = tuple[str, str]


@dataclass(frozen=True, slots=True)
class ZoneFiles:
    """Paths of the keys of one zone, relative to the deployment's directory.

    An edge's keys are in a separate directory, which can be copied to a host that serves only that edge.
    """

    zone: str = FLEET_ZONE

    @property
    def directory(self) -> str:
        """Directory of all these files."""
        return KEYS if self.zone == FLEET_ZONE else f"{KEYS}/{self.zone}"

    @property
    def issuer_seed(self) -> str:
        """Seed that signs responses."""
        return f"{self.directory}/issuer.seed"

    @property
    def service_seed(self) -> str:
        """Seed of the service's nkey user."""
        return f"{self.directory}/service.seed"

    @property
    def xkey_seed(self) -> str:
        """Seed of the curve key that requests are encrypted to."""
        return f"{self.directory}/xkey.seed"

    @property
    def break_glass_seed(self) -> str:
        """Seed of the break-glass user, to be moved offline."""
        return f"{self.directory}/break-glass.seed"

    @property
    def break_glass_public(self) -> str:
        """Public key of the break-glass user, which stays when the seed is moved offline."""
        return f"{self.directory}/break-glass.public"

    @property
    def kick_seed(self) -> str:
        """Seed of the user that may only list and end connections."""
        return f"{self.directory}/kick.seed"

    @property
    def kick_public(self) -> str:
        """Public key of that user, which stays if the seed is moved away."""
        return f"{self.directory}/kick.public"

    @property
    def reader_seed(self) -> str:
        """Seed of the reader: by it a host without the fleet's zone learns what was revoked."""
        return f"{self.directory}/reader.seed"

    @property
    def reader_public(self) -> str:
        """Public key of that user, which stays if the seed is moved away."""
        return f"{self.directory}/reader.public"

    @property
    def names(self) -> tuple[str, ...]:
        """Paths of all files."""
        reader = () if self.zone == FLEET_ZONE else (self.reader_seed, self.reader_public)
        return (
            self.issuer_seed,
            self.service_seed,
            self.xkey_seed,
            self.break_glass_seed,
            self.break_glass_public,
            self.kick_seed,
            self.kick_public,
            *reader,
        )


@dataclass(frozen=True, slots=True)
class ZoneUsers:
    """The public keys of a zone's users of the system account, and of its reader."""

    break_glass: str
    kick: str
    reader: str | None = None


# Additions to a key's comment: why `init` chose this value, and who has to change it.
_NOTES: Final = {
    _OWN + "provisioner.identities": "This service's own certificate is named with them, because reports and the "
    "doctor see edges through the provisioning account. It knows the password in any case.",
    _OWN + "audit.output": "`broker-auth why` reads the file if one is named.",
    _OWN + "pid_file": "A second service on this machine needs another one: set BROKER_AUTH_PID_FILE for it.",
}


def text(plan: Plan, *, users: Mapping[str, ZoneUsers], leaf_users: Mapping[str, Role]) -> str:
    """Return the content of ``broker.conf``. Paths inside the plan's directory are written relative to it.

    Args:
        plan: with every file named, the development PKI's included.
        users: by zone, its users that nats-servers admit without the service.
        leaf_users: the names by which the fleet's leaf listener knows the certificates of edges and gates.

    Raises:
        InputError: a value cannot be represented in this format.
    """
    parts = [_HEAD]
    for title, lines in (
        ("Credentials", _credentials(plan)),
        ("This service", _service(plan, users[FLEET_ZONE])),
        *((f"Zone {zone}", zone_lines(zone, its)) for zone, its in users.items() if zone != FLEET_ZONE),
        ("The fleet's nats-servers" if plan.clustered else "The fleet's nats-server", _fleet(plan, leaf_users)),
        *((f"The nats-server of {edge.name}", _edge(plan, edge)) for edge in plan.edges),
    ):
        body = "\n".join(_written(key, value) for key, value in lines)
        if body:
            parts.append(f"# ---- {title} {'-' * (_WIDTH - len(title) - 8)}\n\n{body}")
    return "\n".join(parts)


_HEAD = """\
# Configuration of broker-auth, in Choria's format: `key = value`, paths relative to this file.
# Check it with `broker-auth config check`. After a change, render the configurations of the nats-servers
# again with `broker-auth config render`.
"""


def _credentials(plan: Plan) -> Iterator[Line]:
    if plan.signer_cert:
        yield _CHORIA + "provisioning.signer_cert", _list(plan, plan.signer_cert)
    yield _CHORIA + "provisioning.client_password", f"file:{CLIENT_PASSWORD}"
    yield _CHORIA + "system.user", "system"
    yield _CHORIA + "system.password", f"file:{SYSTEM_PASSWORD}"
    if plan.issuers:
        yield _ISSUER + "names", ", ".join(name for name, _ in plan.issuers)
        for name, public in plan.issuers:
            yield f"{_ISSUER}{name}.public", public
    if plan.provisioners and not plan.fleet_is_static:
        yield _OWN + "provisioner.identities", ", ".join(plan.provisioners)
    if plan.topology is Topology.SINGLE:
        yield _OWN + "provisioner.require_mtls", "false"
    yield _OWN + "client_ca", _path(plan, plan.files.ca)


def _service(plan: Plan, users: ZoneUsers) -> Iterator[Line]:
    yield _OWN + "brokers", ", ".join(("fleet", *(edge.name for edge in plan.edges)))
    if plan.fleet_is_static:
        yield _OWN + "fleet.auth", plan.fleet_auth.value
        yield from _user_lines(FLEET_ZONE, users)
    else:
        yield from zone_lines(FLEET_ZONE, users)
    outputs = _OUTPUTS[plan.layout]
    yield _OWN + "audit.output", outputs.audit
    if outputs.pid_file:
        yield _OWN + "pid_file", outputs.pid_file
    if outputs.metrics:
        yield _OWN + "metrics.listen", outputs.metrics
    yield _OWN + "tls.ca", _path(plan, plan.files.ca)


def zone_lines(zone: str, users: ZoneUsers) -> Iterator[Line]:
    """Yield the configuration keys of a zone; those of the fleet are the general ones."""
    prefix, files = _prefix(zone), ZoneFiles(zone)
    yield prefix + "nkey_seed_file", files.service_seed
    yield prefix + "issuer_seed_file", files.issuer_seed
    yield prefix + "xkey_seed_file", files.xkey_seed
    yield from _user_lines(zone, users)


def _user_lines(zone: str, users: ZoneUsers) -> Iterator[Line]:
    prefix = _prefix(zone)
    yield prefix + "break_glass_nkey", users.break_glass
    yield prefix + "kick_nkey", users.kick
    yield prefix + "kick_seed_file", ZoneFiles(zone).kick_seed
    if users.reader:
        yield prefix + "reader_nkey", users.reader
        yield prefix + "reader_seed_file", ZoneFiles(zone).reader_seed


def _prefix(zone: str) -> str:
    return _OWN if zone == FLEET_ZONE else f"{_OWN}zone.{zone}."


def _fleet(plan: Plan, leaf_users: Mapping[str, Role]) -> Iterator[Line]:
    broker, files = _OWN + "broker.fleet.", plan.files
    server = broker + "server."
    role = _ROLES.get(plan.topology, Role.FLEET)
    yield broker + "urls", urls(plan.fleet, plan.port)
    yield broker + "role", role.value
    if files.service_cert:  # for the fleet alone: edges ask for none, and with it a host of theirs could join the fleet
        yield broker + "tls.certificate", _path(plan, files.service_cert)
        yield broker + "tls.key", _path(plan, files.service_key)
    yield server + "name", member_names(plan.fleet)[0] if plan.clustered else "fleet"
    yield server + "listen", f"{_host(plan.bind)}:{plan.port}"
    yield server + "tls.certificate", _path(plan, files.server_cert)
    yield server + "tls.key", _path(plan, files.server_key)
    if role.verifies_clients or plan.clustered:
        yield server + "tls.ca", _path(plan, files.ca)
    yield server + "store_dir", _OUTPUTS[plan.layout].streams
    yield from _monitor(plan, server)
    if plan.topology is Topology.WEBSOCKET:
        yield server + "websocket.listen", f"{_host(plan.bind)}:{plan.websocket_port}"
    if plan.clustered:
        yield server + "cluster.name", "fleet"
        yield server + "cluster.listen", f"{_host(plan.bind)}:{plan.cluster_port}"
        yield server + "cluster.routes", urls(plan.fleet, plan.cluster_port)
    if leaf_users:
        yield server + "leaf.listen", f"{_host(plan.bind)}:{plan.leaf_port}"
        yield server + "leaf.tls.ca", _path(plan, files.leaf_ca)
        for key, role in (("leaf.user", Role.EDGE), ("leaf.gate", Role.GATE)):
            if names := [name for name, its in leaf_users.items() if its is role]:
                yield server + key, ", ".join(names)


def _edge(plan: Plan, edge: Edge) -> Iterator[Line]:
    broker, files = f"{_OWN}broker.{edge.name}.", plan.files.of_edge(edge.name)
    server = broker + "server."
    yield broker + "urls", urls([edge.host], plan.port_of(edge))
    yield broker + "role", edge.role.value
    yield server + "name", edge.name
    yield server + "listen", f"{_host(plan.bind)}:{plan.port_of(edge)}"
    yield server + "tls.certificate", _path(plan, files.edge_cert or files.server_cert)
    yield server + "tls.key", _path(plan, files.edge_key or files.server_key)
    yield from _monitor(plan, server)
    yield server + "leaf.remotes", urls(plan.fleet, plan.leaf_port)
    yield server + "leaf.tls.ca", _path(plan, files.ca)
    yield server + "leaf.tls.certificate", _path(plan, files.leaf_cert)
    yield server + "leaf.tls.key", _path(plan, files.leaf_key)


def _monitor(plan: Plan, server: str) -> Iterator[Line]:
    if listen := _OUTPUTS[plan.layout].monitor:
        yield server + "monitor.listen", listen


def _written(key: str, value: str) -> str:
    if any(unicodedata.category(character) in ("Cc", "Cs") for character in value) or value != value.strip():
        raise InputError(
            f"{key}: {value!r} contains a control character, or begins or ends with white space; choose another value"
        )
    match = find(key)
    assert match, key
    comment = " ".join(filter(None, (match[0].meaning, _NOTES.get(key))))
    meaning = textwrap.fill(comment, _WIDTH, initial_indent="# ", subsequent_indent="# ")
    return f"{meaning}\n{key} = {value}\n"


def _path(plan: Plan, path: Path | None) -> str:
    assert path is not None
    absolute = Path.cwd() / path
    inside = absolute.is_relative_to(plan.directory)
    return str(absolute.relative_to(plan.directory) if inside else absolute)


def _list(plan: Plan, signers: Sequence[str]) -> str:
    """Return files, or keys written inline; refuse names with a comma, which would be split."""
    for signer in signers:
        if "," in signer:
            raise InputError(f"--signer-cert: {signer!r} contains a comma, which separates files; rename the file")
    return ", ".join(_signer(plan, signer) for signer in signers)


def _signer(plan: Plan, signer: str) -> str:
    inline = len(signer) == 64 and not Path(signer).exists()
    return signer if inline else _path(plan, Path(signer))


def urls(hosts: Sequence[str], port: int, *, scheme: str = "tls") -> str:
    """Return a list of URLs, an IPv6 address in brackets."""
    return ", ".join(f"{scheme}://{_host(host)}:{port}" for host in hosts)


def _host(host: str) -> str:
    return f"[{host}]" if ":" in host else host
