"""Readers: the users by which hosts without the fleet's zone learn what was revoked (docs/zones.md#readers)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import datetime
from pathlib import Path
from typing import Final

from broker_auth.files.reading import BadValue
from broker_auth.natsio.nkey import NkeyKind, public_nkey
from broker_auth.natsio.tls import TLSFiles
from broker_auth.secret import Secret
from broker_auth.settings.checks.brokers import check_urls, inherited
from broker_auth.settings.checks.edge_certificates import is_of_a_member
from broker_auth.settings.checks.tls import Named, check_both_set, check_client_tls
from broker_auth.settings.checks.zones import zone_of
from broker_auth.settings.keys import broker as broker_keys
from broker_auth.settings.keys import own
from broker_auth.settings.keys import zone as keys
from broker_auth.settings.model import FLEET_ZONE, ReaderAccess, Settings
from broker_auth.settings.problems import Problem
from broker_auth.settings.seeds import read_seed
from broker_auth.settings.source import Source

_PAGE: Final = "docs/zones.md#readers"
_WEBSOCKET: Final = ("ws://", "wss://")


def check_readers(source: Source, names: Sequence[str]) -> None:
    """Report half of a certificate and key, and a certificate with which a thief could join the fleet."""
    for zone in dict.fromkeys(zone_of(source, name) for name in names):
        if zone == FLEET_ZONE:
            continue
        certificate, key = _pair(source, zone)
        check_both_set(source, certificate, key)
        if certificate.path is not None and is_of_a_member(source, certificate.path, names):
            what = "a CA of the fleet's members issued it, so an attacker who compromises this host can join the fleet"
            source.warning(certificate.key, what, f"issue it with another CA ({_PAGE})", zone)


def follower(source: Source, names: Sequence[str], zone: str, now: datetime) -> ReaderAccess | None:
    """Return how a zone that is served apart from the fleet's follows the bucket; None if it does not.

    Args:
        source: the configuration.
        names: the served brokers.
        zone: the only zone that is served on this host.
        now: the time that expiry of certificates is compared with.
    """
    main = next((name for name in names if not source.get(broker_keys.ROLE, name).is_outpost), None)
    if not source.get(own.REVOCATIONS_BUCKET) or zone == FLEET_ZONE or main is None:
        return None
    path = source.get(keys.READER_SEED_FILE, zone)
    if path is None:
        what = "is not set, so this host does not learn what is revoked elsewhere"
        remedy = f"set it, and reader_nkey ({_PAGE}), or run `broker-auth revoke` here too"
        source.warning(keys.READER_SEED_FILE, what, remedy, zone)
        return None
    nkey, urls = source.get(keys.READER, zone), source.get(broker_keys.URLS, main)
    certificate, key = _pair(source, zone)
    ca = inherited(source, main, broker_keys.CA, own.TLS_CA)
    check_urls(source, main, urls)
    check_client_tls(source, ca, certificate, key, now)
    websocket = any(url.startswith(_WEBSOCKET) for url in urls)
    if certificate.path is None and source.get(broker_keys.ROLE, main).requires_certificates and not websocket:
        what = f"is not set, and broker {main} requires a client certificate"
        source.warning(certificate.key, what, f"set it, or give the URLs of its websocket listener ({_PAGE})", zone)
    seed = source.attempt(lambda: read_reader_seed(path, nkey), keys.READER_SEED_FILE, zone)
    tls = TLSFiles(ca=ca.path, certificate=certificate.path, key=key.path)
    return None if seed is None else ReaderAccess(seed=seed, urls=urls, tls=tls)


def read_reader_seed(path: Path, nkey: str | None) -> Secret:
    """Return the seed of a reader.

    Raises:
        BadValue: the file cannot be read, or holds another key.
    """
    seed = read_seed(path, NkeyKind.USER)
    if nkey is not None and public_nkey(seed.reveal()) != nkey:
        raise BadValue(f"{path} is not the seed of reader_nkey", "name the file with the seed of reader_nkey")
    return seed


def reader_problems(settings: Settings) -> Iterator[Problem]:
    """Yield a problem for each zone whose seed file is here and cannot be used; it may be on another host."""
    for zone in settings.zones:
        path = zone.reader_seed_file
        if path is None or not path.exists():
            continue
        try:
            read_reader_seed(path, zone.reader_nkey)
        except BadValue as error:
            key = keys.READER_SEED_FILE.of(zone.name)
            yield Problem(file=str(settings.path), key=key, what=error.what, remedy=error.remedy)


def _pair(source: Source, zone: str) -> tuple[Named, Named]:
    files = (keys.READER_CERTIFICATE, keys.READER_KEY)
    certificate, key = (Named(key, zone, source.get(key, zone)) for key in files)
    return certificate, key
