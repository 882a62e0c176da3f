"""A fleet whose servers decide by themselves: what of a configuration then restricts nobody, or admits nobody.

A restriction that nobody would enforce is a problem, so that the choice never admits more than the file says. A
credential that nobody would accept is a warning. docs/static-fleet.md lists both.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Final

from broker_auth.certificates.files import read_certificates
from broker_auth.files.reading import BadValue
from broker_auth.secret import Secret
from broker_auth.settings.checks.trust import client_ca_key, issuer_mode
from broker_auth.settings.keys import broker as keys
from broker_auth.settings.keys import choria, own
from broker_auth.settings.keys.key import AnyKey, Key
from broker_auth.settings.model import AuditKind, FleetAuth, Role
from broker_auth.settings.source import Source

STATIC_MEMBER: Final = "fleet-member"  # the user that members without credentials are given
MAX_PASSWORD_BYTES: Final = 72  # bcrypt looks at no more
_CALLOUT: Final = f"remove it, or set {own.FLEET_AUTH.name} to callout"
_LOST: Final = (
    "the fleet's servers decide by themselves: no audit record or reason for the fleet, no tokens of clients and "
    "servers, no provisioner.identities, no client_hosts, no session that ends with its certificate"
)
_RESTRICTIONS: Final[tuple[AnyKey, ...]] = (own.IDENTITIES, own.CLIENT_CRL, choria.CLIENT_HOSTS)
_CREDENTIALS: Final[tuple[AnyKey, ...]] = (
    choria.CLIENT_SIGNER_CERT,
    choria.SERVER_SIGNER_CERT,
    own.PREVIOUS_CLIENT_PASSWORD,
    own.PREVIOUS_SYSTEM_PASSWORD,
)


def fleet_is_static(source: Source) -> bool:
    """Return whether the fleet's servers decide by themselves."""
    return source.get(own.FLEET_AUTH) is FleetAuth.STATIC


def check_fleet_auth(source: Source, names: Sequence[str], *, serving: bool) -> None:
    """Check that static authorization of the fleet fits the rest of the configuration.

    Args:
        source: the configuration.
        names: the served brokers.
        serving: whether CA files may be read; those that are not on this machine are skipped.
    """
    if not fleet_is_static(source):
        return
    source.warning(own.FLEET_AUTH, _LOST, "keep it only if that is acceptable (docs/static-fleet.md)")
    if issuer_mode(source):
        what = "static authorization knows no tokens, and organization issuers are configured"
        source.problem(own.FLEET_AUTH, what, f"set it to callout, or remove {choria.ISSUER_NAMES.name}")
    for key in _RESTRICTIONS:
        if source.is_set(key):
            source.problem(key, "is not enforced by a fleet with static authorization", _CALLOUT)
    for key in _CREDENTIALS:
        if source.is_set(key):
            source.warning(key, "is not accepted by a fleet with static authorization", _CALLOUT)
    if source.is_set(own.REVOCATIONS):
        what = "denies nothing at a fleet with static authorization, only at edges"
        source.warning(
            own.REVOCATIONS, what, f"set {own.FLEET_AUTH.name} to callout to revoke what members log in with"
        )
    if any(output.kind is AuditKind.NATS for output in source.get(own.AUDIT_OUTPUT)):
        what = "publishes on a subject of the fleet, whose servers do not ask this service"
        source.problem(own.AUDIT_OUTPUT, what, "choose another output")
    if source.get(choria.SYSTEM_USER) == STATIC_MEMBER:
        source.problem(choria.SYSTEM_USER, "is the user of members of a static fleet", "choose another name")
    for password in (choria.CLIENT_PASSWORD, choria.SYSTEM_PASSWORD):
        _check_password(source, password)
    _check_brokers(source, names, serving=serving)


def _check_password(source: Source, key: Key[Secret | None]) -> None:
    password = source.get(key)
    data = password.reveal().encode() if password else b""
    if len(data) > MAX_PASSWORD_BYTES or b"\0" in data:
        what = f"cannot be hashed for a static fleet: it is longer than {MAX_PASSWORD_BYTES} bytes, or holds a NUL"
        source.problem(key, what, "choose another password, of random characters")


def _check_brokers(source: Source, names: Sequence[str], *, serving: bool) -> None:
    if names and not any(source.get(keys.ROLE, name) is Role.EDGE for name in names):
        source.problem(own.FLEET_AUTH, "no broker would ask this service", "name an edge, or set it to callout")
    for name in names:
        role = source.get(keys.ROLE, name)
        if role in (Role.SINGLE, Role.MIXED):
            what = "a listener that admits clients without a certificate cannot decide by itself"
            source.problem(keys.ROLE, what, f"set {own.FLEET_AUTH.name} to callout", name)
        if role is Role.FLEET and source.is_set(keys.WEBSOCKET_LISTEN, name):
            what = "nodes without a certificate would be members of the fleet"
            source.problem(keys.WEBSOCKET_LISTEN, what, f"remove it, or set {own.FLEET_AUTH.name} to callout", name)
        if role is Role.FLEET and serving:
            _check_authorities(source, name)


def _check_authorities(source: Source, name: str) -> None:
    """Report CAs by which the listener would make members of certificates that ``client_ca`` does not accept."""
    key = client_ca_key(source)
    listener = _certificates(source.get(keys.SERVER_CA, name))
    if key is None or not listener:
        return
    accepted = {certificate for path in source.get(key) for certificate in _certificates(path)}
    if not listener <= accepted:
        what = f"has a CA that {key.name} does not have, and nothing else is compared with a static fleet"
        source.problem(keys.SERVER_CA, what, "name the same CAs in both", name)


def _certificates(path: Path | None) -> set[bytes]:
    """Return the certificates of a file (DER); empty if it cannot be read here, which other checks report."""
    if path is None:
        return set()
    try:
        return {certificate.der for certificate in read_certificates(path)}
    except BadValue:
        return set()
