"""Renders ``nats-server.conf.j2``, one template for every role of a nats-server.

Jinja applies :func:`quote` to the value of each expression, so no value can terminate its string and inject
configuration.
"""

from __future__ import annotations

import ipaddress
import re
import unicodedata
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from jinja2 import Environment, StrictUndefined

from broker_auth.deploy.natsbinary import OPTIONAL_CERTIFICATES, require_optional_certificates
from broker_auth.deploy.reader_accounts import THRESHOLD, exports, reader_accounts
from broker_auth.deploy.static_users import static_users
from broker_auth.errors import InputError
from broker_auth.natsio.account_connections import connections_subject
from broker_auth.natsio.bucket import MAX_REPLICAS
from broker_auth.natsio.nkey import NkeyKind, decode_public, public_nkey
from broker_auth.natsio.subjects import (
    AUTH_QUEUE,
    BUCKET_INBOX,
    CALLOUT_ACCOUNT,
    COPY_QUEUE,
    PEERS_SUBJECT,
    reader_account,
)
from broker_auth.natsio.tls import TLSFiles
from broker_auth.policy.gauge import provisioner_reserve
from broker_auth.policy.permissions import GATE_LINK, KICK, NODE_EVENTS, PROVISIONER_EVENTS, SYSTEM
from broker_auth.secret import Secret
from broker_auth.settings.model import (
    AccountNames,
    BrokerSettings,
    ClientCertificates,
    Role,
    ServerSettings,
    Settings,
    Zone,
)

PROVISIONER_BUCKET = "CHORIA_PROVISIONER_ELECTION"  # a bucket with a single key (docs/nats-server.md fact 19)
TLS_TIMEOUT = 10  # seconds: measured in connection storms, 2 was too short and 10 sufficient
# Minimum limit on subscriptions per connection at an edge. The limit includes the leaf link, which carries about
# a dozen subscriptions of the servers and a few of each provisioner. nats-server drops those beyond the limit
# without telling the provisioner.
LEAF_LINK_SUBSCRIPTIONS = 1024
NATS_MAX_CONNECTIONS = 65_536  # nats-server's default for clients
SPARE_LEAF_LINKS = 8  # in addition to one for each edge
AUTHORIZATION_TIMEOUT = 10  # seconds: see the template, and fact 10

_VERIFY = {
    ClientCertificates.REQUIRED: "verify",
    ClientCertificates.OPTIONAL: OPTIONAL_CERTIFICATES,
    ClientCertificates.NONE: "",
}
_TEMPLATE = "nats-server.conf.j2"
_ACCOUNT = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*")


class _Plain(str):
    """Literal text of the template, not to be quoted."""

    __slots__ = ()


def render(settings: Settings, broker: BrokerSettings) -> str:
    """Return the configuration of the nats-server that ``broker`` describes.

    Depending on its settings, a broker of role ``fleet`` gets a leaf listener for edges, a websocket listener for
    nodes, or neither. One of role ``mixed`` is rendered only if the nats-server of this machine accepts the result.

    Raises:
        InputError: a setting that this role needs is missing, or one cannot be represented in a configuration; or
            nats-server does not know an option of this role.
    """
    _Checks(settings, broker).run()
    if broker.role.client_certificates is ClientCertificates.OPTIONAL:
        require_optional_certificates()
    server, role = broker.server, broker.role
    zone, static = settings.zone(broker.zone), static_users(settings, broker)
    keys = _public_keys(settings, zone) if zone.served else None
    break_glass, kick = _user(zone.break_glass_nkey), _user(zone.kick_nkey)
    buckets = settings.buckets if broker == settings.main_broker and server.store_dir else ()
    readers = reader_accounts(settings) if buckets else ()
    return (
        _environment()
        .from_string(_template())
        .render(
            role=role.value,
            outpost=role.is_outpost,
            server=server,
            verify_option=_VERIFY[role.client_certificates],
            nodes_connect_here=broker.takes_nodes,
            connections=_reports(settings, broker),
            accounts=settings.accounts,
            limits=settings.provisioning,
            max_subscriptions=_max_subscriptions(settings, broker),
            max_leafnodes=_max_leafnodes(settings, broker),
            max_connections=_max_connections(settings, broker),
            callout_account=CALLOUT_ACCOUNT,
            queue_group=AUTH_QUEUE,
            copy_queue=COPY_QUEUE,
            peers_subject=PEERS_SUBJECT,
            static=static,
            issuer=keys and keys.issuer,
            service=keys and keys.service,
            xkey=keys and keys.xkey,
            break_glass=break_glass,
            kick=kick,
            operators=[
                *([(static.operator, SYSTEM)] if static and static.operator else []),
                *([({"nkey": break_glass}, SYSTEM)] if break_glass else []),
                *([({"nkey": kick}, KICK)] if kick else []),
            ],
            bucket=PROVISIONER_BUCKET,
            events=(*NODE_EVENTS, *PROVISIONER_EVENTS),
            buckets=buckets,
            readers=readers,
            reader_exports=exports(readers),
            reader_threshold=THRESHOLD,
            max_replicas=MAX_REPLICAS,
            bucket_inbox=BUCKET_INBOX,
            audit_subject=None if role.is_outpost or static else settings.audit.subject,
            leaf_tls=leaf_files(broker),
            links=_links(server, settings.accounts),
            gate_link=GATE_LINK if server.leaf_gates else None,
            max_fleet_links=_max_fleet_links(settings, server),
            max_gate_subscriptions=_max_gate_subscriptions(settings),
            advertise=_own_route(server),
            tls_timeout=TLS_TIMEOUT,
            authorization_timeout=AUTHORIZATION_TIMEOUT,
        )
    )


