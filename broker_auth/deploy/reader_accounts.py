"""The accounts of readers, each with what it may use of the callout account (docs/zones.md#readers)."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from broker_auth.natsio.bucket import OUTPOSTS, REVOCATIONS
from broker_auth.natsio.nkey import NkeyKind, decode_public
from broker_auth.natsio.subjects import READER_API, reader_account
from broker_auth.settings.model import Settings

THRESHOLD: Final = 10  # seconds for which nats-server keeps the way back of an answer to a reader
_CONNECTIONS: Final = 16  # of each zone, which a few hosts serve
_SUBSCRIPTIONS: Final = 64  # of each connection, which needs one at a time
_JETSTREAM: Final = "$JS.API."


@dataclass(frozen=True, slots=True, kw_only=True)
class Requested:
    """A subject of the callout account that a reader requests, and its name in the account of the reader."""

    subject: str
    to: str
    response: str = "singleton"


@dataclass(frozen=True, slots=True, kw_only=True)
class ReaderAccount:
    """The account of a zone's reader."""

    zone: str
    account: str
    nkey: str
    services: tuple[Requested, ...]
    max_connections: int = _CONNECTIONS
    max_subscriptions: int = _SUBSCRIPTIONS
    max_payload: int = OUTPOSTS.max_value


@dataclass(frozen=True, slots=True, kw_only=True)
class Export:
    """A subject that the callout account exports to readers."""

    subject: str
    response: str
    accounts: tuple[str, ...]


def reader_accounts(settings: Settings) -> tuple[ReaderAccount, ...]:
    """Return the account of each reader: it follows the revocations, and writes how far its hosts have.

    Raises:
        InputError: a public key cannot be used.
    """
    return tuple(_account(zone, nkey) for zone, nkey in settings.readers.items())


def exports(readers: Iterable[ReaderAccount]) -> tuple[Export, ...]:
    """Return what the callout account exports to readers, each subject once."""
    accounts: dict[tuple[str, str], list[str]] = {}
    for reader in readers:
        for service in reader.services:
            accounts.setdefault((service.subject, service.response), []).append(reader.account)
    return tuple(Export(subject=key[0], response=key[1], accounts=tuple(its)) for key, its in accounts.items())


def _account(zone: str, nkey: str) -> ReaderAccount:
    decode_public(nkey, NkeyKind.USER)
    *single, batches = REVOCATIONS.followed
    services = [Requested(subject=subject, to=_renamed(subject)) for subject in (*single, *OUTPOSTS.of_key(zone))]
    services.append(Requested(subject=batches, to=_renamed(batches), response="stream"))
    return ReaderAccount(zone=zone, account=reader_account(zone), nkey=nkey, services=tuple(services))


def _renamed(subject: str) -> str:
    """Return another name for a request: by its own, JetStream would answer for that account, which has no streams."""
    return READER_API + subject.removeprefix(_JETSTREAM) if subject.startswith(_JETSTREAM) else subject
