"""Renders ``nats-server.conf.j2``, one template for every role of a nats-server."""

from __future__ import annotations

from dataclasses import dataclass
from urllib.parse import urlsplit

from broker_auth.deploy.leaf_links import leaf_files, leaf_users
from broker_auth.deploy.limits import (
    max_connections,
    max_fleet_links,
    max_gate_subscriptions,
    max_leafnodes,
    max_subscriptions,
)
from broker_auth.deploy.natsbinary import OPTIONAL_CERTIFICATES, require_optional_certificates
from broker_auth.deploy.reader_accounts import THRESHOLD, exports, reader_accounts
from broker_auth.deploy.server_checks import check_server
from broker_auth.deploy.static_users import static_users
from broker_auth.deploy.template import template
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
)
from broker_auth.policy.permissions import GATE_LINK, KICK, NODE_EVENTS, PROVISIONER_EVENTS, SYSTEM
from broker_auth.secret import Secret
from broker_auth.settings.model import (
    BrokerSettings,
    ClientCertificates,
    Role,
    ServerSettings,
    Settings,
    Zone,
)

PROVISIONER_BUCKET = "CHORIA_PROVISIONER_ELECTION"  # a bucket with a single key (docs/nats-server.md fact 19)
TLS_TIMEOUT = 10  # seconds: measured in connection storms, 2 was too short and 10 sufficient
AUTHORIZATION_TIMEOUT = 10  # seconds: see the template, and fact 10

_VERIFY = {
    ClientCertificates.REQUIRED: "verify",
    ClientCertificates.OPTIONAL: OPTIONAL_CERTIFICATES,
    ClientCertificates.NONE: "",
}


def render(settings: Settings, broker: BrokerSettings) -> str:
    """Return the configuration of the nats-server that ``broker`` describes.

    Depending on its settings, a broker of role ``fleet`` gets a leaf listener for edges, a websocket listener for
    nodes, or neither. One of role ``mixed`` is rendered only if the nats-server of this machine accepts the result.

    Raises:
        InputError: a setting that this role needs is missing, or one cannot be represented in a configuration; or
            nats-server does not know an option of this role.
    """
    check_server(settings, broker)
    if broker.role.client_certificates is ClientCertificates.OPTIONAL:
        require_optional_certificates()
    server, role = broker.server, broker.role
    zone, static = settings.zone(broker.zone), static_users(settings, broker)
    keys = _public_keys(settings, zone) if zone.served else None
    break_glass, kick = _user(zone.break_glass_nkey), _user(zone.kick_nkey)
    buckets = settings.buckets if broker == settings.main_broker and server.store_dir else ()
    readers = reader_accounts(settings) if buckets else ()
    return template().render(
        role=role.value,
        outpost=role.is_outpost,
        server=server,
        verify_option=_VERIFY[role.client_certificates],
        nodes_connect_here=broker.takes_nodes,
        connections=_reports(settings, broker),
        accounts=settings.accounts,
        limits=settings.provisioning,
        max_subscriptions=max_subscriptions(settings, broker),
        max_leafnodes=max_leafnodes(settings, broker),
        max_connections=max_connections(settings, broker),
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
        links=leaf_users(server, settings.accounts),
        gate_link=GATE_LINK if server.leaf_gates else None,
        max_fleet_links=max_fleet_links(settings, server),
        max_gate_subscriptions=max_gate_subscriptions(settings),
        advertise=_own_route(server),
        tls_timeout=TLS_TIMEOUT,
        authorization_timeout=AUTHORIZATION_TIMEOUT,
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