def select_broker(settings: Settings, role: Role, name: str | None = None) -> BrokerSettings:
    """Return the broker of this role, or the one of this name and role.

    Raises:
        InputError: no broker matches, or several do.
    """
    fitting = [item for item in settings.brokers if item.role is role and name in (None, item.name)]
    if len(fitting) == 1:
        return fitting[0]
    if fitting:
        names = ", ".join(item.name for item in fitting)
        raise InputError(f"{settings.path}: several brokers have the role {role}; choose one of {names}")
    configured = ", ".join(f"{item.name} ({item.role})" for item in settings.brokers)
    missing = f"broker {name} of role {role}" if name else f"broker of role {role}"
    raise InputError(f"{settings.path}: no {missing} is configured; choose from {configured}")


def quote(value: object) -> str:
    """Return a value in nats-server's configuration language: a quoted string or a number.

    Raises:
        InputError: the value contains a control character, which no file name or address needs.
    """
    if isinstance(value, _Plain):
        return str(value)
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    if not isinstance(value, str | Path):
        raise InputError(f"a {type(value).__name__} cannot be written to a nats-server configuration")
    text = str(value)
    if any(unicodedata.category(character) in ("Cc", "Cs") for character in text):
        raise InputError(
            f"{text!r} contains a control character, which a nats-server configuration must not; choose another value"
        )
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'


def leaf_files(broker: BrokerSettings) -> TLSFiles:
    """Return the TLS files of the leaf link; the fleet's side defaults to those of the client listener.

    An edge or a gate has no such default, because its server certificate may not be valid for a client.
    """
    own, listener = broker.server.leaf_tls, broker.server.tls
    if broker.role.is_outpost:
        return own
    return TLSFiles(
        ca=own.ca or listener.ca,
        certificate=own.certificate or listener.certificate,
        key=own.key or listener.key,
    )


def _max_subscriptions(settings: Settings, broker: BrokerSettings) -> int:
    """Return the limit on subscriptions of each connection of the provisioning account, including leaf links.

    A leaf link carries each distinct subject of its nodes once: a node's own name, four agent subjects that all
    nodes share, and those of nats-server. Twice as many is a bound that no honest edge reaches.
    """
    chosen = settings.provisioning.max_subscriptions
    if broker.role is Role.EDGE:
        return max(chosen, LEAF_LINK_SUBSCRIPTIONS)
    if broker.server.leaf_listen is None:
        return chosen
    return max(chosen, 2 * settings.provisioning.max_connections + 4 * LEAF_LINK_SUBSCRIPTIONS)


def _max_connections(settings: Settings, broker: BrokerSettings) -> int:
    """Return the limit on connections of the provisioning account: nodes, and a leaf link or provisioners."""
    chosen = settings.provisioning.max_connections
    if broker.takes_nodes_and_provisioners:
        return chosen + provisioner_reserve(chosen)
    return chosen + (broker.role is Role.EDGE)


def _reports(settings: Settings, broker: BrokerSettings) -> tuple[str, ...]:
    """Return the subjects on which the service receives the number of connections; none where no nodes connect."""
    nodes = connections_subject(settings.accounts.provisioning)
    if broker.takes_nodes_and_provisioners:
        return nodes, connections_subject(CALLOUT_ACCOUNT)
    return (nodes,) if broker.takes_nodes else ()


