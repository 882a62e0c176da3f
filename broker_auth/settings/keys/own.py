"""The configuration keys of this service: ``plugin.broker_auth.…`` (docs/configuration.md#keys-of-this-service)."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from broker_auth.secret import Secret
from broker_auth.settings.keys import values
from broker_auth.settings.keys.audit_output import audit_output, stored_requests
from broker_auth.settings.keys.durations import MAX_SECONDS
from broker_auth.settings.keys.key import PREFIX, AnyKey, Key
from broker_auth.settings.model import AuditKind, AuditOutput, ExpiredCrl, FleetAuth, StoredRequests
from broker_auth.tokens.chain import DEFAULT_MAX_AGE

MAX_SESSION_GRACE: Final = 90 * 86_400.0  # seconds; as long as revocations are kept
MAX_LEEWAY: Final = 60.0  # seconds; docs/policy.md#what-is-accepted-as-a-token
MAX_WORKERS: Final = 256
MAX_LIMIT: Final = 2**31 - 1
MAX_PAYLOAD: Final = 64 * 1024 * 1024  # nats-server's limit for max_payload


def _file(name: str, meaning: str) -> Key[Path | None]:
    return Key(name=PREFIX + name, kind="file", parse=values.path, default=None, meaning=meaning)


def _flag(name: str, default: bool, meaning: str) -> Key[bool]:
    shown = "true" if default else "false"
    return Key(name=PREFIX + name, kind="boolean", parse=values.boolean, default=default, shown=shown, meaning=meaning)


def _count(name: str, default: int, high: int, meaning: str) -> Key[int]:
    parse = values.integer(1, high)
    return Key(name=PREFIX + name, kind="number", parse=parse, default=default, shown=str(default), meaning=meaning)


def _account(name: str, default: str, meaning: str) -> Key[str]:
    return Key(
        name=f"{PREFIX}account.{name}",
        kind="name",
        parse=values.account,
        default=default,
        shown=default,
        meaning=meaning,
    )


def _previous(name: str, of: str) -> Key[Secret | None]:
    return Key(
        name=PREFIX + name,
        kind="secret",
        parse=values.secret,
        default=None,
        secret=True,
        meaning=f"A second password accepted for `{of}` during its rotation; remove it afterwards.",
    )


BROKERS: Final[Key[tuple[str, ...]]] = Key(
    name=f"{PREFIX}brokers",
    kind="list of names",
    parse=values.listed(values.broker_name),
    default=("default",),
    shown="default",
    meaning="The served nats-servers or clusters, each described by `plugin.broker_auth.broker.<name>.…`.",
)
TLS_CA: Final = _file("tls.ca", "CA certificates (PEM) used to verify the brokers. Not set: the system trust store.")
TLS_CERTIFICATE: Final = _file(
    "tls.certificate", "Certificate (PEM, with its chain) that this service presents to brokers."
)
TLS_KEY: Final = _file("tls.key", "Private key (PEM, not encrypted, mode 0600) of that certificate.")

NKEY_SEED_FILE: Final = _file(
    "nkey_seed_file",
    "File (mode 0600) with the user nkey seed (`SU…`) of this service's login to the fleet. Required by `serve`.",
)
ISSUER_SEED_FILE: Final = _file(
    "issuer_seed_file", "File (mode 0600) with the account nkey seed (`SA…`) that signs responses. Required by `serve`."
)
XKEY_SEED_FILE: Final = _file(
    "xkey_seed_file",
    "File (mode 0600) with the curve nkey seed (`SX…`). Set: requests must be encrypted. Not set: requests must "
    "not be encrypted, and carry passwords and tokens in clear.",
)

FLEET_AUTH: Final[Key[FleetAuth]] = Key(
    name=f"{PREFIX}fleet.auth",
    kind="`callout` or `static`",
    parse=values.choice(FleetAuth),
    default=FleetAuth.CALLOUT,
    shown="callout",
    meaning="How the fleet's nats-servers authorize connections. `callout`: they ask this service. `static`: they "
    "decide by their rendered configuration and never wait for this service, which then serves edges only; x509 mode "
    "and role `fleet` only. docs/static-fleet.md lists what is lost.",
)

ACCOUNT_FLEET: Final = _account("fleet", "choria", "Account of the fleet: servers and clients.")
ACCOUNT_PROVISIONING: Final = _account(
    "provisioning", "provisioning", "Account of unprovisioned nodes and provisioners."
)
ACCOUNT_SYSTEM: Final = _account("system", "system", "nats-server's system account.")

IDENTITIES: Final[Key[tuple[str, ...]]] = Key(
    name=f"{PREFIX}provisioner.identities",
    kind="list of identities",
    parse=values.identities,
    default=(),
    meaning="Identities accepted for the user `provisioner`, comma separated: a literal equals a DNS name among the "
    "alternative names of the peer's certificate, or its common name if it has no alternative names; `uri:…`, "
    "`email:…` and `ip:…` match alternative names of these kinds; `/regular expression/` matches a whole DNS name, and "
    "`/uri:…/` a whole URI. A comma between slashes does not separate; at most 512 characters each. Not set: any "
    "verified peer with the password.",
)
REQUIRE_MTLS: Final = _flag(
    "provisioner.require_mtls",
    True,
    "Whether the user `provisioner` needs a verified certificate. `false`, in issuer mode only, lets a client token "
    "with the permission `provisioner` and its nonce signature replace it.",
)
PREVIOUS_CLIENT_PASSWORD: Final = _previous(
    "provisioning.previous_client_password", "plugin.choria.network.provisioning.client_password"
)
PREVIOUS_SYSTEM_PASSWORD: Final = _previous("system.previous_password", "plugin.choria.network.system.password")
ISOLATE_NODES: Final = _flag(
    "provisioning.isolate_nodes",
    True,
    "Let an unprovisioned node read only messages to its own name. `false` restores Choria's "
    "`provisioning.node.>`: every waiting node can read the messages to all others.",
)
ALLOW_NON_EXPIRING: Final = _flag(
    "provisioning.allow_non_expiring_tokens",
    False,
    "Accept provisioning tokens without `exp`, as Choria made them until 2022.",
)
MAX_SUBSCRIPTIONS: Final = _count(
    "provisioning.limits.max_subscriptions",
    64,
    MAX_LIMIT,
    "Maximum number of subscriptions of a connection in the provisioning account.",
)
MAX_PAYLOAD_BYTES: Final = _count(
    "provisioning.limits.max_payload",
    1024 * 1024,
    MAX_PAYLOAD,
    "Maximum size in bytes of a message in the provisioning account.",
)
MAX_CONNECTIONS: Final = _count(
    "provisioning.limits.max_connections",
    10_000,
    MAX_LIMIT,
    "Number of connections in the provisioning account beyond which nodes are denied. If provisioners connect to the "
    "same server, nats-server accepts some more, for them.",
)
CLIENT_CA: Final[Key[tuple[Path, ...]]] = Key(
    name=f"{PREFIX}client_ca",
    kind="list of files",
    parse=values.listed(values.path),
    default=(),
    shown="plugin.security.choria.ca, else plugin.security.file.ca",
    meaning="CA certificates (PEM) that a verified certificate must lead to. Not set: any chain that nats-server "
    "verified is accepted, which includes public CAs if nats-server has no `ca_file`.",
)
CLIENT_CRL: Final[Key[tuple[Path, ...]]] = Key(
    name=f"{PREFIX}client_crl",
    kind="list of files",
    parse=values.listed(values.path),
    default=(),
    meaning="[CRLs](policy.md#certificate-revocation-lists) (PEM or DER) of the CAs in `client_ca`, and of CAs below "
    "them whose certificates are in the same PEM file. Every worker follows a changed file within a second, without a "
    "reload. The service does not start if it cannot use a file; while it runs, the last good list stays in force.",
)
CLIENT_CRL_EXPIRED: Final[Key[ExpiredCrl]] = Key(
    name=f"{PREFIX}client_crl_expired",
    kind="`keep` or `deny`",
    parse=values.choice(ExpiredCrl),
    default=ExpiredCrl.KEEP,
    shown="keep",
    meaning="Treatment of certificates of a CA whose last CRL has expired. `keep`: that CRL stays in force, and "
    "health and metrics report it. `deny`: they are denied until there is a current one.",
)
BREAK_GLASS: Final[Key[str | None]] = Key(
    name=f"{PREFIX}break_glass_nkey",
    kind="public nkey",
    parse=values.user_nkey,
    default=None,
    meaning="Public user nkey (`U…`) that nats-server admits to the system account without asking this service: the "
    "operator's login when the service is down. Keep its seed offline.",
)
KICK: Final[Key[str | None]] = Key(
    name=f"{PREFIX}kick_nkey",
    kind="public nkey",
    parse=values.user_nkey,
    default=None,
    meaning="Public user nkey (`U…`) that nats-server admits to the system account only to list and end connections, "
    "for `broker-auth revoke` and `sweep`.",
)
KICK_SEED_FILE: Final[Key[Path | None]] = Key(
    name=f"{PREFIX}kick_seed_file",
    kind="file",
    parse=values.path,
    default=None,
    meaning="File (mode 0600) with the seed of `kick_nkey`, for commands only: `serve` does not read it. Not set, or "
    "not readable: give `--kick-seed`.",
)
WORKERS: Final = _count("workers", 1, MAX_WORKERS, "Number of worker processes.")
TOKEN_LEEWAY: Final[Key[float]] = Key(
    name=f"{PREFIX}token_leeway",
    kind="duration",
    parse=values.duration(0, MAX_LEEWAY, "of at most 60s"),
    default=0.0,
    shown="0s",
    meaning="How far `nbf` and `iat` of a token may lie in the future, at most 60s. `exp` has no leeway.",
)
CHAIN_ISSUER_MAX_AGE: Final[Key[float]] = Key(
    name=f"{PREFIX}chain_issuer_max_age",
    kind="duration",
    parse=values.duration(3600.0, MAX_SECONDS, "of at least 1h"),
    default=DEFAULT_MAX_AGE,
    shown="366d",
    meaning="How long a chain issuer is accepted, counted from the time in its token id, which the organization "
    "signed. After that, every token that it issued is denied, regardless of `exp` and `issexp`.",
)
SESSION_GRACE: Final[Key[float]] = Key(
    name=f"{PREFIX}session_grace",
    kind="duration",
    parse=values.duration(0, MAX_SESSION_GRACE, "of at most 90d"),
    default=0.0,
    shown="0s",
    meaning="How long a session of a fleet member may [outlive its credential](policy.md#the-admitted-session), at "
    "most 90d. New connections with an expired credential are denied as before.",
)
AUDIT_OUTPUT: Final[Key[tuple[AuditOutput, ...]]] = Key(
    name=f"{PREFIX}audit.output",
    kind="list of outputs",
    parse=values.listed(audit_output),
    default=(AuditOutput(kind=AuditKind.STDOUT),),
    shown="stdout",
    meaning="Outputs of audit records, one JSON object for each decision: `stdout`, `log` (the service's log, on "
    "standard error), `file:PATH` (mode 0640, rotated by size; SIGUSR1 opens it again after something else moved it), "
    "`nats:SUBJECT` (published in the callout account "
    "of the first fleet broker; `config render` exports it to the fleet's account). At most one file and one subject.",
)
AUDIT_REQUESTS: Final[Key[StoredRequests]] = Key(
    name=f"{PREFIX}audit.requests",
    kind="boolean or `sample`",
    parse=stored_requests,
    default=StoredRequests.NONE,
    shown="false",
    meaning="Store the request in each audit record, without its password and its token's signature, for "
    "`broker-auth replay` and `explain`. `sample` stores it with every denial, and with one admission an hour of each "
    "identity with the same credential and address.",
)
AUDIT_MAX_BYTES: Final[Key[int]] = Key(
    name=f"{PREFIX}audit.max_bytes",
    kind="number",
    parse=values.integer(1024 * 1024, 2**62, also=0),
    default=256 * 1024 * 1024,
    shown="268435456",
    meaning="Size in bytes at which an audit file is rotated: it becomes `PATH.1`, the previous `PATH.1` becomes "
    "`PATH.2`. 0 disables rotation; use another tool then (`examples/logrotate`).",
)
AUDIT_KEEP: Final = _count(
    "audit.keep",
    4,
    100,
    "Number of rotated audit files that are kept. With the current file they use `keep` + 1 times `max_bytes`.",
)
METRICS_LISTEN: Final[Key[str | None]] = Key(
    name=f"{PREFIX}metrics.listen",
    kind="host:port",
    parse=values.address,
    default=None,
    meaning="Address and port for `/metrics` (Prometheus), `/healthz` and `/readyz`, by plain HTTP without "
    "authentication: use a loopback address such as 127.0.0.1:9464 unless the network is trusted. Not set: disabled. A "
    "change requires a restart.",
)
PID_FILE: Final = _file(
    "pid_file",
    "File with the process id of `serve`, for `broker-auth reload` (not needed with `systemctl reload`), and for "
    "`broker-auth revoke` and `restore`, which wait until the workers confirm. A change requires a restart.",
)
REVOCATIONS: Final = _file(
    "revocations",
    "File (mode 0600, of the service's user, in a directory of that user) with the "
    "[revoked credentials](policy.md#revoked-credentials). "
    "`broker-auth revoke` writes it, and every worker follows it within a second, without a reload. "
    "`broker-auth revoked --create` writes an empty file. The service does not start if it cannot read the file; while "
    "it runs, the last good state stays in force.",
)
REVOCATIONS_BUCKET: Final = _flag(
    "revocations_bucket",
    False,
    "Keep the revocations of all hosts the same, by a bucket in the fleet's JetStream (docs/policy.md#several-hosts), "
    "and count the nodes of tokens by another one (docs/policy.md#tokens-for-a-number-of-nodes). "
    "Requires `plugin.broker_auth.revocations`, `plugin.broker_auth.pid_file`, and `server.store_dir` of the fleet's "
    "nats-servers: render their configuration again, restart them, and run `broker-auth streams apply`, which creates "
    "the buckets `BROKER_AUTH_REVOCATIONS` and `BROKER_AUTH_NODES` with the replicas of the leader elections.",
)

STREAM_BYTES: Final = _count(
    "streams.max_bytes",
    1024**3,
    2**62,
    "Maximum size in bytes of each event stream on disk; the oldest events are removed first. Without it, waiting "
    "nodes could fill the disk. `streams apply` sets it on a stream that has no such limit yet.",
)
STREAM_MESSAGES: Final = _count(
    "streams.max_msgs",
    1_000_000,
    2**62,
    "Maximum number of messages in each event stream; the oldest events are removed first. nats-server keeps every "
    "subject of a stream in memory, up to 0.5 KB for a short one, so this limits its memory. A Choria server sends 48 "
    "events a day: raise it for more than 20,000 servers. `streams apply` sets it on a stream that has no limit yet.",
)
PROVISIONER_ELECTION_TTL: Final[Key[float]] = Key(
    name=f"{PREFIX}streams.provisioner_election_ttl",
    kind="duration",
    parse=values.duration(4.0, 3600.0, "of 4s to 1h, which Choria's election accepts"),
    default=10.0,
    shown="10s",
    meaning="Time after which a silent leader loses its key in `CHORIA_PROVISIONER_ELECTION`. "
    "[Choria's provisioners](moving-from-choria.md#streams-and-elections) take over when they campaign next.",
)
CONFIG_VERSION: Final = _count(
    "config_version", 1, 1, "Format version of this file; a file for a newer broker-auth is refused."
)

OWN_KEYS: Final[tuple[AnyKey, ...]] = (
    BROKERS,
    TLS_CA,
    TLS_CERTIFICATE,
    TLS_KEY,
    NKEY_SEED_FILE,
    ISSUER_SEED_FILE,
    XKEY_SEED_FILE,
    FLEET_AUTH,
    ACCOUNT_FLEET,
    ACCOUNT_PROVISIONING,
    ACCOUNT_SYSTEM,
    IDENTITIES,
    REQUIRE_MTLS,
    PREVIOUS_CLIENT_PASSWORD,
    PREVIOUS_SYSTEM_PASSWORD,
    ISOLATE_NODES,
    ALLOW_NON_EXPIRING,
    MAX_SUBSCRIPTIONS,
    MAX_PAYLOAD_BYTES,
    MAX_CONNECTIONS,
    CLIENT_CA,
    CLIENT_CRL,
    CLIENT_CRL_EXPIRED,
    BREAK_GLASS,
    KICK,
    KICK_SEED_FILE,
    WORKERS,
    TOKEN_LEEWAY,
    CHAIN_ISSUER_MAX_AGE,
    SESSION_GRACE,
    AUDIT_OUTPUT,
    AUDIT_REQUESTS,
    AUDIT_MAX_BYTES,
    AUDIT_KEEP,
    METRICS_LISTEN,
    PID_FILE,
    REVOCATIONS,
    REVOCATIONS_BUCKET,
    STREAM_BYTES,
    STREAM_MESSAGES,
    PROVISIONER_ELECTION_TTL,
    CONFIG_VERSION,
)
