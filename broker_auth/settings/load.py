"""Loading a configuration from file and environment: the result is :class:`Settings`, or every problem.

:mod:`.choria_file` splits the file into entries, :mod:`.source` overrides them by the environment and parses values
with the key table (:mod:`.keys.table`), and the functions here and in :mod:`.checks` check values against each other
and against files.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from broker_auth.errors import ConfigurationError
from broker_auth.files.ownership import configured_by
from broker_auth.files.reading import AS_SERVICE, BadValue, read
from broker_auth.settings.checks.audit import audit_outputs
from broker_auth.settings.checks.brokers import broker_names, brokers
from broker_auth.settings.checks.buckets import check_buckets
from broker_auth.settings.checks.configuration_files import check_files
from broker_auth.settings.checks.crls import client_crls
from broker_auth.settings.checks.fleet_auth import check_fleet_auth, fleet_is_static
from broker_auth.settings.checks.identities import warn_of_common_names
from broker_auth.settings.checks.ignored import warn_of_ignored
from broker_auth.settings.checks.passwords import system_passwords
from broker_auth.settings.checks.provisioning import provisioning
from broker_auth.settings.checks.readers import check_readers, follower
from broker_auth.settings.checks.revocations import revocations_file, session_grace
from broker_auth.settings.checks.trust import trust
from broker_auth.settings.checks.zones import zone_of, zones
from broker_auth.settings.choria_file import MAX_FILE_BYTES, parse
from broker_auth.settings.keys import broker as broker_keys
from broker_auth.settings.keys import choria, own
from broker_auth.settings.model import (
    FLEET_ZONE,
    AccountNames,
    AuditSettings,
    ExpiredCrl,
    Role,
    Settings,
    StreamSettings,
)
from broker_auth.settings.plugin_directory import add_plugin_directory
from broker_auth.settings.problems import ConfigurationReport, Findings, Problem
from broker_auth.settings.source import Source


def load(path: Path, environ: Mapping[str, str], *, serving: bool, remote: bool = False) -> Settings:
    """Return the settings in ``path``, overridden by ``environ``.

    Args:
        path: the configuration file.
        environ: the process's environment.
        serving: True to run the service: seeds, broker URLs and TLS files must be usable.
            Otherwise they may be missing, and those files are not opened.
        remote: whether edges' seeds may be missing, because their workers run on other hosts.

    Raises:
        ConfigurationError: the configuration has problems; lists all of them.
    """
    report = check(path, environ, serving=serving, remote=remote)
    if report.settings is None:
        raise ConfigurationError(report.problems)
    return report.settings


def outline(path: Path, environ: Mapping[str, str]) -> Settings:
    """Return the settings without secrets: the zones, the address of health checks.

    For the process that starts a process for each zone and must not know their secrets.

    Raises:
        ConfigurationError: the configuration has problems; lists all of them.
    """
    report = _check(path, environ, datetime.now(UTC), _Scope(serving=False, secrets=False))
    if report.settings is None:
        raise ConfigurationError(report.problems)
    return report.settings


@dataclass(frozen=True, slots=True, kw_only=True)
class _Scope:
    """The parts of a configuration to read; attributes as the parameters of :func:`check`."""

    serving: bool = True
    zone: str | None = None
    remote: bool = False
    apart: bool = False
    secrets: bool = True


def check(
    path: Path,
    environ: Mapping[str, str],
    *,
    serving: bool = True,
    zone: str | None = None,
    remote: bool = False,
    apart: bool = False,
    now: datetime | None = None,
) -> ConfigurationReport:
    """Return the problems of a configuration, or its settings if there are no problems.

    Args:
        path: see :func:`load`.
        environ: see :func:`load`.
        serving: see :func:`load`.
        zone: the only zone to read: keys, files and passwords of the others are not read, and may be missing.
        remote: see :func:`load`.
        apart: whether ``zone`` is served without the fleet's, so that it needs its reader.
        now: the time that expiry of certificates is compared with; the current time by default.
    """
    scope = _Scope(serving=serving, zone=zone, remote=remote, apart=apart)
    path = Path.cwd() / path
    with configured_by(path):
        return _check(path, environ, now or datetime.now(UTC), scope)


def _check(path: Path, environ: Mapping[str, str], now: datetime, scope: _Scope) -> ConfigurationReport:
    findings = Findings(file=str(path))
    try:
        content = read(path, MAX_FILE_BYTES)
    except BadValue as error:
        findings.problem(Problem(file=str(path), what=_without(str(path), error.what), remedy=_file_remedy(error)))
        return findings.report(None)
    source = Source(path, findings)
    source.add_file(parse(content.data, findings))
    files = {findings.file: content} | add_plugin_directory(source)
    source.override_first(environ, own.BROKERS, choria.ISSUER_NAMES)
    source.add_environment(environ, source.get(own.BROKERS), source.get(choria.ISSUER_NAMES))
    check_files(source, files)
    warn_of_ignored(source)
    return findings.report(_settings(source, now, scope))


def _file_remedy(error: BadValue) -> str:
    denied = isinstance(error.__cause__, PermissionError)
    return f"{AS_SERVICE}, or as root" if denied else "name a configuration file that can be read"


def _without(path: str, what: str) -> str:
    """Remove the file's name, which is already at the start of the line."""
    return what.removeprefix(f"{path} ")