def _own_route(server: ServerSettings) -> str | None:
    """Return ``host:port`` of the route to this server itself, None if it cannot be determined.

    It is the route whose host equals the server's name or begins with it; if all members share a host, the route
    with the port that this server listens on.
    """
    if server.cluster_listen is None:
        return None
    routes = [(urlsplit(url).hostname or "", urlsplit(url).port) for url in server.cluster_routes]
    own = [route for route in routes if server.name in (route[0], route[0].partition(".")[0])]
    if len({host for host, _ in routes}) == 1:
        port = server.cluster_listen.rpartition(":")[2]
        own = [route for route in routes if str(route[1]) == port]
    return f"{own[0][0]}:{own[0][1]}" if len(own) == 1 and own[0][1] else None


def _max_leafnodes(settings: Settings, broker: BrokerSettings) -> int | None:
    """Return the number of leaf links that the fleet accepts, None if it has no leaf listener.

    Spare ones are for edges that reconnect before their dead connection is detected.
    """
    if broker.server.leaf_listen is None:
        return None
    edges = sum(item.role is Role.EDGE for item in settings.brokers)
    return max(edges, len(broker.server.leaf_users)) + SPARE_LEAF_LINKS


@dataclass(frozen=True, slots=True, kw_only=True)
class _LeafUsers:
    """The users of one account at the leaf listener, each named in a leaf certificate."""

    account: str
    users: tuple[str, ...]
    gates: tuple[str, ...] = ()


def _links(server: ServerSettings, accounts: AccountNames) -> tuple[_LeafUsers, ...]:
    """Return the users of each account that leaf nodes connect to; none without a leaf listener."""
    if server.leaf_listen is None:
        return ()
    return (
        _LeafUsers(account=accounts.provisioning, users=server.leaf_users),
        _LeafUsers(account=accounts.fleet, users=server.leaf_branches, gates=server.leaf_gates),
    )


def _max_fleet_links(settings: Settings, server: ServerSettings) -> int | None:
    """Return how many leaf node connections the fleet's account accepts, None where it accepts none at all.

    Some to spare are for leaf nodes that come back before their old connection is noticed to be dead.
    """
    if server.leaf_listen is None or not (server.leaf_gates or server.leaf_branches):
        return None
    gates = sum(item.role is Role.GATE for item in settings.brokers)
    return max(gates, len(server.leaf_gates)) + len(server.leaf_branches) + SPARE_LEAF_LINKS


def _max_gate_subscriptions(settings: Settings) -> int:
    """Return the limit on subscriptions of each connection of the fleet's account, a gate's link included.

    A link carries each distinct subject once: a node's or an inbox's for each member, some of agents that all share.
    nats-server counts by account, so the limit binds members and branches too, far above what one of them needs.
    """
    gates = [item.server.max_connections or NATS_MAX_CONNECTIONS for item in settings.brokers if item.role is Role.GATE]
    return 4 * max(gates, default=NATS_MAX_CONNECTIONS) + 4 * LEAF_LINK_SUBSCRIPTIONS


@dataclass(frozen=True, slots=True, kw_only=True)
class _PublicKeys:
    issuer: str
    service: str
    xkey: str | None


def _user(nkey: str | None) -> str | None:
    """Return the public key of a user of the system account, checked."""
    if nkey is not None:
        decode_public(nkey, NkeyKind.USER)
    return nkey


def _public_keys(settings: Settings, zone: Zone) -> _PublicKeys:
    """Return the public keys of a zone; they are written only to the configurations of the zone's servers."""
    return _PublicKeys(
        issuer=_public(settings, zone, zone.issuer_seed, "issuer_seed_file"),
        service=_public(settings, zone, zone.nkey_seed, "nkey_seed_file"),
        xkey=public_nkey(zone.xkey_seed.reveal()) if zone.xkey_seed else None,
    )


def _public(settings: Settings, zone: Zone, seed: Secret | None, key: str) -> str:
    if seed is None:
        name = f"plugin.broker_auth.{key}" if zone.is_fleet else f"plugin.broker_auth.zone.{zone.name}.{key}"
        raise InputError(
            f"{settings.path}: {name} is required to render a configuration; run this command where that file is"
        )
    return public_nkey(seed.reveal())


