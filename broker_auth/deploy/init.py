"""``broker-auth init``: writes a deployment into a directory, ready to start."""

from __future__ import annotations

import dataclasses
import re
import secrets
import shlex
from dataclasses import dataclass
from pathlib import Path

from broker_auth.certificates.certificate import Certificate, CertificateError
from broker_auth.certificates.files import read_certificates
from broker_auth.deploy import brokerconf, contexts, devpki
from broker_auth.deploy.members import member_names, write_servers
from broker_auth.deploy.natsbinary import require_optional_certificates
from broker_auth.deploy.plan import (
    PLACEHOLDER,
    Edge,
    OwnFiles,
    Plan,
    Topology,
    misfits_of_static,
    missing_options,
    superfluous_options,
)
from broker_auth.deploy.server_checks import is_address
from broker_auth.deploy.workspace import Workspace
from broker_auth.errors import ConfigurationError, InputError
from broker_auth.files.reading import BadValue
from broker_auth.natsio.nkey import NkeyKind, generate_seed, public_nkey
from broker_auth.settings.keys.values import broker_name, host
from broker_auth.settings.load import check
from broker_auth.settings.model import FLEET_ZONE, Role, Settings
from broker_auth.settings.problems import Problem

CONFIGURATION = "broker.conf"
_PLAIN_NAME = re.compile(r"[A-Za-z0-9_.@-]+")  # usable as an identity: neither a list nor a regular expression
_PASSWORD_BYTES = 24  # of entropy, infeasible to guess


@dataclass(frozen=True, slots=True, kw_only=True)
class Deployment:
    """A deployment that was written.

    Attributes:
        configuration: ``broker.conf``.
        servers: name of each nats-server to its configuration: the broker's, in a cluster the member's.
        contexts: directory of contexts of the ``nats`` command: its ``$XDG_CONFIG_HOME``.
        settings: what ``broker.conf`` says.
        warnings: what is allowed in it but probably not meant.
        break_glass_seeds: to be moved to a safe place offline; without those that have been.
        next_commands: the three commands that come next.
    """

    configuration: Path
    servers: dict[str, Path]
    contexts: Path
    settings: Settings
    warnings: tuple[Problem, ...]
    break_glass_seeds: tuple[Path, ...]
    next_commands: tuple[str, ...]


def initialize(plan: Plan) -> Deployment:
    """Write the deployment that a plan describes; if a step fails, undo the previous ones.

    Raises:
        InputError: options are missing or contradictory, files exist already, or a given file cannot be used.
        ConfigurationError: the operator's files do not result in a usable configuration.
    """
    plan = _with_plain_hosts(dataclasses.replace(plan, directory=Path.cwd() / plan.directory))
    _check(plan)
    workspace = Workspace(plan.directory, force=plan.force)
    workspace.require_absent(_file_names(plan))
    try:
        return _write(workspace, plan)
    except BaseException:
        workspace.undo()
        raise


def _write(workspace: Workspace, plan: Plan) -> Deployment:
    workspace.make_directory()
    zones = _zones(plan)
    users = {zone: write_zone_keys(workspace, zone, served=_is_served(plan, zone)) for zone in zones}
    _write_passwords(workspace)
    if plan.dev_pki:
        devpki.write(workspace, plan)
        plan = devpki.completed(workspace, plan)
    leaf_users = _leaf_users(plan)
    plan = dataclasses.replace(plan, provisioners=_provisioners(plan))
    text = brokerconf.text(plan, users=users, leaf_users=leaf_users)
    configuration = workspace.write(CONFIGURATION, text, private=True)
    # The file must be sufficient by itself, so the environment is ignored.
    report = check(configuration, {}, serving=True)
    if report.settings is None:
        raise ConfigurationError(report.problems)
    settings = report.settings
    servers = write_servers(workspace, settings)
    for name, text in contexts.contexts(plan).items():
        workspace.make_directory(str(Path(name).parent))
        workspace.write(name, text)
    seeds = [workspace.path(brokerconf.ZoneFiles(zone).break_glass_seed) for zone in zones]
    return Deployment(
        configuration=configuration,
        servers=servers,
        contexts=workspace.path(contexts.HOME),
        settings=settings,
        warnings=report.warnings,
        break_glass_seeds=tuple(seed for seed in seeds if seed.exists()),
        next_commands=_next_commands(plan, configuration, servers),
    )


def _zones(plan: Plan) -> tuple[str, ...]:
    return (FLEET_ZONE, *(edge.name for edge in plan.edges))