def _settings(source: Source, now: datetime, scope: _Scope) -> Settings:
    _withhold(source, scope)
    source.parse_all()
    trusted = trust(source, now)
    names = broker_names(source, serving=scope.serving)
    _check_zone(source, names, scope.zone)
    check_fleet_auth(source, names, serving=scope.serving)
    check_buckets(source, names)
    selected = [name for name in names if scope.zone in (None, zone_of(source, name))]
    roles = [source.get(broker_keys.ROLE, name) for name in names]
    served = brokers(source, selected, now, serving=scope.serving)
    if scope.serving:
        check_readers(source, names)
        warn_of_common_names(source, served)
    settings = Settings(
        path=source.path,
        brokers=served,
        zones=zones(source, names, serving=scope.serving, only=scope.zone, remote=scope.remote),
        accounts=_accounts(source),
        provisioning=provisioning(source, trusted),
        system_user=source.get(choria.SYSTEM_USER),
        system_passwords=system_passwords(source),
        client_hosts=source.get(choria.CLIENT_HOSTS),
        client_signers=trusted.client_signers,
        server_signers=trusted.server_signers,
        deny_server_connections=source.get(choria.DENY_SERVERS),
        issuers=trusted.issuers,
        pub_sub_ca=trusted.pub_sub_ca,
        client_ca=trusted.client_ca,
        token_leeway=source.get(own.TOKEN_LEEWAY),
        chain_issuer_max_age=source.get(own.CHAIN_ISSUER_MAX_AGE),
        streams=_streams(source),
        audit=AuditSettings(
            outputs=audit_outputs(source, roles),
            requests=source.get(own.AUDIT_REQUESTS),
            max_bytes=source.get(own.AUDIT_MAX_BYTES),
            keep=source.get(own.AUDIT_KEEP),
        ),
        metrics_listen=source.get(own.METRICS_LISTEN),
        pid_file=source.get(own.PID_FILE),
        revocations=revocations_file(source, serving=scope.serving),
        client_crl=client_crls(
            source, trusted.client_ca, now, readable=scope.serving and scope.zone in (None, FLEET_ZONE)
        ),
        deny_expired_crl=source.get(own.CLIENT_CRL_EXPIRED) is ExpiredCrl.DENY,
        revocations_bucket=source.get(own.REVOCATIONS_BUCKET),
        follower=follower(source, names, scope.zone, now) if scope.zone and scope.apart else None,
        session_grace=session_grace(source),
    )
    known = {zone.name for zone in settings.zones}
    return settings if scope.zone is None or scope.zone not in known else settings.of_zone(scope.zone)


def _withhold(source: Source, scope: _Scope) -> None:
    """Skip the secrets that the zone of an edge or a gate does not need.

    Neither admits the system user, a gate no provisioner, and an edge no provisioner by certificate.
    """
    provisioners = (choria.CLIENT_PASSWORD, own.PREVIOUS_CLIENT_PASSWORD)
    operators = (choria.SYSTEM_PASSWORD, own.PREVIOUS_SYSTEM_PASSWORD)
    edge = scope.zone not in (None, FLEET_ZONE)
    if edge or not scope.secrets:
        source.withhold(*operators)
    if not scope.secrets or (edge and (source.get(own.REQUIRE_MTLS) or _is_gate(source, scope.zone))):
        source.withhold(*provisioners)


def _is_gate(source: Source, zone: str | None) -> bool:
    names = source.get(own.BROKERS)
    return any(source.get(broker_keys.ROLE, name) is Role.GATE and zone_of(source, name) == zone for name in names)


def _check_zone(source: Source, names: Sequence[str], zone: str | None) -> None:
    there = sorted({zone_of(source, name) for name in names})
    if zone is not None and zone not in there:
        what, remedy = f"has no broker in zone {zone!r}", f"name one of {', '.join(there)}"
        source.problem(own.BROKERS, what, remedy)
    if zone == FLEET_ZONE and fleet_is_static(source):
        what, remedy = f"is static, so the zone {FLEET_ZONE} is not served", "name the zone of an edge"
        source.problem(own.FLEET_AUTH, what, remedy)


def _accounts(source: Source) -> AccountNames:
    named: dict[str, str] = {}
    for key in (own.ACCOUNT_FLEET, own.ACCOUNT_PROVISIONING, own.ACCOUNT_SYSTEM):
        name = source.get(key)
        if name in named:
            here = key if source.is_set(key) else own.ACCOUNT_FLEET
            source.problem(here, f"{key.name} and {named[name]} are the same account {name!r}", "give each its own")
        named.setdefault(name, key.name)
    return AccountNames(
        fleet=source.get(own.ACCOUNT_FLEET),
        provisioning=source.get(own.ACCOUNT_PROVISIONING),
        system=source.get(own.ACCOUNT_SYSTEM),
    )


def _streams(source: Source) -> StreamSettings:
    return StreamSettings(
        event_retention=source.get(choria.EVENT_RETENTION),
        event_replicas=source.get(choria.EVENT_REPLICAS),
        machine_retention=source.get(choria.MACHINE_RETENTION),
        machine_replicas=source.get(choria.MACHINE_REPLICAS),
        advisory_retention=source.get(choria.ADVISORY_RETENTION),
        advisory_replicas=source.get(choria.ADVISORY_REPLICAS),
        leader_election_ttl=source.get(choria.ELECTION_TTL),
        leader_election_replicas=source.get(choria.ELECTION_REPLICAS),
        max_bytes=source.get(own.STREAM_BYTES),
        max_msgs=source.get(own.STREAM_MESSAGES),
        provisioner_election_ttl=source.get(own.PROVISIONER_ELECTION_TTL),
    )
