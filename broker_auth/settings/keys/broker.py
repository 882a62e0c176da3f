"""The configuration keys of one broker: ``plugin.broker_auth.broker.<name>.…``.

Keys under ``.server.`` describe the nats-server; they are used only to render its configuration.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

from broker_auth.settings.keys import values
from broker_auth.settings.keys.key import PREFIX, AnyKey, Key
from broker_auth.settings.keys.own import MAX_LIMIT
from broker_auth.settings.model import Role

BROKER: Final = f"{PREFIX}broker.<name>."
SERVER: Final = f"{BROKER}server."


def _file(name: str, shown: str, meaning: str) -> Key[Path | None]:
    return Key(name=BROKER + name, kind="file", parse=values.path, default=None, shown=shown, meaning=meaning)


def _path(name: str, kind: str, meaning: str) -> Key[Path | None]:
    return Key(name=SERVER + name, kind=kind, parse=values.path, default=None, meaning=meaning)


def _address(name: str, meaning: str) -> Key[str | None]:
    return Key(name=SERVER + name, kind="host:port", parse=values.address, default=None, meaning=meaning)


def _name(name: str, shown: str, meaning: str) -> Key[str | None]:
    return Key(name=SERVER + name, kind="name", parse=values.word, default=None, shown=shown, meaning=meaning)


def _urls(name: str, schemes: tuple[str, ...], meaning: str) -> Key[tuple[str, ...]]:
    parse = values.listed(values.url(*schemes))
    return Key(name=name, kind="list of URLs", parse=parse, default=(), meaning=meaning)


URLS: Final = _urls(
    f"{BROKER}urls",
    ("tls", "nats", "wss", "ws"),
    "URLs at which this service connects to the broker: the members of one cluster. WebSocket URLs need the extra "
    "`broker-auth[websocket]` and cannot be mixed with others.",
)
ROLE: Final[Key[Role]] = Key(
    name=f"{BROKER}role",
    kind="`fleet`, `edge`, `gate`, `single` or `mixed`",
    parse=values.choice(Role),
    default=Role.FLEET,
    shown="fleet",
    meaning="The purpose of the broker; `config render`, `report` and `doctor` depend on it.",
)
ZONE: Final[Key[str | None]] = Key(
    name=f"{BROKER}zone",
    kind="name",
    parse=values.broker_name,
    default=None,
    shown="fleet; for an edge or a gate, the broker's name",
    meaning="The zone of an edge or a gate: brokers of one zone share worker processes and keys, so an "
    "attacker who compromises one of them has all their keys. Edges and gates only, and not both in one zone; every "
    "other broker is in the zone `fleet`.",
)
CA: Final = _file("tls.ca", f"{PREFIX}tls.ca", "CA certificates (PEM) used to verify this broker.")
CERTIFICATE: Final = _file(
    "tls.certificate", f"{PREFIX}tls.certificate", "Certificate (PEM) that this service presents to this broker."
)
KEY: Final = _file("tls.key", f"{PREFIX}tls.key", "Private key (PEM, not encrypted, mode 0600) of that certificate.")

SERVER_NAME: Final = _name("name", "the broker's name", "`server_name` of the nats-server; unique in its cluster.")
LISTEN: Final = _address("listen", "Address and port for clients.")
SERVER_CERTIFICATE: Final = _path("tls.certificate", "file", "Certificate (PEM) that the nats-server presents.")
SERVER_KEY: Final = _path("tls.key", "file", "Its private key (PEM).")
# Go's suites without those that it calls insecure, which nats-server refuses; those of TLS 1.3 are always on.
CIPHER_SUITE_NAMES: Final = (
    "TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256",
    "TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384",
    "TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256",
    "TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256",
    "TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384",
    "TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256",
    "TLS_ECDHE_ECDSA_WITH_AES_128_CBC_SHA",
    "TLS_ECDHE_ECDSA_WITH_AES_256_CBC_SHA",
    "TLS_ECDHE_RSA_WITH_AES_128_CBC_SHA",
    "TLS_ECDHE_RSA_WITH_AES_256_CBC_SHA",
)
CURVE_NAMES: Final = ("X25519", "CurveP256", "CurveP384", "CurveP521")


def _names(name: str, names: tuple[str, ...], meaning: str) -> Key[tuple[str, ...]]:
    parse = values.listed(values.one_of(*names))
    return Key(
        name=SERVER + name, kind="list of names", parse=parse, default=(), shown="nats-server's", meaning=meaning
    )


CIPHER_SUITES: Final = _names(
    "tls.cipher_suites",
    CIPHER_SUITE_NAMES,
    "Cipher suites of TLS 1.2 on every listener and link of the nats-server: "
    f"{', '.join(f'`{name}`' for name in CIPHER_SUITE_NAMES)}. Those of TLS 1.3 are "
    "always on.",
)
CURVES: Final = _names(
    "tls.curves",
    CURVE_NAMES,
    "Elliptic curves of the key exchange on every listener and link: "
    f"{', '.join(f'`{name}`' for name in CURVE_NAMES)}.",
)
CLIENT_ADVERTISE: Final = _address(
    "client_advertise",
    "Address and port that the nats-server tells clients in place of its listen address.",
)
SERVER_MAX_CONNECTIONS: Final[Key[int | None]] = Key(
    name=f"{SERVER}max_connections",
    kind="number",
    parse=values.integer(1, MAX_LIMIT),
    default=None,
    shown="nats-server's, 65536",
    meaning="Number of client connections that the nats-server accepts, of all accounts together. The service's own "
    "are among them, so leave room for those.",
)
SERVER_CA: Final = _path("tls.ca", "file", "CA certificates (PEM) with which the nats-server verifies its clients.")
WEBSOCKET_LISTEN: Final = _address("websocket.listen", "Address and port for unprovisioned nodes (`wss://`).")
LEAF_LISTEN: Final = _address(
    "leaf.listen",
    "Address and port for the leaf node connections of edges, gates and branch networks to this fleet server.",
)
LEAF_REMOTES: Final = _urls(
    f"{SERVER}leaf.remotes",
    ("tls", "nats-leaf", "nats", "wss", "ws"),
    "The fleet's leaf listeners that this edge or gate connects to; the leaf node connection always uses TLS.",
)
LEAF_CERTIFICATE: Final = _path(
    "leaf.tls.certificate", "file", "Certificate (PEM) presented on the leaf node connection."
)
LEAF_KEY: Final = _path("leaf.tls.key", "file", "Its private key (PEM).")
LEAF_CA: Final = _path(
    "leaf.tls.ca", "file", "CA certificates (PEM) used to verify the other end of the leaf node connection."
)
LEAF_USER: Final[Key[tuple[str, ...]]] = Key(
    name=f"{SERVER}leaf.user",
    kind="list of names",
    parse=values.listed(values.word),
    default=(),
    meaning="The first DNS names in the leaf certificates of the edges; the leaf listener refuses all others.",
)
LEAF_GATE: Final[Key[tuple[str, ...]]] = Key(
    name=f"{SERVER}leaf.gate",
    kind="list of names",
    parse=values.listed(values.word),
    default=(),
    meaning="The first DNS names in the leaf certificates of gates. Their leaf node connections are in the fleet's "
    "account, limited to the subjects that tokens may have.",
)
LEAF_BRANCH: Final[Key[tuple[str, ...]]] = Key(
    name=f"{SERVER}leaf.branch",
    kind="list of names",
    parse=values.listed(values.word),
    default=(),
    meaning="The first DNS names in the leaf certificates of branch networks: nats-servers that you run, whose leaf "
    "node connections are in the fleet's account without restriction.",
)
STORE_DIR: Final = _path("store_dir", "directory", "JetStream's directory. Not set: JetStream is disabled.")
CLUSTER_NAME: Final = _name("cluster.name", "", "The cluster that the nats-server belongs to.")
CLUSTER_LISTEN: Final = _address("cluster.listen", "Address and port for the other members.")
CLUSTER_ROUTES: Final = _urls(
    f"{SERVER}cluster.routes", ("tls", "nats-route", "nats"), "The other members; routes always use TLS."
)
MONITOR_LISTEN: Final = _address(
    "monitor.listen", "Address and port of nats-server's HTTP monitoring. Not set: disabled."
)

BROKER_KEYS: Final[tuple[AnyKey, ...]] = (
    URLS,
    ROLE,
    ZONE,
    CA,
    CERTIFICATE,
    KEY,
    SERVER_NAME,
    LISTEN,
    SERVER_CERTIFICATE,
    SERVER_KEY,
    SERVER_CA,
    CIPHER_SUITES,
    CURVES,
    CLIENT_ADVERTISE,
    SERVER_MAX_CONNECTIONS,
    WEBSOCKET_LISTEN,
    LEAF_LISTEN,
    LEAF_REMOTES,
    LEAF_CERTIFICATE,
    LEAF_KEY,
    LEAF_CA,
    LEAF_USER,
    LEAF_GATE,
    LEAF_BRANCH,
    STORE_DIR,
    CLUSTER_NAME,
    CLUSTER_LISTEN,
    CLUSTER_ROUTES,
    MONITOR_LISTEN,
)
