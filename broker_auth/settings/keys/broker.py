"""The keys of one broker: ``plugin.broker_auth.broker.<name>.…``.

Those under ``.server.`` describe the nats-server itself; only rendering its configuration uses them.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

from broker_auth.settings.keys import values
from broker_auth.settings.keys.key import PREFIX, AnyKey, Key
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
    "Where this service reaches the broker: URLs of the members of one cluster. WebSocket URLs need the extra "
    "`broker-auth[websocket]` and cannot be mixed with others.",
)
ROLE: Final[Key[Role]] = Key(
    name=f"{BROKER}role",
    kind="`fleet`, `edge` or `single`",
    parse=values.choice(Role),
    default=Role.FLEET,
    shown="fleet",
    meaning="What the broker is for; `config render`, `report` and `doctor` go by it.",
)
ZONE: Final[Key[str | None]] = Key(
    name=f"{BROKER}zone",
    kind="name",
    parse=values.broker_name,
    default=None,
    shown="fleet; of an edge its own name",
    meaning="The zone of an edge: brokers of one zone share worker processes and keys, so whoever takes one of them "
    "has them all. Edges only; every other broker is in the zone `fleet`.",
)
CA: Final = _file("tls.ca", f"{PREFIX}tls.ca", "CA certificates (PEM) by which this service knows this broker.")
CERTIFICATE: Final = _file(
    "tls.certificate", f"{PREFIX}tls.certificate", "Certificate (PEM) this service presents to this broker."
)
KEY: Final = _file("tls.key", f"{PREFIX}tls.key", "Private key (PEM, not encrypted, mode 0600) of that certificate.")

SERVER_NAME: Final = _name("name", "the broker's name", "`server_name` of the nats-server; unique in its cluster.")
LISTEN: Final = _address("listen", "Where clients connect.")
SERVER_CERTIFICATE: Final = _path("tls.certificate", "file", "Certificate (PEM) the nats-server presents.")
SERVER_KEY: Final = _path("tls.key", "file", "Its private key (PEM).")
SERVER_CA: Final = _path("tls.ca", "file", "CA certificates (PEM) that the nats-server verifies its clients by.")
WEBSOCKET_LISTEN: Final = _address("websocket.listen", "Where unprovisioned nodes connect by `wss://`.")
LEAF_LISTEN: Final = _address("leaf.listen", "Where edges link to this fleet server.")
LEAF_REMOTES: Final = _urls(
    f"{SERVER}leaf.remotes",
    ("tls", "nats-leaf", "nats", "wss", "ws"),
    "The fleet's leaf listeners this edge links to; the link itself is always TLS.",
)
LEAF_CERTIFICATE: Final = _path("leaf.tls.certificate", "file", "Certificate (PEM) presented on the leaf link.")
LEAF_KEY: Final = _path("leaf.tls.key", "file", "Its private key (PEM).")
LEAF_CA: Final = _path("leaf.tls.ca", "file", "CA certificates (PEM) that verify the other end of the leaf link.")
LEAF_USER: Final[Key[tuple[str, ...]]] = Key(
    name=f"{SERVER}leaf.user",
    kind="list of names",
    parse=values.listed(values.word),
    default=(),
    meaning="The first DNS names in the edges' link certificates: who else comes to the leaf listener is refused.",
)
STORE_DIR: Final = _path("store_dir", "directory", "JetStream's directory; not set: no JetStream.")
CLUSTER_NAME: Final = _name("cluster.name", "", "Cluster the nats-server belongs to.")
CLUSTER_LISTEN: Final = _address("cluster.listen", "Where the other members connect.")
CLUSTER_ROUTES: Final = _urls(
    f"{SERVER}cluster.routes", ("tls", "nats-route", "nats"), "The other members; routes are always TLS."
)
MONITOR_LISTEN: Final = _address("monitor.listen", "nats-server's HTTP monitoring; not set: none.")

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
    WEBSOCKET_LISTEN,
    LEAF_LISTEN,
    LEAF_REMOTES,
    LEAF_CERTIFICATE,
    LEAF_KEY,
    LEAF_CA,
    LEAF_USER,
    STORE_DIR,
    CLUSTER_NAME,
    CLUSTER_LISTEN,
    CLUSTER_ROUTES,
    MONITOR_LISTEN,
)
