"""Writes ``broker.conf``: the keys that a plan needs, each below a comment from the key table."""

from __future__ import annotations

import textwrap
import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from broker_auth.deploy.plan import Plan, Topology
from broker_auth.errors import InputError
from broker_auth.settings.keys.table import find
from broker_auth.settings.model import FLEET_ZONE

KEYS = "keys"
CLIENT_PASSWORD = f"{KEYS}/client_password"
SYSTEM_PASSWORD = f"{KEYS}/system_password"
AUDIT_FILE = "audit.jsonl"
PID_FILE = "broker-auth.pid"

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
    def names(self) -> tuple[str, ...]:
        """Paths of all files."""
        return (
            self.issuer_seed,
            self.service_seed,
            self.xkey_seed,
            self.break_glass_seed,
            self.break_glass_public,
        )


# Additions to a key's comment: why `init` chose this value, and who has to change it.
_NOTES: Final = {
    _OWN + "provisioner.identities": "The service's own certificate is included, because reports and the doctor "
    "query edges through the provisioning account. The service knows the password in any case.",
    _OWN + "audit.output": "`broker-auth why` reads the file. If the service may not write here, as in "
    "examples/systemd, choose another path: /var/log/broker-auth/audit.jsonl. In a read-only container: log.",
    _OWN + "pid_file": "If the service may not write here: /run/broker-auth/broker-auth.pid. A second service on "
    "this machine needs a different file: set BROKER_AUTH_PID_FILE for it.",
}


def text(plan: Plan, *, break_glass: Mapping[str, str], leaf_user: str | None) -> str:
    """Return the content of ``broker.conf``. Paths inside the plan's directory are relative to it.

    Args:
        plan: the plan, with the paths of all files, including those of the development PKI.
        break_glass: the public key of each zone's break-glass user.
        leaf_user: the name that the fleet's leaf listener maps the edge's certificate to.

    Raises:
        InputError: a value cannot be represented in this format.
    """
    parts = [_HEAD]
    for title, lines in (
        ("Credentials", _credentials(plan)),
        ("This service", _service(plan, break_glass[FLEET_ZONE])),
        *((f"Zone {zone}", zone_lines(zone, public)) for zone, public in break_glass.items() if zone != FLEET_ZONE),
        ("The fleet's nats-server", _fleet(plan, leaf_user)),
        ("The edge's nats-server", _edge(plan)),
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
    if plan.provisioners:
        yield _OWN + "provisioner.identities", ", ".join(plan.provisioners)
    if plan.topology is Topology.SINGLE:
        yield _OWN + "provisioner.require_mtls", "false"
    yield _OWN + "client_ca", _path(plan, plan.files.ca)


def _service(plan: Plan, break_glass: str) -> Iterator[Line]:
    yield _OWN + "brokers", "fleet, edge" if plan.topology is Topology.EDGE else "fleet"
    files = ZoneFiles()
    yield _OWN + "nkey_seed_file", files.service_seed
    yield _OWN + "issuer_seed_file", files.issuer_seed
    yield _OWN + "xkey_seed_file", files.xkey_seed
    yield _OWN + "break_glass_nkey", break_glass
    yield _OWN + "audit.output", f"file:{AUDIT_FILE}"
    yield _OWN + "pid_file", PID_FILE
    yield _OWN + "tls.ca", _path(plan, plan.files.ca)
    if plan.files.service_cert:
        yield _OWN + "tls.certificate", _path(plan, plan.files.service_cert)
        yield _OWN + "tls.key", _path(plan, plan.files.service_key)


def zone_lines(zone: str, break_glass: str) -> Iterator[Line]:
    """Yield the configuration keys of a zone other than the fleet's."""
    prefix, files = f"{_OWN}zone.{zone}.", ZoneFiles(zone)
    yield prefix + "nkey_seed_file", files.service_seed
    yield prefix + "issuer_seed_file", files.issuer_seed
    yield prefix + "xkey_seed_file", files.xkey_seed
    yield prefix + "break_glass_nkey", break_glass


def _fleet(plan: Plan, leaf_user: str | None) -> Iterator[Line]:
    broker, files = _OWN + "broker.fleet.", plan.files
    server = broker + "server."
    single = plan.topology is Topology.SINGLE
    yield broker + "urls", f"tls://{_host(plan.host)}:{plan.port}"
    yield broker + "role", "single" if single else "fleet"
    yield server + "name", "fleet"
    yield server + "listen", f"{_host(plan.bind)}:{plan.port}"
    yield server + "tls.certificate", _path(plan, files.server_cert)
    yield server + "tls.key", _path(plan, files.server_key)
    if not single:
        yield server + "tls.ca", _path(plan, files.ca)
    yield server + "store_dir", "jetstream"
    if plan.topology is Topology.WEBSOCKET:
        yield server + "websocket.listen", f"{_host(plan.bind)}:{plan.websocket_port}"
    if leaf_user:
        yield server + "leaf.listen", f"{_host(plan.bind)}:{plan.leaf_port}"
        yield server + "leaf.tls.ca", _path(plan, files.leaf_ca)
        yield server + "leaf.user", leaf_user


def _edge(plan: Plan) -> Iterator[Line]:
    if plan.topology is not Topology.EDGE:
        return
    broker, files = _OWN + "broker.edge.", plan.files
    server = broker + "server."
    yield broker + "urls", f"tls://{_host(plan.edge_host or plan.host)}:{plan.edge_port}"
    yield broker + "role", "edge"
    yield server + "name", "edge"
    yield server + "listen", f"{_host(plan.bind)}:{plan.edge_port}"
    yield server + "tls.certificate", _path(plan, files.edge_cert or files.server_cert)
    yield server + "tls.key", _path(plan, files.edge_key or files.server_key)
    yield server + "leaf.remotes", f"tls://{_host(plan.host)}:{plan.leaf_port}"
    yield server + "leaf.tls.ca", _path(plan, files.ca)
    yield server + "leaf.tls.certificate", _path(plan, files.leaf_cert)
    yield server + "leaf.tls.key", _path(plan, files.leaf_key)


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


def _host(host: str) -> str:
    return f"[{host}]" if ":" in host else host
