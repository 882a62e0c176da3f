"""Render ``nats-server.conf.j2``, one template for every role a nats-server plays here.

Every value that enters the template is quoted by :func:`quote`, which Jinja applies to each
expression: no value can end its string and say something else to nats-server.
"""

from __future__ import annotations

import ipaddress
import re
import unicodedata
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from jinja2 import Environment, StrictUndefined

from broker_auth.errors import InputError
from broker_auth.natsio.account_connections import connections_subject
from broker_auth.natsio.nkey import NkeyKind, decode_public, public_nkey
from broker_auth.natsio.subjects import AUTH_QUEUE, CALLOUT_ACCOUNT, COPY_QUEUE, PEERS_SUBJECT
from broker_auth.natsio.tls import TLSFiles
from broker_auth.policy.gauge import provisioner_reserve
from broker_auth.policy.permissions import NODE_EVENTS, PROVISIONER_EVENTS, SYSTEM
from broker_auth.secret import Secret
from broker_auth.settings.model import BrokerSettings, Role, ServerSettings, Settings, Zone

PROVISIONER_BUCKET = "CHORIA_PROVISIONER_ELECTION"  # one key, no other election (fact 19 of docs/nats-server.md)
TLS_TIMEOUT = 10  # seconds: storms of connects failed at 2 and did not at 10
# The least limit on subscriptions per connection at an edge, where the link to the fleet is such a
# connection and carries a dozen of the servers' own and a few of each provisioner. What goes beyond
# the limit is lost without a word to the provisioner.
LINK_SUBSCRIPTIONS = 1024
SPARE_LINKS = 8  # beyond one for each edge
AUTHORIZATION_TIMEOUT = 10  # seconds: see the template, and fact 10

_TEMPLATE = "nats-server.conf.j2"
_ACCOUNT = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*")


class _Plain(str):
    """Text of the template's own, not to be quoted."""

    __slots__ = ()


def render(settings: Settings, broker: BrokerSettings) -> str:
    """The configuration of the nats-server that ``broker`` describes.

    A broker of role ``fleet`` gets a leaf listener for edges, a websocket listener for nodes or
    neither, as its settings say.

    Raises:
        InputError: a setting is missing that this role needs, or one cannot stand in a configuration.
    """
    _Checks(settings, broker).run()
    server, role = broker.server, broker.role
    keys = _public_keys(settings, settings.zone(broker.zone))
    return (
        _environment()
        .from_string(_template())
        .render(
            role=role.value,
            server=server,
            verify_clients=role is Role.FLEET,
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
            words_subject=PEERS_SUBJECT,
            issuer=keys.issuer,
            service=keys.service,
            xkey=keys.xkey,
            break_glass=keys.break_glass,
            bucket=PROVISIONER_BUCKET,
            events=(*NODE_EVENTS, *PROVISIONER_EVENTS),
            system=SYSTEM,
            audit_subject=None if role is Role.EDGE else settings.audit.subject,
            leaf_tls=leaf_files(broker),
            leaf_users=server.leaf_users,
            advertise=_own_route(server),
            tls_timeout=TLS_TIMEOUT,
            authorization_timeout=AUTHORIZATION_TIMEOUT,
        )
    )


def select_broker(settings: Settings, role: Role, name: str | None = None) -> BrokerSettings:
    """The one broker of this role, or the one of this name.

    Raises:
        InputError: there is none, or more than one and no name to choose by.
    """
    fitting = [item for item in settings.brokers if item.role is role and name in (None, item.name)]
    if len(fitting) == 1:
        return fitting[0]
    if fitting:
        names = ", ".join(item.name for item in fitting)
        raise InputError(f"{settings.path}: several brokers have the role {role}: name one of {names}")
    there = ", ".join(f"{item.name} ({item.role})" for item in settings.brokers)
    wanted = f"broker {name} of role {role}" if name else f"broker of role {role}"
    raise InputError(f"{settings.path}: no {wanted}; it configures {there}")


def quote(value: object) -> str:
    """A value as nats-server's configuration language reads it back: a quoted string or a number.

    Raises:
        InputError: the value holds a control character, which no file name or address needs.
    """
    if isinstance(value, _Plain):
        return str(value)
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    if not isinstance(value, str | Path):
        raise InputError(f"a {type(value).__name__} cannot stand in a nats-server configuration")
    text = str(value)
    if any(unicodedata.category(character) in ("Cc", "Cs") for character in text):
        raise InputError(f"{text!r} holds a control character; it cannot stand in a nats-server configuration")
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'


def leaf_files(broker: BrokerSettings) -> TLSFiles:
    """What the leaf link uses: on the fleet's side by default the certificate of its other listener.

    An edge has no such default, because its server certificate need not be fit for a client.
    """
    own, listener = broker.server.leaf_tls, broker.server.tls
    if broker.role is Role.EDGE:
        return own
    return TLSFiles(
        ca=own.ca or listener.ca,
        certificate=own.certificate or listener.certificate,
        key=own.key or listener.key,
    )


def _max_subscriptions(settings: Settings, broker: BrokerSettings) -> int:
    """Return the limit on each connection of the provisioning account, links included.

    To the fleet a link carries each distinct subject of its nodes once: a node's own name, four of agents
    that all share, and those of nats-server. Twice as many is a bound that no honest edge reaches.
    """
    chosen = settings.provisioning.max_subscriptions
    if broker.role is Role.EDGE:
        return max(chosen, LINK_SUBSCRIPTIONS)
    if broker.server.leaf_listen is None:
        return chosen
    return max(chosen, 2 * settings.provisioning.max_connections + 4 * LINK_SUBSCRIPTIONS)


