"""``broker-auth init``: a deployment in a directory, ready to start."""

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
_PLAIN_NAME = re.compile(r"[A-Za-z0-9_.@-]+")  # as an identity: no list and no regular expression
_PASSWORD_BYTES = 24  # of entropy, far beyond guessing


@dataclass(frozen=True, slots=True, kw_only=True)
class Deployment:
    """What was written.

    Attributes:
        configuration: ``broker.conf``.
        servers: broker name to its nats-server configuration.
        settings: what ``broker.conf`` says.
        warnings: what is allowed in it but probably not meant.
        break_glass_seeds: to be moved to a safe place offline; without those that have been.
        next_commands: the three commands that come next.
    """

    configuration: Path
    servers: dict[str, Path]
    settings: Settings
    warnings: tuple[Problem, ...]
    break_glass_seeds: tuple[Path, ...]
    next_commands: tuple[str, ...]


def initialize(plan: Plan) -> Deployment:
    """Write the deployment a plan describes; if that fails half way, everything written is taken back.

    Raises:
        InputError: options are missing or contradict each other, files are there already, or a file
            that was named cannot be used.
        ConfigurationError: the operator's files do not make a usable configuration.
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
    # The file alone has to be enough, so the environment is left out.
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
    """Make the keys of a zone that are missing, and return its break-glass user's public key."""
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
    """Return the public key. Its seed is made once and expected to leave, so its absence makes no new one."""

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
    """Everything that can be known before the first file is written."""
    if missing := missing_options(plan):
        raise InputError(f"without --dev-pki also needed: {', '.join(missing)}")
    if given := superfluous_options(plan):
        raise InputError(f"--dev-pki makes these itself, so leave out {', '.join(given)}")
    files = [getattr(plan.files, item.name) for item in dataclasses.fields(plan.files)]
    absent = [str(file) for file in files if file is not None and not file.is_file()]
    if absent:
        raise InputError(f"no such file: {', '.join(absent)}")


def _with_plain_hosts(plan: Plan) -> Plan:
    """Check every host by the rule of the configuration, and take IPv6 addresses out of their brackets."""
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
    """The name in the edge's certificate by which nats-server knows it: a DNS name, else the subject.

    nats-server's ``verify_and_map`` tries the alternative names first, then the whole subject.
    """
    if plan.topology is not Topology.EDGE:
        return None
    path = plan.files.leaf_cert
    assert path
    found = _dns_names(_certificate(path), path)
    if not found:
        raise InputError(f"{path} has no DNS name among its alternative names; nats-server knows edges by it")
    return found[0]


def _provisioners(plan: Plan) -> tuple[str, ...]:
    """Those given, and the service: reports and the doctor see edges through the provisioning account.

    It knows the provisioner's password in any case. Where nobody is named, everybody verified may be the
    provisioner, and the service with them. A service without a usable name is left out.
    """
    given, path = tuple(plan.provisioners), plan.files.service_cert
    if not given or path is None:
        return given
    certificate = _certificate(path)
    common = () if certificate.has_alternative_names else (certificate.common_name,)
    names = [name for name in (*_dns_names(certificate, path), *common) if _PLAIN_NAME.fullmatch(name)]
    return tuple(dict.fromkeys((*given, *names[:1])))


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
