"""The TLS files of nats-servers: which of them nats-server refuses, skips or cannot use.

The files may be on other machines, and readable only by another user. So a missing file is only a warning, and a
key that cannot be opened is not checked. nats-server treats files as Go does (docs/files.md).
"""

from __future__ import annotations

import os
from datetime import datetime
from pathlib import Path
from urllib.parse import urlsplit

from broker_auth.certificates.files import read_bundle
from broker_auth.certificates.pemfile import (
    MAX_BYTES,
    Bundle,
    PemError,
    belong_together,
    key_refused_by_go,
    private_key_block,
    read_private_key,
)
from broker_auth.files.reading import OTHERS, BadValue, read
from broker_auth.settings.checks import certificates as chains
from broker_auth.settings.checks.tls import Named, check_both_set, mismatch, warn
from broker_auth.settings.keys import broker as keys
from broker_auth.settings.keys import own as own_keys
from broker_auth.settings.keys.key import Key
from broker_auth.settings.source import Source


def check_server_tls(source: Source, name: str, now: datetime) -> None:
    """Check the files of one broker's nats-server that exist on this machine."""
    links = source.get(keys.ROLE, name).is_outpost
    member = source.is_set(keys.CLUSTER_LISTEN, name)  # the same pair is used at both ends of a route
    _check_pair(source, name, (keys.SERVER_CERTIFICATE, keys.SERVER_KEY), now, server=True, client=member)
    _check_pair(source, name, (keys.LEAF_CERTIFICATE, keys.LEAF_KEY), now, server=not links, client=links)
    for key in (keys.SERVER_CA, keys.LEAF_CA):
        _check_authorities(source, _named(source, key, name), now)
    _check_hosts(source, name)


def _named(source: Source, key: Key[Path | None], name: str) -> Named:
    return Named(key, name, source.get(key, name))


def _check_pair(
    source: Source,
    name: str,
    pair: tuple[Key[Path | None], Key[Path | None]],
    now: datetime,
    *,
    server: bool,
    client: bool,
) -> None:
    certificate, key = (_named(source, item, name) for item in pair)
    check_both_set(source, certificate, key)
    _check_mode(source, key)
    chain = _bundle(source, certificate)
    if chain is not None:
        _check_chain(source, certificate, chain)
        for doubts in (chains.order(chain), chains.lifetimes(chain, now)):
            warn(source, certificate, doubts)
        warn(source, certificate, chains.usage(chain.certificates[0], server=server, client=client))
    if (data := _key_data(key)) is not None:
        source.attempt(lambda: _check_key(key, data, certificate.path, chain), key.key, name)


def _bundle(source: Source, named: Named) -> Bundle | None:
    """Return the certificates of a file; None, with a report, if it is missing or cannot be used."""
    path = named.path
    if path is None:
        return None
    if not os.path.exists(path):  # noqa: PTH110  Path.exists() raises if a directory is not accessible
        remedy = "make sure that it is where nats-server runs"
        source.warning(named.key, f"{path} is not on this machine", remedy, named.broker)
        return None
    return source.attempt(lambda: read_bundle(path), named.key, named.broker)


def _check_chain(source: Source, named: Named, chain: Bundle) -> None:
    """Check a chain by the rules of Go's LoadX509KeyPair: only the first visible certificate must parse."""
    first = next((item for item in chain.entries if not item.unseen), None)
    if first is None:
        _refused(source, named, chain.entries[0].line, "nats-server sees no certificate: ", chain.entries[0].unseen)
    elif first.as_leaf:
        _refused(source, named, first.line, "nats-server refuses the certificate: ", first.as_leaf)
    else:
        warn(source, named, chains.skipped((item.line, item.unseen) for item in chain.entries))
    warn(source, named, chains.faults(chain))
    warn(source, named, chains.newer(chain))


def _check_authorities(source: Source, named: Named, now: datetime) -> None:
    """Check CAs by the rules of Go's AppendCertsFromPEM, which skips what it cannot read and then trusts nobody."""
    bundle = _bundle(source, named)
    if bundle is None:
        return
    first = bundle.entries[0]
    if all(item.as_authority for item in bundle.entries):
        _refused(source, named, first.line, "nats-server finds no CA certificate: ", first.as_authority)
    warn(source, named, chains.of_authorities(bundle, now))


def _refused(source: Source, named: Named, line: int, what: str, reason: str) -> None:
    doubt = chains.parted(reason)
    source.problem(named.key, f"{named.path}: line {line}: {what}{doubt.what}", doubt.remedy, named.broker)


def _key_data(named: Named) -> bytes | None:
    """Return the content of the key's file; None if it is missing, not readable or not a regular file."""
    if named.path is None:
        return None
    try:
        return read(named.path, MAX_BYTES).data
    except BadValue:
        return None


def _check_key(named: Named, data: bytes, path: Path | None, chain: Bundle | None) -> None:
    """Check that nats-server accepts a private key.

    Raises:
        BadValue: nats-server would refuse the key.
    """
    try:
        private = read_private_key(data)
        refused = key_refused_by_go(private_key_block(data), private)
    except PemError as error:
        raise BadValue(f"{named.path} {error.what}", error.remedy) from None
    if refused:
        doubt = chains.parted(refused)
        raise BadValue(f"{named.path}: nats-server cannot use the key: {doubt.what}", doubt.remedy)
    if chain is None or path is None:
        return
    seen = [item for item in chain.entries if not item.unseen] or list(chain.entries)
    if not belong_together(seen[0].certificate, private):
        what, remedy = mismatch(path, chain, [belong_together(item, private) for item in chain.certificates])
        raise BadValue(what, remedy)


def _check_mode(source: Source, named: Named) -> None:
    if named.path is None:
        return
    try:
        mode = os.stat(named.path).st_mode  # noqa: PTH116  like the check above
    except OSError:
        return
    if mode & OTHERS:
        remedy = f"run: chmod 600 {named.path}"
        source.problem(named.key, f"{named.path} can be accessed by every user", remedy, named.broker)


def _check_hosts(source: Source, name: str) -> None:
    """Compare the hosts of URLs with the certificate of the listener."""
    _check_names(source, _named(source, keys.SERVER_CERTIFICATE, name), source.get(keys.URLS, name))
    if source.get(keys.ROLE, name).verifies_clients and source.get(keys.LEAF_LISTEN, name):
        key = keys.LEAF_CERTIFICATE if source.is_set(keys.LEAF_CERTIFICATE, name) else keys.SERVER_CERTIFICATE
        _check_names(source, _named(source, key, name), _remotes(source))


def _remotes(source: Source) -> tuple[str, ...]:
    """Return the URLs of edges to the fleet broker; empty with several fleet brokers, where the target is ambiguous."""
    brokers = source.get(own_keys.BROKERS)
    if sum(bool(source.get(keys.LEAF_LISTEN, name)) for name in brokers) > 1:
        return ()
    return tuple(url for name in brokers for url in source.get(keys.LEAF_REMOTES, name))


def _check_names(source: Source, named: Named, urls: tuple[str, ...]) -> None:
    path = named.path
    if path is None or not urls:
        return
    try:
        leaf = read_bundle(path).certificates[0]
    except BadValue:
        return  # reported where the pair is checked
    warn(source, named, chains.unnamed(leaf, [urlsplit(url).hostname or "" for url in urls]))