def _max_connections(settings: Settings, broker: BrokerSettings) -> int:
    """Return the limit on connections of the provisioning account: nodes, and a link or some provisioners."""
    chosen = settings.provisioning.max_connections
    if broker.takes_nodes_and_provisioners:
        return chosen + provisioner_reserve(chosen)
    return chosen + (broker.role is Role.EDGE)


def _reports(settings: Settings, broker: BrokerSettings) -> tuple[str, ...]:
    """Return the subjects on which connections are reported; none where provisioners need no place kept."""
    if not broker.takes_nodes_and_provisioners:
        return ()
    return connections_subject(settings.accounts.provisioning), connections_subject(CALLOUT_ACCOUNT)


def _own_route(server: ServerSettings) -> str | None:
    """Return ``host:port`` of the route that leads to this server itself, None if it cannot be told.

    That is the one route whose host is, or begins with, the server's name; of members on one host the one
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
    """Return how many links the fleet accepts, None where there is no listener for them.

    Some to spare are for edges that come back before their old connection is noticed to be dead.
    """
    if broker.server.leaf_listen is None:
        return None
    edges = sum(item.role is Role.EDGE for item in settings.brokers)
    return max(edges, len(broker.server.leaf_users)) + SPARE_LINKS


@dataclass(frozen=True, slots=True, kw_only=True)
class _PublicKeys:
    issuer: str
    service: str
    xkey: str | None
    break_glass: str | None


def _public_keys(settings: Settings, zone: Zone) -> _PublicKeys:
    """Return the public keys of a zone, which no server of another zone is told."""
    if zone.break_glass_nkey is not None:
        decode_public(zone.break_glass_nkey, NkeyKind.USER)
    return _PublicKeys(
        issuer=_public(settings, zone, zone.issuer_seed, "issuer_seed_file"),
        service=_public(settings, zone, zone.nkey_seed, "nkey_seed_file"),
        xkey=public_nkey(zone.xkey_seed.reveal()) if zone.xkey_seed else None,
        break_glass=zone.break_glass_nkey,
    )


def _public(settings: Settings, zone: Zone, seed: Secret | None, key: str) -> str:
    if seed is None:
        name = f"plugin.broker_auth.{key}" if zone.is_fleet else f"plugin.broker_auth.zone.{zone.name}.{key}"
        raise InputError(f"{settings.path}: {name} is needed to render a configuration; run this where the file is")
    return public_nkey(seed.reveal())


@dataclass(frozen=True, slots=True)
class _Checks:
    """What must be set for a role, and what may not be said at all; every lack is named at once."""

    settings: Settings
    broker: BrokerSettings

    def run(self) -> None:
        if missing := self._missing():
            prefix = f"plugin.broker_auth.broker.{self.broker.name}.server."
            keys = ", ".join(prefix + key for key in missing)
            raise InputError(f"{self.settings.path}: a server of role {self.broker.role} needs {keys}")
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
        if role is Role.FLEET or server.cluster_listen:
            needs.append(("tls.ca", server.tls.ca))
        if role is Role.EDGE:
            needs.append(("leaf.remotes", server.leaf_remotes))
        if server.cluster_listen:
            needs += [("cluster.name", server.cluster_name), ("cluster.routes", server.cluster_routes)]
        if role is Role.EDGE or server.leaf_listen:
            leaf = leaf_files(self.broker)
            needs += [("leaf.tls.ca", leaf.ca), ("leaf.tls.certificate", leaf.certificate)]
            needs.append(("leaf.tls.key", leaf.key))
        if server.leaf_listen:
            needs.append(("leaf.user", server.leaf_users))
        return [key for key, value in needs if not value]

    def _accounts(self) -> None:
        names = self.settings.accounts
        for name in (names.fleet, names.provisioning, names.system):
            if not _ACCOUNT.fullmatch(name) or name == CALLOUT_ACCOUNT:
                raise InputError(
                    f"{self.settings.path}: {name!r} cannot be an account's name; use letters, digits, '_', "
                    f"'-' and '.', and not {CALLOUT_ACCOUNT}, which is the service's own"
                )

    def _routes(self) -> None:
        """Members are told from the rest of the fleet by the DNS names in their certificates."""
        addresses = [url for url in self.broker.server.cluster_routes if is_address(urlsplit(url).hostname or "")]
        if self.broker.server.cluster_listen and addresses:
            raise InputError(
                f"{self.settings.path}: plugin.broker_auth.broker.{self.broker.name}.server.cluster.routes: "
                f"{', '.join(addresses)}: nats-server knows members by the DNS names in their certificates, so use "
                "host names"
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
                f"{listen!r} is not on loopback; it answers anybody, so use 127.0.0.1:PORT"
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
    """The template: inside the installed package, or at the root of a checkout."""
    here = Path(__file__)
    for path in (here.with_name(_TEMPLATE), here.parents[2] / _TEMPLATE):
        if path.is_file():
            return path.read_text(encoding="utf-8")
    raise InputError(f"{_TEMPLATE} is not part of this installation; install broker-auth again")
