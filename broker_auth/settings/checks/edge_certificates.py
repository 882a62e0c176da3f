"""Warnings about edges whose certificates would make an attacker a member of the fleet.

An edge is exposed to strangers, and an attacker who compromises it has its certificates. In x509 mode each client
certificate of the fleet's CA is a member of the fleet (docs/policy.md#0-connections-not-served), so an edge must not
have one.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Final

from broker_auth.certificates.certificate import Certificate, CertificateError
from broker_auth.certificates.files import read_certificates
from broker_auth.certificates.signatures import issued_by
from broker_auth.files.reading import BadValue
from broker_auth.settings.checks.trust import client_ca_key
from broker_auth.settings.keys import broker as keys
from broker_auth.settings.keys import own as own_keys
from broker_auth.settings.keys.key import Key
from broker_auth.settings.source import Source

_CAN_CONNECT: Final = "an attacker who compromises an edge or a gate can connect as a fleet member"


def warn_of_links(source: Source, name: str) -> None:
    """Warn about the leaf listener's CA of a broker of the fleet, and about the server certificate of an edge.

    Checks only files that exist here: nats-servers' files may be on other machines.
    """
    role = source.get(keys.ROLE, name)
    if role.verifies_clients and source.get(keys.LEAF_LISTEN, name):
        _warn_of_authority(source, name)
    elif role.is_outpost:
        _warn_of_server_certificate(source, name)


def is_of_a_member(source: Source, path: Path, brokers: Iterable[str]) -> bool:
    """Return whether the CAs of fleet members issued the first certificate of a file; False if it is not here."""
    chain = _certificates(path)
    return bool(chain) and _leads_to(chain[0], chain[1:], _members(source, brokers))


def _warn_of_authority(source: Source, name: str) -> None:
    own = source.get(keys.LEAF_CA, name)
    path = own or source.get(keys.SERVER_CA, name)  # the same default as in `config render`
    if _any_leads_to(_certificates(path), _members(source, (name,))):
        key: Key[Path | None] = keys.LEAF_CA if own else keys.SERVER_CA
        what = f"leaf certificates are issued by the fleet's CA, so {_CAN_CONNECT}"
        remedy = f"issue them by another CA, and name that CA in {keys.LEAF_CA.of(name)}"
        source.warning(key, what, remedy, name)


def _warn_of_server_certificate(source: Source, name: str) -> None:
    chain = _certificates(source.get(keys.SERVER_CERTIFICATE, name))
    if not chain or not _is_for_clients(chain[0]):
        return
    brokers = source.get(own_keys.BROKERS)
    if _leads_to(chain[0], chain[1:], _members(source, brokers)):
        what = f"it is of the fleet's CA and also valid for clients, so {_CAN_CONNECT}"
        remedy = "issue a certificate with only the extended key usage serverAuth"
        source.warning(keys.SERVER_CERTIFICATE, what, remedy, name)


def _members(source: Source, brokers: Iterable[str]) -> tuple[Certificate, ...]:
    """Return the CAs whose client certificates are members of the fleet: without ``client_ca``, the listeners' CAs."""
    if (key := client_ca_key(source)) is not None:
        return tuple(certificate for path in source.get(key) for certificate in _certificates(path))
    fleet = [name for name in brokers if source.get(keys.ROLE, name).verifies_clients]
    return tuple(item for name in fleet for item in _certificates(source.get(keys.SERVER_CA, name)))


def _certificates(path: Path | None) -> tuple[Certificate, ...]:
    if path is None:
        return ()
    try:
        return read_certificates(path)
    except BadValue:
        return ()  # reported where the file is checked


def _any_leads_to(certificates: tuple[Certificate, ...], roots: tuple[Certificate, ...]) -> bool:
    return any(_leads_to(certificate, certificates, roots) for certificate in certificates)


def _leads_to(certificate: Certificate, between: tuple[Certificate, ...], roots: tuple[Certificate, ...]) -> bool:
    """Return whether it is a root, possibly renewed, or was issued below a root: an attacker can present the chain."""
    seen, waiting = {certificate}, [certificate]
    while waiting:
        here = waiting.pop()
        if any(_same_authority(here, root) or issued_by(here, root) for root in roots):
            return True
        above = {issuer for issuer in between if issuer not in seen and issued_by(here, issuer)}
        seen |= above
        waiting += above
    return False


def _same_authority(one: Certificate, other: Certificate) -> bool:
    return one.subject == other.subject and one.spki == other.spki


def _is_for_clients(certificate: Certificate) -> bool:
    """Return whether nats-server accepts it from clients; False if it cannot be read."""
    try:
        return certificate.is_for_clients
    except CertificateError:
        return False
