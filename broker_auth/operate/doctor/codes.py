"""Codes of the doctor's findings, and their meanings: the table of docs/doctor.md#findings is made from here."""

from __future__ import annotations

from enum import StrEnum
from typing import Final


class FindingCode(StrEnum):
    """The stable name of a check's result, for tests and monitoring."""

    CONFIGURATION = "configuration"
    SERVICE_HEALTH = "service.health"
    SERVICE_TROUBLE = "service.trouble"
    SERVICE_CERTIFICATE = "service.certificate"
    AUDIT_FILE = "audit.file"
    AUDIT_STREAM = "audit.stream"
    CLIENT_CA_UNSET = "client_ca.unset"
    CHAIN_ISSUERS = "chain_issuers"
    CHAIN_ISSUERS_END = "chain_issuers.end"
    LISTENER_UNREACHABLE = "listener.unreachable"
    LISTENER_PLAIN = "listener.plain"
    LISTENER_ASKS_NO_CERTIFICATE = "listener.asks_no_certificate"
    LISTENER_ASKS_CERTIFICATE = "listener.asks_certificate"
    LISTENER_CERTIFICATE_OPTIONAL = "listener.certificate_optional"
    LISTENER_ANY_CA = "listener.any_ca"
    LISTENER_OTHER_CA = "listener.other_ca"
    LISTENER_HANDSHAKE = "listener.handshake"
    LISTENER_CERTIFICATE_UNREADABLE = "listener.certificate_unreadable"
    LISTENER_CERTIFICATE_EXPIRED = "listener.certificate_expired"
    LEAF_CERTIFICATE_EXPIRED = "leaf.certificate_expired"
    WEBSOCKET_CERTIFICATE_EXPIRED = "websocket.certificate_expired"
    LISTENER_CERTIFICATE_EXPIRES = "listener.certificate_expires"
    LEAF_CERTIFICATE_EXPIRES = "leaf.certificate_expires"
    WEBSOCKET_CERTIFICATE_EXPIRES = "websocket.certificate_expires"
    LISTENER_OPEN = "listener.open"
    LISTENER_MAX_CONTROL_LINE = "listener.max_control_line"
    LISTENER_NONCE = "listener.nonce"
    LISTENER_ADVERTISES = "listener.advertises"
    LISTENER_HANDSHAKE_FIRST = "listener.handshake_first"
    LISTENER_TLS_MODE = "listener.tls_mode"
    LISTENER_WEBSOCKET = "listener.websocket"
    SERVER_VERSION = "server.version"
    SERVER_DEFECT = "server.defect"
    STATIC_MEMBER = "static.member"
    STATIC_ASKS = "static.asks"
    STATIC_PASSWORD = "static.password"
    CALLOUT = "callout"
    CALLOUT_ADMITS = "callout.admits"
    CALLOUT_USER = "callout.user"
    CALLOUT_NO_ANSWER = "callout.no_answer"
    CALLOUT_NOT_ASKED = "callout.not_asked"
    CALLOUT_ADMITS_ANYBODY = "callout.admits_anybody"
    CALLOUT_ISSUER = "callout.issuer"
    CALLOUT_REFUSES = "callout.refuses"
    CALLOUT_ACCOUNT = "callout.account"
    CALLOUT_LATENCY = "callout.latency"
    CALLOUT_MAY_PUBLISH = "callout.may_publish"
    CALLOUT_MAY_LISTEN = "callout.may_listen"
    CALLOUT_OUTSIDE_QUEUE = "callout.outside_queue"
    CALLOUT_UNHEARD = "callout.unheard"
    CALLOUT_NO_COUNT = "callout.no_count"
    CALLOUT_FOREIGNER = "callout.foreigner"
    CALLOUT_NOBODY = "callout.nobody"
    CALLOUT_ALONE = "callout.alone"
    CLOCK_SKEW = "clock.skew"
    BREAK_GLASS_NONE = "break_glass.none"
    BREAK_GLASS_UNKNOWN = "break_glass.unknown"
    BREAK_GLASS_LOGIN = "break_glass.login"
    BREAK_GLASS_USED = "break_glass.used"
    BREAK_GLASS_SEED_KEPT = "break_glass.seed_kept"
    KICK_UNKNOWN = "kick.unknown"
    READER_UNKNOWN = "reader.unknown"
    SYSTEM_NO_USER = "system.no_user"
    SYSTEM_CLOSED = "system.closed"
    SYSTEM_ANSWER = "system.answer"
    TIMEOUTS_SHORT = "timeouts.short"
    ISOLATION_IMPORT = "isolation.import"
    ISOLATION_EXPORT = "isolation.export"
    ISOLATION_CROSSING = "isolation.crossing"
    ISOLATION_LIFECYCLE = "isolation.lifecycle"
    ISOLATION_ELECTION = "isolation.election"
    NODES_REACHABLE = "nodes.reachable"
    NODES_UNREACHABLE = "nodes.unreachable"
    LEAF_DOWN = "leaf.down"
    LEAF_ACCOUNT = "leaf.account"
    JETSTREAM_DOWN = "jetstream.down"
    STREAMS_MISSING = "streams.missing"
    STREAMS_DIFFER = "streams.differ"
    STREAMS_UNWANTED = "streams.unwanted"
    STREAMS_UNAVAILABLE = "streams.unavailable"
    STREAMS = "streams"
    # Only ever ok:
    BREAK_GLASS_KNOWN = "break_glass.known"
    BREAK_GLASS_SEED = "break_glass.seed"
    BREAK_GLASS_UNUSED = "break_glass.unused"
    CALLOUT_DENIES = "callout.denies"
    CALLOUT_REPLICAS = "callout.replicas"
    CALLOUT_RIGHTS = "callout.rights"
    ISOLATION_ACCOUNTS = "isolation.accounts"
    KICK_KNOWN = "kick.known"
    READER_KNOWN = "reader.known"
    JETSTREAM = "jetstream"
    LEAF_CERTIFICATE_EXPIRY = "leaf.certificate_expiry"
    LEAF_LINK = "leaf.link"
    LISTENER_CA = "listener.ca"
    LISTENER_CERTIFICATE_EXPIRY = "listener.certificate_expiry"
    LISTENER_CLOSED = "listener.closed"
    STREAMS_PRESENT = "streams.present"
    TIMEOUTS = "timeouts"
    WEBSOCKET_CERTIFICATE_EXPIRY = "websocket.certificate_expiry"


