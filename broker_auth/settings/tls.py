"""The TLS files of brokers: there, readable, belonging together, private, not about to expire."""

from __future__ import annotations

import os
from datetime import datetime
from pathlib import Path
from typing import Final, NamedTuple

from broker_auth.settings import broker_keys as keys
from broker_auth.settings.certificates import belong_together, expiry, read_certificates, read_private_key
from broker_auth.settings.files import OTHERS
from broker_auth.settings.key import Key
from broker_auth.settings.source import Source


class Named(NamedTuple):
    """A TLS file with the key that names it, so that a problem points there."""

    key: Key[Path | None]
    broker: str
    path: Path | None


def check_client_tls(source: Source, ca: Named, certificate: Named, key: Named, now: datetime) -> None:
    """What this service knows a broker by and presents to it; every file named must be usable."""
    if (ca_path := ca.path) is not None:
        source.attempt(lambda: read_certificates(ca_path), ca.key, ca.broker)
    _check_pair(source, certificate, key)
    if (path := certificate.path) is None or (key_path := key.path) is None:
        return
    chain = source.attempt(lambda: read_certificates(path), certificate.key, certificate.broker)
    private = source.attempt(lambda: read_private_key(key_path), key.key, key.broker)
    if chain and private and not belong_together(chain[0], private):
        source.problem(key.key, f"is not the key of {path}", "give the key that belongs to it", key.broker)
    if chain and (said := expiry(chain[0].expires, now)):
        source.warning(certificate.key, said, "renew it", certificate.broker)


def _check_pair(source: Source, certificate: Named, key: Named) -> None:
    for here, other in ((certificate, key), (key, certificate)):
        if source.is_set(here.key, here.broker) and not source.is_set(other.key, other.broker):
            missing = other.key.of(other.broker)
            source.problem(here.key, f"is set, but {missing} is not", "set both or neither", here.broker)


_SERVER_PAIRS: Final = (
    (keys.SERVER_CERTIFICATE, keys.SERVER_KEY),
    (keys.LEAF_CERTIFICATE, keys.LEAF_KEY),
)
_SERVER_CERTIFICATES: Final = (keys.SERVER_CERTIFICATE, keys.SERVER_CA, keys.LEAF_CERTIFICATE, keys.LEAF_CA)


def check_server_tls(source: Source, name: str, now: datetime) -> None:
    """Files of the nats-server itself, which may run elsewhere and as another user.

    So a file that is not here, or a key that only its group and owner can read, is no problem.
    """
    for certificate, key in _SERVER_PAIRS:
        pair = Named(certificate, name, source.get(certificate, name)), Named(key, name, source.get(key, name))
        _check_pair(source, *pair)
        _check_server_key(source, pair[1])
    for certificate in _SERVER_CERTIFICATES:
        _check_server_certificate(source, Named(certificate, name, source.get(certificate, name)), now)


def _check_server_certificate(source: Source, named: Named, now: datetime) -> None:
    path = named.path
    if path is None:
        return
    if not os.path.exists(path):  # noqa: PTH110  Path.exists() raises where a directory is closed to us
        remedy = "make sure that it is where nats-server runs"
        source.warning(named.key, f"{path} is not on this machine", remedy, named.broker)
        return
    found = source.attempt(lambda: read_certificates(path), named.key, named.broker)
    if found and (said := expiry(found[0].expires, now)):
        source.warning(named.key, said, "renew it", named.broker)


def _check_server_key(source: Source, named: Named) -> None:
    if named.path is None:
        return
    try:
        mode = os.stat(named.path).st_mode  # noqa: PTH116  like the check above
    except OSError:
        return
    if mode & OTHERS:
        remedy = f"run: chmod 600 {named.path}"
        source.problem(named.key, f"{named.path} can be accessed by every user", remedy, named.broker)
