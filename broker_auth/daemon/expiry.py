"""Expiry times of the certificates in a configuration, read once when it is loaded."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from broker_auth.certificates.files import read_certificates
from broker_auth.errors import BrokerAuthError
from broker_auth.settings.model import Settings
from broker_auth.settings.policy import trusted_keys
from broker_auth.tokens.keys import VerificationKey


@dataclass(frozen=True, slots=True)
class Expiry:
    """The expiry of one certificate.

    Attributes:
        what: ``signer``, ``ca`` or ``own``.
        name: the file name, or the signer's name.
        not_after: Unix seconds.
    """

    what: str
    name: str
    not_after: float


def expiries(settings: Settings) -> tuple[Expiry, ...]:
    """Return the expiry of every configured certificate: of signers, CAs, and the service itself.

    Files that have become unreadable are skipped. Keys without a certificate do not expire.
    """
    certificates = dict.fromkeys(_signers(settings))
    certificates |= dict.fromkeys(_files("ca", settings.client_ca))
    tls = [broker.tls for broker in settings.brokers]
    certificates |= dict.fromkeys(_files("ca", (files.ca for files in tls if files.ca)))
    certificates |= dict.fromkeys(_files("own", (files.certificate for files in tls if files.certificate)))
    return tuple(certificates)


def _signers(settings: Settings) -> list[Expiry]:
    try:
        keys = trusted_keys(settings)
    except BrokerAuthError:
        return []
    signers: list[VerificationKey] = [*keys.provisioning, *keys.client, *keys.server]
    return [Expiry("signer", key.name, key.not_after) for key in signers if key.not_after is not None]


def _files(what: str, paths: Iterable[Path]) -> list[Expiry]:
    """Return the earliest expiry in each file."""
    earliest = []
    for path in paths:
        try:
            ends = [certificate.not_after for certificate in read_certificates(path)]
        except BrokerAuthError:
            continue
        if ends:
            earliest.append(Expiry(what, str(path), min(ends)))
    return earliest