def _fleet_servers(plan: Plan) -> tuple[str, ...]:
    return member_names(plan.fleet) if plan.clustered else ("fleet",)


def _is_served(plan: Plan, zone: str) -> bool:
    return zone != FLEET_ZONE or not plan.fleet_is_static


def write_zone_keys(workspace: Workspace, zone: str, *, served: bool = True) -> brokerconf.ZoneUsers:
    """Create the missing keys of a zone, and return the public keys of its users.

    Args:
        workspace: the deployment's directory.
        zone: its name.
        served: whether its brokers ask this service; otherwise the keys of those users are the only ones.
    """
    files = brokerconf.ZoneFiles(zone)
    workspace.make_directory(brokerconf.KEYS, 0o700)
    workspace.make_directory(files.directory, 0o700)
    for name, kind in (
        (files.issuer_seed, NkeyKind.ACCOUNT),
        (files.service_seed, NkeyKind.USER),
        (files.xkey_seed, NkeyKind.CURVE),
    ):
        if served:
            workspace.keep_or_write(name, generate_seed(kind).encode, private=True)
    return brokerconf.ZoneUsers(
        break_glass=_user(workspace, files.break_glass_seed, files.break_glass_public),
        kick=_user(workspace, files.kick_seed, files.kick_public),
        reader=None if zone == FLEET_ZONE else _user(workspace, files.reader_seed, files.reader_public),
    )


def _write_passwords(workspace: Workspace) -> None:
    for name in (brokerconf.CLIENT_PASSWORD, brokerconf.SYSTEM_PASSWORD):
        workspace.keep_or_write(name, secrets.token_urlsafe(_PASSWORD_BYTES).encode, private=True)


def _user(workspace: Workspace, seed_file: str, public_file: str) -> str:
    """Return the public key of a user; create the seed once only, because it is expected to be moved away."""

    def make() -> bytes:
        seed = workspace.keep_or_write(seed_file, generate_seed(NkeyKind.USER).encode, private=True)
        return public_nkey(seed.decode("ascii", "replace").strip()).encode()

    public = workspace.keep_or_write(public_file, make, private=False)
    return public.decode("ascii", "replace").strip()


def _file_names(plan: Plan) -> tuple[str, ...]:
    servers = [f"{name}.conf" for name in (*_fleet_servers(plan), *(edge.name for edge in plan.edges))]
    keys = [name for zone in _zones(plan) for name in brokerconf.ZoneFiles(zone).names]
    keys += [brokerconf.CLIENT_PASSWORD, brokerconf.SYSTEM_PASSWORD]
    return (
        CONFIGURATION,
        *servers,
        *contexts.file_names(plan),
        *keys,
        *(devpki.file_names(plan) if plan.dev_pki else ()),
    )


def _check(plan: Plan) -> None:
    """Refuse what can be known to be wrong before the first file is written."""
    if missing := missing_options(plan):
        raise InputError(f"without --dev-pki also needed: {', '.join(missing)}")
    if misfits := misfits_of_static(plan):
        raise InputError(f"a static fleet cannot be combined with {', '.join(misfits)}; remove that")
    if options := superfluous_options(plan):
        raise InputError(f"--dev-pki makes these itself, so leave out {', '.join(options)}")
    if plan.topology is Topology.MIXED:
        require_optional_certificates()
    _check_hosts(plan)
    _check_names(plan)
    files = [path for edge in plan.edges for path in _files(plan.files.of_edge(edge.name))] or _files(plan.files)
    absent = [str(file) for file in dict.fromkeys(files) if not file.is_file()]
    if absent:
        raise InputError(f"no such file: {', '.join(absent)}; correct the path")


def _files(files: OwnFiles) -> list[Path]:
    """Return the files that are read here; certificates of users may be on their machines alone."""
    names = [item.name for item in dataclasses.fields(files) if not item.name.startswith("user_")]
    options = [getattr(files, name) for name in names]
    return [file for file in options if file is not None]


def _check_hosts(plan: Plan) -> None:
    if plan.named_edges and plan.topology is not Topology.EDGE:
        raise InputError(f"--edge: the topology {plan.topology} has no edge; leave it out")
    if plan.named_edges and all(edge.role is Role.GATE for edge in plan.named_edges):
        raise InputError("--gate: unprovisioned nodes need an edge beside it; add --edge NAME=HOST")
    if plan.named_edges and plan.edge_host:
        raise InputError("--edge and --edge-host both name an edge's host; leave out --edge-host")
    addresses = [item for item in plan.fleet_hosts if is_address(item)] if plan.clustered else []
    if addresses:
        raise InputError(
            f"--fleet-host: {', '.join(addresses)}: nats-server knows the members of a cluster by the DNS names in "
            "their certificates, so use host names"
        )
    if len(set(plan.fleet_hosts)) < len(plan.fleet_hosts):
        raise InputError("--fleet-host names a host twice; each member of a cluster has a host to itself")