MEANINGS: Final[tuple[tuple[tuple[FindingCode, ...], str], ...]] = (
    (
        (FindingCode.CONFIGURATION,),
        "a problem or a warning of `config check`: keys, modes of files, expiring certificates and signers",
    ),
    (
        (FindingCode.SERVICE_HEALTH, FindingCode.SERVICE_TROUBLE),
        "if `plugin.broker_auth.metrics.listen` is set. Warning: the service on this machine does not answer; "
        "error: the service reports a problem, see [Monitoring](monitoring.md#health)",
    ),
    (
        (FindingCode.SERVICE_CERTIFICATE,),
        "the certificate that the service presents to brokers has expired",
    ),
    (
        (FindingCode.AUDIT_FILE, FindingCode.AUDIT_STREAM),
        "the disk of an audit file is full; no stream stores the records that are published on a subject",
    ),
    (
        (FindingCode.CLIENT_CA_UNSET,),
        "warning: `client_ca` is not set, so any chain that nats-server verified counts",
    ),
    (
        (FindingCode.CHAIN_ISSUERS, FindingCode.CHAIN_ISSUERS_END),
        "skipped: no audit file can be read; warning: a chain issuer whose tokens the audit file contains for "
        "the last week has expired or expires within 30 days, and with it every token that it issued",
    ),
    (
        (FindingCode.LISTENER_UNREACHABLE,),
        "nothing at this address speaks NATS",
    ),
    (
        (FindingCode.LISTENER_PLAIN,),
        "the listener admits clients without TLS",
    ),
    (
        (FindingCode.LISTENER_ASKS_NO_CERTIFICATE,),
        "the fleet's listener does not require a client certificate",
    ),
    (
        (FindingCode.LISTENER_ASKS_CERTIFICATE,),
        "the listener of an edge, a gate, single or mixed requires a client certificate, which clients there lack",
    ),
    (
        (FindingCode.LISTENER_CERTIFICATE_OPTIONAL,),
        "a listener admits clients with and without a certificate, and its role is not mixed",
    ),
    (
        (FindingCode.LISTENER_ANY_CA,),
        "the listener has no `ca_file`: it verifies certificates of public CAs ([fact 3](nats-server.md))",
    ),
    (
        (FindingCode.LISTENER_OTHER_CA,),
        "warning: the listener also verifies CAs that `client_ca` does not name; error: it verifies only such CAs",
    ),
    (
        (FindingCode.LISTENER_HANDSHAKE,),
        "TLS with the service's files fails: CA, names in the server's certificate, or the service's certificate",
    ),
    (
        (FindingCode.LISTENER_CERTIFICATE_UNREADABLE,),
        "warning: the server presents a certificate that cannot be parsed",
    ),
    (
        (
            FindingCode.LISTENER_CERTIFICATE_EXPIRED,
            FindingCode.LEAF_CERTIFICATE_EXPIRED,
            FindingCode.WEBSOCKET_CERTIFICATE_EXPIRED,
        ),
        "a server certificate has expired",
    ),
    (
        (
            FindingCode.LISTENER_CERTIFICATE_EXPIRES,
            FindingCode.LEAF_CERTIFICATE_EXPIRES,
            FindingCode.WEBSOCKET_CERTIFICATE_EXPIRES,
        ),
        "warning: a server certificate expires within 30 days",
    ),
    (
        (FindingCode.LISTENER_OPEN,),
        "the listener admits clients without certificate and credentials (`no_auth_user`, or no `auth_callout`)",
    ),
    (
        (FindingCode.LISTENER_MAX_CONTROL_LINE,),
        "a CONNECT of 20 KB is refused before the service receives it ([fact 9](nats-server.md))",
    ),
    (
        (FindingCode.LISTENER_NONCE,),
        "the server sends no nonce, so no client can prove that it has a key ([fact 8](nats-server.md))",
    ),
    (
        (FindingCode.LISTENER_ADVERTISES,),
        "warning: the server sends the addresses of the cluster to every client, before TLS ([fact "
        "22](nats-server.md))",
    ),
    (
        (FindingCode.LISTENER_HANDSHAKE_FIRST,),
        "warning: the server sends nothing before TLS; this service connects, Choria's programs cannot "
        "([Files](files.md#handshake_first))",
    ),
    (
        (FindingCode.LISTENER_TLS_MODE, FindingCode.LISTENER_WEBSOCKET),
        "skipped: TLS could not be determined, or the address is WebSocket",
    ),
    (
        (FindingCode.SERVER_VERSION,),
        "older than the oldest supported version; warning: not a release",
    ),
    (
        (FindingCode.SERVER_DEFECT,),
        "a published defect that breaks a promise of the policy, and the version that corrects it; warning: a "
        "defect that does not affect rendered configurations",
    ),
    (
        (FindingCode.STATIC_MEMBER, FindingCode.STATIC_ASKS),
        "a [static fleet](static-fleet.md) does not admit the service's certificate as a member; a server still asks a "
        "service",
    ),
    (
        (FindingCode.STATIC_PASSWORD,),
        "a static fleet denies the configured password of the provisioner or the system user: its configuration was "
        "rendered with another",
    ),
    (
        (FindingCode.CALLOUT, FindingCode.CALLOUT_ADMITS),
        "skipped: no credentials to test with",
    ),
    (
        (FindingCode.CALLOUT_USER,),
        "the broker does not accept the service's nkey",
    ),
    (
        (FindingCode.CALLOUT_NO_ANSWER,),
        "no answer: no service runs, or the service cannot decrypt the requests because xkeys differ",
    ),
    (
        (FindingCode.CALLOUT_NOT_ASKED,),
        "the broker denied the connection without a callout: it has no `auth_callout`",
    ),
    (
        (FindingCode.CALLOUT_ADMITS_ANYBODY,),
        "a token with an invalid signature is admitted",
    ),
    (
        (FindingCode.CALLOUT_ISSUER,),
        "the broker does not accept the service's signature: issuers differ",
    ),
    (
        (FindingCode.CALLOUT_REFUSES,),
        "a client with configured credentials is denied; passwords may differ, or a reload is due",
    ),
    (
        (FindingCode.CALLOUT_ACCOUNT,),
        "a client is placed in another account than the service names (`no_auth_user`)",
    ),
    (
        (FindingCode.CALLOUT_LATENCY,),
        "answers take 0.5 s (warning), or the 2 s after which clients give up ([fact 10](nats-server.md))",
    ),
    (
        (FindingCode.CALLOUT_MAY_PUBLISH, FindingCode.CALLOUT_MAY_LISTEN),
        "the service's user has more permissions than it needs ([fact 4](nats-server.md))",
    ),
    (
        (FindingCode.CALLOUT_OUTSIDE_QUEUE,),
        "warning: the service's user may subscribe to requests outside the queue group",
    ),
    (
        (FindingCode.CALLOUT_UNHEARD,),
        "warning: an older version rendered the configuration, so workers cannot answer for a silent worker "
        "([Availability](availability.md))",
    ),
    (
        (FindingCode.CALLOUT_NO_COUNT,),
        "warning: the service may not receive the number of connections that nodes and provisioners share "
        "([fact 30](nats-server.md)), so no connection is reserved for provisioners",
    ),
    (
        (FindingCode.CALLOUT_FOREIGNER,),
        "another client is in the callout account, and may answer first",
    ),
    (
        (FindingCode.CALLOUT_NOBODY, FindingCode.CALLOUT_ALONE),
        "no service process is subscribed; warning: only one process is",
    ),
    (
        (FindingCode.CLOCK_SKEW,),
        "clocks of broker and service differ by 1 s (warning) or 5 s",
    ),
    (
        (FindingCode.BREAK_GLASS_NONE,),
        "warning: no break-glass user is configured",
    ),
    (
        (FindingCode.BREAK_GLASS_UNKNOWN, FindingCode.BREAK_GLASS_LOGIN),
        "the broker does not know the break-glass user, or does not admit it",
    ),
    (
        (FindingCode.BREAK_GLASS_USED,),
        "warning: the break-glass user is or was connected, as far back as nats-server remembers",
    ),
    (
        (FindingCode.BREAK_GLASS_SEED_KEPT,),
        "warning: the seed is next to the configuration",
    ),
    (
        (FindingCode.KICK_UNKNOWN,),
        "the broker does not know the [kick user](zones.md#kick-users)",
    ),
    (
        (FindingCode.READER_UNKNOWN,),
        "the fleet's broker does not know the [reader](zones.md#readers) of a zone",
    ),
    (
        (FindingCode.SYSTEM_NO_USER,),
        "warning: no system user is configured",
    ),
    (
        (FindingCode.SYSTEM_CLOSED,),
        "skipped: the broker's system account is not accessible",
    ),
    (
        (FindingCode.SYSTEM_ANSWER,),
        "warning: the system account's answers cannot be parsed",
    ),
    (
        (FindingCode.TIMEOUTS_SHORT,),
        "warning: TLS or authorization timeouts under 3 s, too short if many clients reconnect at once",
    ),
    (
        (FindingCode.ISOLATION_IMPORT, FindingCode.ISOLATION_EXPORT),
        "the fleet's and the provisioning account share more than lifecycle events and the leader election",
    ),
    (
        (FindingCode.ISOLATION_CROSSING,),
        "a message passed from one account to the other; skipped: no credentials to test with",
    ),
    (
        (FindingCode.ISOLATION_LIFECYCLE, FindingCode.ISOLATION_ELECTION),
        "warning: lifecycle events, or the leader election, do not pass between the accounts as they should",
    ),
    (
        (FindingCode.NODES_UNREACHABLE,),
        "warning: waiting nodes are not subscribed under the name of their connection, so no provisioner reaches them "
        "([protocol 1, not as root](policy.md#provisioning-node))",
    ),
    (
        (FindingCode.LEAF_DOWN,),
        "no leaf link of the provisioning account",
    ),
    (
        (FindingCode.LEAF_ACCOUNT,),
        "a leaf link of another account",
    ),
    (
        (FindingCode.JETSTREAM_DOWN,),
        "JetStream is configured but does not run because its disk was full. It starts again only after you "
        "free space and restart nats-server",
    ),
    (
        (FindingCode.STREAMS_MISSING,),
        "a stream does not exist: run `broker-auth streams apply`",
    ),
    (
        (FindingCode.STREAMS_DIFFER, FindingCode.STREAMS_UNWANTED),
        "warning: a stream differs from the configuration, or exists with retention 0",
    ),
    (
        (FindingCode.STREAMS_UNAVAILABLE,),
        "JetStream does not answer in the fleet's account",
    ),
    (
        (FindingCode.STREAMS,),
        "skipped: the fleet's account is not accessible",
    ),
)
"""Meaning of each finding that is not ``ok``: an error, unless the text says otherwise."""


def table() -> str:
    """Return the table of docs/doctor.md in Markdown."""
    rows = [f"| {', '.join(f'`{code}`' for code in codes)} | {meaning} |" for codes, meaning in MEANINGS]
    return "\n".join(["| Code | Meaning |", "| --- | --- |", *rows])
