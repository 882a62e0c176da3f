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
from broker_auth.deploy import brokerconf, devpki
from broker_auth.deploy.plan import Plan, Topology, missing_options, superfluous_options
from broker_auth.deploy.render import render
from broker_auth.deploy.workspace import Workspace
from broker_auth.errors import ConfigurationError, InputError
from broker_auth.files.reading import BadValue
from broker_auth.natsio.nkey import NkeyKind, generate_seed, public_nkey
from broker_auth.settings.keys.values import host
from broker_auth.settings.load import check
from broker_auth.settings.model import FLEET_ZONE, Settings
from broker_auth.settings.problems import Problem

CONFIGURATION = "broker.conf"
_PLAIN_NAME = re.compile(r"[A-Za-z0-9_.@-]+")  # usable as an identity: neither a list nor a regular expression
_PASSWORD_BYTES = 24  # of entropy, infeasible to guess


@dataclass(frozen=True, slots=True, kw_only=True)
class Deployment:
    """A deployment that was written.

    Attributes:
        configuration: path of ``broker.conf``.
        servers: path of the nats-server configuration by broker name.
        settings: the settings loaded from ``broker.conf``.
        warnings: settings that are valid but probably unintended.
        break_glass_seeds: seeds that still have to be moved to a safe place offline.
        next_commands: the commands to run next.
    """

    configuration: Path
    servers: dict[str, Path]
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
    break_glass = {zone: write_zone_keys(workspace, zone) for zone in zones}
    _write_passwords(workspace)
    if plan.dev_pki:
        devpki.write(workspace, plan)
        plan = devpki.completed(workspace, plan)
    leaf_user = _leaf_user(plan)
    plan = dataclasses.replace(plan, provisioners=_provisioners(plan))
    text = brokerconf.text(plan, break_glass=break_glass, leaf_user=leaf_user)
    configuration = workspace.write(CONFIGURATION, text, private=True)
    # The file must be sufficient by itself, so the environment is ignored.
    report = check(configuration, {}, serving=True)
    if report.settings is None:
        raise ConfigurationError(report.problems)
    settings = report.settings
    servers = {
        broker.name: workspace.write(f"{broker.name}.conf", render(settings, broker)) for broker in settings.brokers
    }
    seeds = [workspace.path(brokerconf.ZoneFiles(zone).break_glass_seed) for zone in zones]
    return Deployment(
        configuration=configuration,
        servers=servers,
        settings=settings,
        warnings=report.warnings,
        break_glass_seeds=tuple(seed for seed in seeds if seed.exists()),
        next_commands=_next_commands(plan, configuration, servers),
    )


def _zones(plan: Plan) -> tuple[str, ...]:
    return (FLEET_ZONE, "edge") if plan.topology is Topology.EDGE else (FLEET_ZONE,)


def write_zone_keys(workspace: Workspace, zone: str) -> str:
    """Create the missing keys of a zone, and return its break-glass user's public key."""
    files = brokerconf.ZoneFiles(zone)
    workspace.make_directory(brokerconf.KEYS, 0o700)
    workspace.make_directory(files.directory, 0o700)
    for name, kind in (
        (files.issuer_seed, NkeyKind.ACCOUNT),
        (files.service_seed, NkeyKind.USER),
        (files.xkey_seed, NkeyKind.CURVE),
    ):
        workspace.keep_or_write(name, generate_seed(kind).encode, private=True)
    return _break_glass(workspace, files)


def _write_passwords(workspace: Workspace) -> None:
    for name in (brokerconf.CLIENT_PASSWORD, brokerconf.SYSTEM_PASSWORD):
        workspace.keep_or_write(name, secrets.token_urlsafe(_PASSWORD_BYTES).encode, private=True)


def _break_glass(workspace: Workspace, files: brokerconf.ZoneFiles) -> str:
    """Return the public key; create the seed once only, because it is expected to be moved away."""

    def make() -> bytes:
        seed = workspace.keep_or_write(files.break_glass_seed, generate_seed(NkeyKind.USER).encode, private=True)
        return public_nkey(seed.decode("ascii", "replace").strip()).encode()

    public = workspace.keep_or_write(files.break_glass_public, make, private=False)
    return public.decode("ascii", "replace").strip()


def _file_names(plan: Plan) -> tuple[str, ...]:
    servers = ("fleet.conf", "edge.conf") if plan.topology is Topology.EDGE else ("fleet.conf",)
    keys = [name for zone in _zones(plan) for name in brokerconf.ZoneFiles(zone).names]
    keys += [brokerconf.CLIENT_PASSWORD, brokerconf.SYSTEM_PASSWORD]
    return (CONFIGURATION, *servers, *keys, *(devpki.file_names(plan) if plan.dev_pki else ()))


def _check(plan: Plan) -> None:
    """Check everything that can be checked before the first file is written."""
    if missing := missing_options(plan):
        raise InputError(f"missing options: {', '.join(missing)}; give them, or use --dev-pki")
    if superfluous := superfluous_options(plan):
        raise InputError(f"--dev-pki creates these files itself; leave out {', '.join(superfluous)}")
    files = [getattr(plan.files, item.name) for item in dataclasses.fields(plan.files)]
    absent = [str(file) for file in files if file is not None and not file.is_file()]
    if absent:
        raise InputError(f"no such file: {', '.join(absent)}; correct the path")


def _with_plain_hosts(plan: Plan) -> Plan:
    """Validate every host like the configuration does, and remove the brackets of IPv6 addresses."""
    try:
        return dataclasses.replace(
            plan,
            hosts=tuple(map(host, plan.hosts)),
            edge_host=host(plan.edge_host) if plan.edge_host else None,
            listen=host(plan.listen) if plan.listen else None,
        )
    except BadValue as error:
        raise InputError(str(error)) from error


def _leaf_user(plan: Plan) -> str | None:
    """Return the DNS name in the edge's certificate that nats-server maps to a leaf user.

    nats-server's ``verify_and_map`` tries the alternative names first, then the whole subject.
    """
    if plan.topology is not Topology.EDGE:
        return None
    path = plan.files.leaf_cert
    assert path
    names = _dns_names(_certificate(path), path)
    if not names:
        raise InputError(
            f"{path} has no DNS name among its alternative names, which nats-server identifies edges by; "
            "issue a certificate with one"
        )
    return names[0]


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
    return (*start, serve) if plan.topology is Topology.EDGE else (check, *start, serve)