@dataclass(frozen=True, slots=True)
class _Checks:
    """The validation of the settings that a role needs; it reports all missing keys at once."""

    settings: Settings
    broker: BrokerSettings

    def run(self) -> None:
        if missing := self._missing():
            prefix = f"plugin.broker_auth.broker.{self.broker.name}.server."
            keys = ", ".join(prefix + key for key in missing)
            raise InputError(f"{self.settings.path}: a server of role {self.broker.role} is incomplete; set {keys}")
        self._static()
        self._accounts()
        self._routes()
        self._monitor()

    def _missing(self) -> list[str]:
        server, role = self.broker.server, self.broker.role
        needs: list[tuple[str, object]] = [
            ("listen", server.listen),
            ("tls.certificate", server.tls.certificate),
            ("tls.key", server.tls.key),
        ]
        if role.verifies_clients or server.cluster_listen:
            needs.append(("tls.ca", server.tls.ca))
        if role.is_outpost:
            needs.append(("leaf.remotes", server.leaf_remotes))
        if server.cluster_listen:
            needs += [("cluster.name", server.cluster_name), ("cluster.routes", server.cluster_routes)]
        if role.is_outpost or server.leaf_listen:
            leaf = leaf_files(self.broker)
            needs += [("leaf.tls.ca", leaf.ca), ("leaf.tls.certificate", leaf.certificate)]
            needs.append(("leaf.tls.key", leaf.key))
        if server.leaf_listen:
            needs.append(("leaf.user", server.leaf_users or server.leaf_gates or server.leaf_branches))
        return [key for key, value in needs if not value]

    def _static(self) -> None:
        """Refuse a default user on a listener that asks for no certificate, which would let anybody in."""
        broker = self.broker
        if self.settings.zone(broker.zone).served:
            return
        if broker.server.leaf_gates:
            raise InputError(
                f"{self.settings.path}: broker {broker.name} has gates, so it cannot decide by itself; set "
                "plugin.broker_auth.fleet.auth to callout"
            )
        if broker.role is not Role.FLEET or broker.server.websocket_listen:
            raise InputError(
                f"{self.settings.path}: broker {broker.name} has a listener without client certificates, so it cannot "
                "decide by itself; set plugin.broker_auth.fleet.auth to callout"
            )

    def _accounts(self) -> None:
        names = self.settings.accounts
        for name in (names.fleet, names.provisioning, names.system):
            if not _ACCOUNT.fullmatch(name) or name in (CALLOUT_ACCOUNT, *map(reader_account, self.settings.readers)):
                raise InputError(
                    f"{self.settings.path}: {name!r} is not a valid account name; use letters, digits, '_', '-' "
                    f"and '.', and not {CALLOUT_ACCOUNT} or {reader_account('…')}, which are reserved for the service"
                )

    def _routes(self) -> None:
        """Refuse addresses: members are distinguished from fleet members by the DNS names in their certificates."""
        addresses = [url for url in self.broker.server.cluster_routes if is_address(urlsplit(url).hostname or "")]
        if self.broker.server.cluster_listen and addresses:
            raise InputError(
                f"{self.settings.path}: plugin.broker_auth.broker.{self.broker.name}.server.cluster.routes: "
                f"{', '.join(addresses)}: nats-server identifies cluster members by the DNS names in their "
                "certificates; use host names"
            )

    def _monitor(self) -> None:
        listen = self.broker.server.monitor_listen
        if listen is None:
            return
        host = listen.rpartition(":")[0].strip("[]")
        try:
            loopback = host == "localhost" or ipaddress.ip_address(host).is_loopback
        except ValueError:
            loopback = False
        if not loopback:
            raise InputError(
                f"{self.settings.path}: plugin.broker_auth.broker.{self.broker.name}.server.monitor_listen: "
                f"{listen!r} is not a loopback address, and the monitor needs no authentication; use 127.0.0.1:PORT"
            )


def is_address(host: str) -> bool:
    """Return whether a host is an IP address and not a name."""
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


def _environment() -> Environment:
    environment = Environment(  # noqa: S701 - not HTML: `finalize` quotes for nats-server instead
        undefined=StrictUndefined,
        finalize=quote,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.globals["plain"] = _Plain
    return environment


def _template() -> str:
    """Return the template: from the installed package, or from the root of a checkout."""
    here = Path(__file__)
    for path in (here.with_name(_TEMPLATE), here.parents[2] / _TEMPLATE):
        if path.is_file():
            return path.read_text(encoding="utf-8")
    raise InputError(f"{_TEMPLATE} is not part of this installation; install broker-auth again")