def _check_names(plan: Plan) -> None:
    """Refuse names of edges that files, brokers or zones of this deployment have, too."""
    names = [edge.name for edge in plan.edges]
    used = {"broker", FLEET_ZONE, *_fleet_servers(plan)}
    used.update(Path(password).name for password in (brokerconf.CLIENT_PASSWORD, brokerconf.SYSTEM_PASSWORD))
    if plan.dev_pki:
        used.update(devpki.names_in_use(plan))
    for name in names:
        if name in used or names.count(name) > 1:
            raise InputError(f"--edge: the name {name} is used for something else here; choose another")
    links = (plan.files.leaf_cert, plan.files.leaf_key)
    if len(names) > 1 and any(path is not None and PLACEHOLDER not in str(path) for path in links):
        raise InputError(
            f"--leaf-cert and --leaf-key: each edge needs a link certificate that no other has; write {PLACEHOLDER} in "
            "their names where the edge's name stands"
        )


def _with_plain_hosts(plan: Plan) -> Plan:
    """Validate every host like the configuration does, and remove the brackets of IPv6 addresses."""
    try:
        return dataclasses.replace(
            plan,
            hosts=tuple(map(host, plan.hosts)),
            fleet_hosts=tuple(map(host, plan.fleet_hosts)),
            edge_host=host(plan.edge_host) if plan.edge_host else None,
            named_edges=tuple(
                Edge(broker_name(edge.name, Path()), host(edge.host), edge.role) for edge in plan.named_edges
            ),
            listen=host(plan.listen) if plan.listen else None,
        )
    except BadValue as error:
        raise InputError(str(error)) from error


def _leaf_users(plan: Plan) -> dict[str, Role]:
    """Return the name of each edge by which nats-server knows it: the first DNS name of its link certificate.

    nats-server's ``verify_and_map`` tries the alternative names first, then the whole subject.
    """
    users: dict[str, str] = {}
    for edge in plan.edges:
        path = plan.files.of_edge(edge.name).leaf_cert
        assert path
        dns_names = _dns_names(_certificate(path), path)
        if not dns_names:
            raise InputError(f"{path} has no DNS name among its alternative names; nats-server knows edges by it")
        if dns_names[0] in users:
            raise InputError(
                f"{path} has the first DNS name {dns_names[0]}, as the link certificate of {users[dns_names[0]]} has; "
                "issue it with another"
            )
        users[dns_names[0]] = edge.name
    roles = {edge.name: edge.role for edge in plan.edges}
    return {user: roles[name] for user, name in users.items()}


def _provisioners(plan: Plan) -> tuple[str, ...]:
    """Return the given identities and the service's, because reports and the doctor query edges as a provisioner.

    The service knows the provisioner's password in any case. Without any identity every verified client may be the
    provisioner, including the service. A service certificate without a usable name is ignored.
    """
    identities, path = tuple(plan.provisioners), plan.files.service_cert
    if not identities or path is None:
        return identities
    certificate = _certificate(path)
    common = () if certificate.has_alternative_names else (certificate.common_name,)
    names = [name for name in (*_dns_names(certificate, path), *common) if _PLAIN_NAME.fullmatch(name)]
    return tuple(dict.fromkeys((*identities, *names[:1])))


def _certificate(path: Path) -> Certificate:
    try:
        return read_certificates(path)[0]
    except BadValue as error:
        raise InputError(str(error)) from error


def _dns_names(certificate: Certificate, path: Path) -> tuple[str, ...]:
    try:
        return certificate.alternative_names.dns
    except CertificateError as error:
        raise InputError(f"{path}: {error}; issue another certificate") from error


def _next_commands(plan: Plan, configuration: Path, servers: dict[str, Path]) -> tuple[str, ...]:
    start = [shlex.join(["nats-server", "-c", str(path)]) for path in servers.values()]
    serve = shlex.join(["broker-auth", "serve", "--config", str(configuration)])
    check = shlex.join(["broker-auth", "config", "check", str(configuration)])
    return (*start, serve) if plan.edges else (check, *start, serve)
