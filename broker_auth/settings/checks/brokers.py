"""The served brokers, and the settings from which their nats-servers' configurations are rendered."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterable
from datetime import datetime
from pathlib import Path
from typing import Final

from broker_auth.natsio.tls import TLSFiles
from broker_auth.settings.checks.edge_certificates import warn_of_links
from broker_auth.settings.checks.server_tls import check_server_tls
from broker_auth.settings.checks.tls import Named, check_client_tls
from broker_auth.settings.checks.zones import zone_of
from broker_auth.settings.keys import broker as keys
from broker_auth.settings.keys import own as own_keys
from broker_auth.settings.keys.key import Key
from broker_auth.settings.keys.values import is_plaintext_elsewhere
from broker_auth.settings.model import BrokerSettings, ServerSettings
from broker_auth.settings.problems import shown
from broker_auth.settings.source import Source

_WEBSOCKET: Final = ("ws://", "wss://")


def broker_names(source: Source, *, serving: bool) -> tuple[str, ...]:
    """Return the names in ``plugin.broker_auth.brokers``; without ``serving``, only those with keys of their broker."""
    written = source.get(own_keys.BROKERS)
    names = tuple(dict.fromkeys(written))
    if len(names) < len(written):
        source.problem(own_keys.BROKERS, "names a broker twice", "name each broker once")
    _unlisted(source, names)
    return names if serving else tuple(name for name in names if _configured(source, name))


def brokers(source: Source, names: Iterable[str], now: datetime, *, serving: bool) -> tuple[BrokerSettings, ...]:
    """Return these brokers. With ``serving``, each needs URLs and usable TLS files; otherwise files are not opened."""
    return tuple(_broker(source, name, now, serving=serving) for name in names)


def _configured(source: Source, name: str) -> bool:
    return any(source.is_set(key, name) for key in keys.BROKER_KEYS)


def _unlisted(source: Source, names: tuple[str, ...]) -> None:
    """Report each broker that has keys but is not served."""
    reported = set(names)
    prefix = keys.BROKER.partition("<")[0]
    for written, entry in source.entries.items():
        name = written.removeprefix(prefix).partition(".")[0]
        if written.startswith(prefix) and name not in reported:
            reported.add(name)
            source.findings.problem(
                entry.problem(f"describes broker {name!r}, which is not served", f"add it to {own_keys.BROKERS.name}")
            )


def _broker(source: Source, name: str, now: datetime, *, serving: bool) -> BrokerSettings:
    urls = source.get(keys.URLS, name)
    tls = (
        inherited(source, name, keys.CA, own_keys.TLS_CA),
        inherited(source, name, keys.CERTIFICATE, own_keys.TLS_CERTIFICATE),
        inherited(source, name, keys.KEY, own_keys.TLS_KEY),
    )
    server = _server(source, name)
    if serving:
        check_urls(source, name, urls)
        check_client_tls(source, *tls, now)
        check_server_tls(source, name, now)
        warn_of_links(source, name)
        _check_leaf_names(source, name)
    return BrokerSettings(
        name=name,
        urls=urls,
        role=source.get(keys.ROLE, name),
        zone=zone_of(source, name),
        tls=TLSFiles(ca=tls[0].path, certificate=tls[1].path, key=tls[2].path),
        server=server,
    )


def inherited(source: Source, name: str, key: Key[Path | None], general: Key[Path | None]) -> Named:
    """Return a file of a broker, which the general key names if its own does not."""
    if source.is_set(key, name):
        return Named(key, name, source.get(key, name))
    return Named(general, "", source.get(general))


def _server(source: Source, name: str) -> ServerSettings:
    return ServerSettings(
        name=source.get(keys.SERVER_NAME, name) or name,
        listen=source.get(keys.LISTEN, name),
        tls=TLSFiles(
            ca=source.get(keys.SERVER_CA, name),
            certificate=source.get(keys.SERVER_CERTIFICATE, name),
            key=source.get(keys.SERVER_KEY, name),
        ),
        cipher_suites=source.get(keys.CIPHER_SUITES, name),
        curves=source.get(keys.CURVES, name),
        client_advertise=source.get(keys.CLIENT_ADVERTISE, name),
        max_connections=source.get(keys.SERVER_MAX_CONNECTIONS, name),
        websocket_listen=source.get(keys.WEBSOCKET_LISTEN, name),
        leaf_listen=source.get(keys.LEAF_LISTEN, name),
        leaf_remotes=source.get(keys.LEAF_REMOTES, name),
        leaf_tls=TLSFiles(
            ca=source.get(keys.LEAF_CA, name),
            certificate=source.get(keys.LEAF_CERTIFICATE, name),
            key=source.get(keys.LEAF_KEY, name),
        ),
        leaf_users=source.get(keys.LEAF_USER, name),
        leaf_gates=source.get(keys.LEAF_GATE, name),
        leaf_branches=source.get(keys.LEAF_BRANCH, name),
        store_dir=source.get(keys.STORE_DIR, name),
        cluster_name=source.get(keys.CLUSTER_NAME, name),
        cluster_listen=source.get(keys.CLUSTER_LISTEN, name),
        cluster_routes=source.get(keys.CLUSTER_ROUTES, name),
        monitor_listen=source.get(keys.MONITOR_LISTEN, name),
    )


def _check_leaf_names(source: Source, name: str) -> None:
    """Report a name in two lists of leaf nodes: a certificate with it would have two sets of rights."""
    lists = (keys.LEAF_USER, keys.LEAF_GATE, keys.LEAF_BRANCH)
    named: dict[str, Key[tuple[str, ...]]] = {}
    for key in lists:
        for user in source.get(key, name):
            other = named.setdefault(user, key)
            if other is not key:
                what = f"{shown(user)} is also in {other.of(name)}"
                source.problem(key, what, "issue another certificate, and name it in one list", name)


def check_urls(source: Source, name: str, urls: tuple[str, ...]) -> None:
    """Report URLs at which a broker cannot be reached, and warn of one in clear."""
    if not source.is_set(keys.URLS, name):
        source.problem(keys.URLS, "is not set", "write the broker's URLs", name)
    websocket = [url for url in urls if url.startswith(_WEBSOCKET)]
    if websocket and len(websocket) < len(urls):
        source.problem(keys.URLS, "mixes WebSocket URLs with others", "use only one kind for one broker", name)
    if websocket and importlib.util.find_spec("aiohttp") is None:
        source.problem(
            keys.URLS, "WebSocket URLs need aiohttp, which is not installed", "install broker-auth[websocket]", name
        )
    if plain := next(filter(is_plaintext_elsewhere, urls), None):
        source.warning(
            keys.URLS, f"{plain} leaves this machine and does not ask for TLS", "write tls:// or wss://", name
        )
