"""The permission tables of docs/policy.md#permissions, one function for each.

An allow list denies everything else, but nats-server takes an empty list without a deny as "everything" (fact 17);
:func:`restricted` prevents that.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from functools import lru_cache
from typing import Final

import msgspec

from broker_auth.policy.subjects import covers, is_literal, is_subject, is_token
from broker_auth.tokens.claims import Claims, ClientClaims, ServerClaims
from broker_auth.tokens.faults import TokenFault, TokenRejected
from broker_auth.tokens.jws import show


class SubjectPermission(msgspec.Struct, frozen=True, omit_defaults=True):
    """Allowed and denied subjects; a denial takes precedence."""

    allow: tuple[str, ...] = ()
    deny: tuple[str, ...] = ()

    def allows(self, subject: str) -> bool:
        """Return whether nats-server lets a session use this subject, wildcards allowed, without a queue group."""
        denied = any(covers(pattern, subject) for pattern in self.deny if " " not in pattern)
        return not denied and (not self.allow or any(covers(pattern, subject) for pattern in self.allow))


class Permissions(msgspec.Struct, frozen=True):
    """The subjects that a session may publish and subscribe to, in the format of user JWTs."""

    pub: SubjectPermission
    sub: SubjectPermission


UNRESTRICTED: Final = Permissions(SubjectPermission(), SubjectPermission())
_EVERYTHING: Final = (">",)
_CHORIA: Final = "choria"
_PROFILES: Final = 512  # cached permission sets of tokens; 1.5 KB each, rebuilt in 7 µs


def restricted(publish: Iterable[str], subscribe: Iterable[str]) -> Permissions:
    """Return permissions for only these subjects; an empty list denies everything explicitly."""
    return Permissions(_only(publish), _only(subscribe))


def _only(subjects: Iterable[str]) -> SubjectPermission:
    allow = tuple(dict.fromkeys(subjects))
    return SubjectPermission(allow=allow) if allow else SubjectPermission(deny=_EVERYTHING)


# --- Provisioning node: a rogue node must not learn or reach anything

# Every subject is written out: the fleet's stream keeps each new one in memory, so a wildcard would let one
# token exhaust nats-server. A Choria server publishes no others while it waits (go-choria server/lifecycle.go).
NODE_EVENTS: Final = tuple(
    f"choria.lifecycle.event.{event}.provision_mode_server"
    for event in ("startup", "alive", "provisioned", "upgraded", "shutdown")
)
PROVISIONER_EVENTS: Final = ("choria.lifecycle.event.startup.provisioner",)
_NODE_PUBLISH: Final = SubjectPermission(allow=(*NODE_EVENTS, "provisioning.reply.>", "provisioning.registration.>"))
_NODE_AGENTS: Final = (
    "provisioning.broadcast.agent.discovery",
    "provisioning.broadcast.agent.rpcutil",
    "provisioning.broadcast.agent.choria_util",
    "provisioning.broadcast.agent.choria_provision",
)
# Denies all queue groups, which waiting nodes do not need: a leaf node connection carries each subject once for each
# group, so a node could exhaust its edge's connection and block the others (fact 16 of docs/nats-server.md).
_NO_QUEUE: Final = ("> >",)
NODE_SUBJECT: Final = "provisioning.node."  # before the name of a node
SHARED_NODE: Final = Permissions(_NODE_PUBLISH, SubjectPermission((*_NODE_AGENTS, f"{NODE_SUBJECT}>"), _NO_QUEUE))


def isolated_node(name: str) -> Permissions:
    """Return the permissions of a node that receives only messages to its name, which must be a valid node name."""
    return Permissions(_NODE_PUBLISH, SubjectPermission((*_NODE_AGENTS, f"{NODE_SUBJECT}{name}"), _NO_QUEUE))


# --- System user

# nats-server's own requests and events, and two of JetStream's that repair a cluster and name no account.
# Everything else in the system account gives access to other accounts' streams: JetStream trusts the account named
# in a request there, and replication carries their messages (fact 27 of docs/nats-server.md).
SYSTEM: Final = Permissions(
    SubjectPermission(allow=("$SYS.REQ.>", "$JS.API.SERVER.REMOVE", "$JS.API.META.LEADER.STEPDOWN")),
    # Replies: clients of NATS use the first inbox, Choria's the second.
    SubjectPermission(allow=("$SYS.ACCOUNT.>", "$SYS.SERVER.>", "_INBOX.>", "*.reply.>")),
)

KICK_INBOX: Final = "_INBOX.kick"
KICK: Final = Permissions(
    SubjectPermission(
        allow=(
            "$SYS.REQ.SERVER.PING",
            "$SYS.REQ.SERVER.PING.CONNZ",
            "$SYS.REQ.SERVER.*.CONNZ",
            "$SYS.REQ.SERVER.*.KICK",
        )
    ),
    SubjectPermission(allow=(f"{KICK_INBOX}.>",)),
)

# --- Server

DEFAULT_SERVER: Final = Permissions(
    pub=SubjectPermission(
        allow=_EVERYTHING,
        deny=("*.broadcast.agent.>", "*.broadcast.service.>", "*.node.>", "choria.federation.*.federation"),
    ),
    sub=SubjectPermission(deny=("*.reply.>", "choria.federation.>", "choria.lifecycle.>")),
)

_SERVER_STREAM_API: Final = (
    "STREAM.INFO.*",
    "STREAM.MSG.GET.*",
    "STREAM.MSG.DELETE.*",
    "DIRECT.GET.*",
    "DIRECT.GET.*.>",
    "CONSUMER.CREATE.*",
    "CONSUMER.CREATE.*.>",
    "CONSUMER.DURABLE.CREATE.*.*",
    "CONSUMER.INFO.*.*",
    "CONSUMER.MSG.NEXT.*.*",
)


@lru_cache(maxsize=_PROFILES)
def server(claims: ServerClaims) -> Permissions:
    """Return a server's permissions from its claims.

    Raises:
        TokenRejected: a claim that becomes part of a subject contains invalid characters.
    """
    _require(is_literal(claims.identity), "identity", claims.identity)
    for collective in claims.collectives:
        _require(is_token(collective), "collectives", collective)
    _require_subjects("pub_subjects", claims.pub_subjects)

    granted = claims.permissions
    publish = ["choria.lifecycle.>", "choria.machine.transition", "choria.machine.watcher.>", *claims.pub_subjects]
    subscribe: list[str] = []
    md5, sha256 = _digests(claims.identity)
    for collective in claims.collectives:
        publish += (
            f"{collective}.reply.>",
            f"{collective}.broadcast.agent.registration",
            f"choria.federation.{collective}.collective",
        )
        subscribe += (
            f"{collective}.broadcast.agent.>",
            f"{collective}.node.{claims.identity}",
            f"{collective}.reply.{md5}.>",
            f"{collective}.reply.{sha256}.>",
        )
        if granted.service_host:
            subscribe.append(f"{collective}.broadcast.service.>")
        if granted.submission:
            publish.append(f"{collective}.submission.in.>")
        if granted.governor and granted.streams:
            publish.append(f"{collective}.governor.*")
    if granted.streams:
        prefix = "$JS.API" if claims.ou == _CHORIA else "choria.streams"
        publish += (f"{prefix}.{api}" for api in _SERVER_STREAM_API)
        publish += ("$JS.ACK.>", "$JS.FC.>")
        subscribe += _republished(claims.ou)
    return restricted(publish, subscribe)


# --- Client

_CLIENT_STREAMS_USER: Final = (
    "$JS.API.INFO",
    "$JS.API.STREAM.NAMES",
    "$JS.API.STREAM.LIST",
    "$JS.API.STREAM.INFO.*",
    "$JS.API.STREAM.MSG.GET.*",
    "$JS.API.STREAM.MSG.DELETE.*",
    "$JS.API.DIRECT.GET.*",
    "$JS.API.DIRECT.GET.*.>",
    "$JS.API.CONSUMER.CREATE.*",
    "$JS.API.CONSUMER.CREATE.*.>",
    "$JS.API.CONSUMER.DURABLE.CREATE.*.*",
    "$JS.API.CONSUMER.DELETE.*.*",
    "$JS.API.CONSUMER.NAMES.*",
    "$JS.API.CONSUMER.LIST.*",
    "$JS.API.CONSUMER.INFO.*.*",
    "$JS.API.CONSUMER.MSG.NEXT.*.*",
    "$JS.ACK.>",
    "$JS.FC.>",
    "$KV.>",
    "$O.>",
)
_EVENTS: Final = ("choria.lifecycle.event.>", "choria.machine.watcher.>", "choria.machine.transition")
_ELECTIONS: Final = ("$JS.API.STREAM.INFO.KV_CHORIA_LEADER_ELECTION", "$KV.CHORIA_LEADER_ELECTION.>")
_GOVERNORS: Final = ("*.governor.*", "choria.lifecycle.event.governor.>")
_FLEET: Final = ("*.broadcast.agent.>", "*.broadcast.service.>", "*.node.>", "choria.federation.*.federation")
ORG_ADMIN: Final = Permissions(SubjectPermission(allow=_EVERYTHING), SubjectPermission(allow=_EVERYTHING))


@lru_cache(maxsize=_PROFILES)
def client(claims: ClientClaims) -> Permissions:
    """Return a client's permissions from its claims.

    Raises:
        TokenRejected: a claim that becomes part of a subject contains invalid characters.
    """
    _require_subjects("pub_subjects", claims.pub_subjects)
    _require_subjects("sub_subjects", claims.sub_subjects)
    granted = claims.permissions
    if granted.org_admin:
        return ORG_ADMIN
    md5, sha256 = _digests(claims.callerid)
    subscribe = [f"*.reply.{md5}.>", f"*.reply.{sha256}.>", *claims.sub_subjects]
    publish = ["$SYS.REQ.USER.INFO", *claims.pub_subjects]
    if granted.streams_admin:
        subscribe.append("$JS.EVENT.>")
        publish.append("$JS.>")
    if granted.streams_user:
        subscribe += _republished(claims.ou)
        publish += _CLIENT_STREAMS_USER
    if granted.events_viewer:
        subscribe += _EVENTS
    if granted.election_user:
        publish += _ELECTIONS
    if granted.governor and (granted.streams_user or granted.streams_admin):
        publish += _GOVERNORS
    if granted.fleet_management or granted.signed_fleet_management:
        publish += _FLEET
    return restricted(publish, subscribe)


# --- The leaf link of a gate: the fleet's server enforces it, whatever the gate admits

# The union of what tokens earn by their flags: without `org_admin`, without the claims that name subjects freely, and
# without `streams_admin`, so nobody creates or deletes streams over a link.
_ANY_COLLECTIVE: Final = (
    "*.reply.>",
    "*.broadcast.agent.>",
    "*.broadcast.service.>",
    "*.node.>",
    "*.submission.in.>",
    "*.governor.*",
    "choria.federation.*.federation",
    "choria.federation.*.collective",
)
GATE_LINK: Final = Permissions(
    pub=SubjectPermission(
        allow=(
            *_ANY_COLLECTIVE,
            "choria.lifecycle.>",
            "choria.machine.transition",
            "choria.machine.watcher.>",
            *_CLIENT_STREAMS_USER,
            *(f"choria.streams.{api}" for api in _SERVER_STREAM_API),
        )
    ),
    sub=SubjectPermission(
        allow=(
            "*.broadcast.agent.>",
            "*.broadcast.service.>",
            "*.node.>",
            "*.reply.>",
            "*.republish.>",
            *_EVENTS,
        )
    ),
)

# --- Pub-sub: verified TLS in issuer mode

_PUB_SUB: Final = SubjectPermission(
    allow=_EVERYTHING,
    deny=(
        "*.broadcast.>",
        "*.node.>",
        "*.reply.>",
        "choria.federation.>",
        "choria.lifecycle.>",
        "choria.machine.>",
    ),
)
PUB_SUB: Final = Permissions(_PUB_SUB, _PUB_SUB)


def granted(claims: Claims) -> Permissions:
    """Return the permissions of a token's claims; for a provisioning token, those of a node with any name.

    Raises:
        TokenRejected: a claim that becomes part of a subject is unfit for one.
    """
    if isinstance(claims, ClientClaims):
        return client(claims)
    return server(claims) if isinstance(claims, ServerClaims) else isolated_node(">")


def _digests(text: str) -> tuple[str, str]:
    """Return the MD5 digests that name inboxes in Choria's clients; security does not depend on them."""
    data = text.encode()
    return hashlib.md5(data, usedforsecurity=False).hexdigest(), hashlib.sha256(data).hexdigest()


def _republished(organization: str) -> tuple[str, ...]:
    if not organization:  # absent only in x509 mode; treated as an organization other than choria
        return ()
    _require(is_token(organization), "ou", organization)
    return (f"{organization}.republish.>",)


def _require_subjects(claim: str, subjects: tuple[str, ...]) -> None:
    for subject in subjects:
        _require(is_subject(subject), claim, subject)


def _require(fit: bool, claim: str, value: str) -> None:
    if not fit:
        raise TokenRejected(TokenFault.CLAIM_SUBJECT, f"token claim '{claim}' holds {show(value)}, unfit for a subject")
