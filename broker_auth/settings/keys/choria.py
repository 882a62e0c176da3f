"""The configuration keys of Choria, with the same names and meanings (docs/configuration.md#keys-of-choria)."""

from __future__ import annotations

from ipaddress import IPv4Network, IPv6Network
from pathlib import Path
from typing import Final

from broker_auth.secret import Secret
from broker_auth.settings.keys import values
from broker_auth.settings.keys.key import AnyKey, Key
from broker_auth.settings.model import KeySource

_NETWORK: Final = "plugin.choria.network."
_SIGNER_FILES: Final = (
    "a PEM certificate, a PEM public key, or an Ed25519 public key as 64 hex characters (inline or in a file)"
)


def _signers(name: str, meaning: str) -> Key[tuple[KeySource, ...]]:
    return Key(name=name, kind="list of keys", parse=values.listed(values.key_source), default=(), meaning=meaning)


def _secret(name: str, meaning: str) -> Key[Secret | None]:
    return Key(name=name, kind="secret", parse=values.secret, default=None, meaning=meaning, secret=True)


def _flag(name: str, meaning: str) -> Key[bool]:
    return Key(name=name, kind="boolean", parse=values.boolean, default=False, shown="false", meaning=meaning)


def _retention(name: str, seconds: float, shown: str, meaning: str, *, low: float = 0.0) -> Key[float]:
    limits = "of at least 1s" if low else "of at most 100y"
    parse = values.duration(low, float("inf"), limits)
    return Key(
        name=f"{_NETWORK}stream.{name}", kind="duration", parse=parse, default=seconds, shown=shown, meaning=meaning
    )


def _replicas(name: str, of: str) -> Key[int]:
    return Key(
        name=f"{_NETWORK}stream.{name}",
        kind="number",
        parse=values.integer(1, 5, also=-1),
        default=-1,
        shown="-1",
        meaning=f"Replicas of {of}, 1 to 5; -1 means as many as the cluster supports.",
    )


SIGNER_CERT: Final = _signers(
    f"{_NETWORK}provisioning.signer_cert",
    f"Signers whose provisioning tokens are accepted: {_SIGNER_FILES}. Several, comma separated, allow rotating a "
    "signer. Required for provisioning without organization issuers; with them, it verifies tokens that are not "
    "EdDSA.",
)
CLIENT_PASSWORD: Final = _secret(
    f"{_NETWORK}provisioning.client_password",
    "Password of the user `provisioner`. Provisioning is enabled only if it is set. It is never sufficient "
    "alone: see `plugin.broker_auth.provisioner.require_mtls`.",
)
PROVISIONER_WITHOUT_TOKEN: Final = _flag(
    f"{_NETWORK}provisioning.provisioner_without_token",
    "With organization issuers, admit the user `provisioner` without a client token that has the permission "
    "`provisioner`; mTLS and the password are still required.",
)
SYSTEM_USER: Final[Key[str | None]] = Key(
    name=f"{_NETWORK}system.user",
    kind="name",
    parse=values.word,
    default=None,
    meaning="The user in the system account. Requires `plugin.choria.network.system.password`.",
)
SYSTEM_PASSWORD: Final = _secret(f"{_NETWORK}system.password", "Password of the system user.")
CLIENT_HOSTS: Final[Key[tuple[IPv4Network | IPv6Network, ...]]] = Key(
    name=f"{_NETWORK}client_hosts",
    kind="list of addresses",
    parse=values.listed(values.network),
    default=(),
    meaning="Without organization issuers: the addresses and CIDRs, IPv4 and IPv6, from which a verified "
    "certificate without a token has no restrictions. From elsewhere it gets the default server's "
    "permissions. Not set: no address is restricted.",
)
CLIENT_SIGNER_CERT: Final = _signers(
    f"{_NETWORK}client_signer_cert",
    f"Without organization issuers: signers whose client tokens are accepted, {_SIGNER_FILES}; comma separated.",
)
SERVER_SIGNER_CERT: Final = _signers(
    f"{_NETWORK}server_signer_cert",
    f"Without organization issuers: signers whose server tokens are accepted, {_SIGNER_FILES}; comma separated.",
)
DENY_SERVERS: Final = _flag(f"{_NETWORK}deny_server_connections", "Deny every connection that presents a server token.")

ISSUER_NAMES: Final[Key[tuple[str, ...]]] = Key(
    name="plugin.security.issuer.names",
    kind="list of names",
    parse=values.listed(values.issuer_name),
    default=(),
    meaning="Organization issuers. Setting it selects issuer mode, which excludes `client_signer_cert`, "
    "`server_signer_cert` and `trusted_signers`. The name is what tokens carry in `ou`.",
)
ISSUER_PUBLIC: Final[Key[str | None]] = Key(
    name="plugin.security.issuer.<name>.public",
    kind="key",
    parse=values.hex_key,
    default=None,
    meaning="Ed25519 public key of one organization issuer, 64 hex characters.",
    dotted=True,
)
TRUSTED_SIGNERS: Final[Key[tuple[str, ...]]] = Key(
    name="plugin.security.choria.trusted_signers",
    kind="list",
    parse=values.listed(values.string),
    default=(),
    meaning="Read only to refuse it together with organization issuers, as Choria does.",
)
CHORIA_CA: Final[Key[tuple[Path, ...]]] = Key(
    name="plugin.security.choria.ca",
    kind="list of files",
    parse=values.listed(values.path),
    default=(),
    meaning="CA certificates (PEM) of the organization. The default of `plugin.broker_auth.client_ca`; with "
    "organization issuers it also admits verified certificates without a token, with pub-sub permissions.",
)
FILE_CA: Final[Key[tuple[Path, ...]]] = Key(
    name="plugin.security.file.ca",
    kind="list of files",
    parse=values.listed(values.path),
    default=(),
    meaning="CA certificates (PEM); the default of `plugin.broker_auth.client_ca` when "
    "`plugin.security.choria.ca` is not set.",
)

_NOT_CREATED: Final = "0 means that the stream is not created."
EVENT_RETENTION: Final = _retention(
    "event_retention", 86_400.0, "24h", f"How long `CHORIA_EVENTS` keeps events; {_NOT_CREATED}"
)
EVENT_REPLICAS: Final = _replicas("event_replicas", "`CHORIA_EVENTS`")
MACHINE_RETENTION: Final = _retention(
    "machine_retention", 86_400.0, "24h", f"How long `CHORIA_MACHINE` keeps events of autonomous agents; {_NOT_CREATED}"
)
MACHINE_REPLICAS: Final = _replicas("machine_replicas", "`CHORIA_MACHINE`")
ADVISORY_RETENTION: Final = _retention(
    "advisory_retention", 7 * 86_400.0, "7d", f"How long `CHORIA_STREAM_ADVISORIES` keeps advisories; {_NOT_CREATED}"
)
ADVISORY_REPLICAS: Final = _replicas("advisory_replicas", "`CHORIA_STREAM_ADVISORIES`")
ELECTION_TTL: Final = _retention(
    "leader_election_ttl",
    60.0,
    "1m",
    "Time after which a silent leader loses its key in `CHORIA_LEADER_ELECTION`; at least 1s. Candidates read it when "
    "they start; provisioners have `plugin.broker_auth.streams.provisioner_election_ttl`.",
    low=1.0,
)
ELECTION_REPLICAS: Final = _replicas("leader_election_replicas", "`CHORIA_LEADER_ELECTION`")

CHORIA_KEYS: Final[tuple[AnyKey, ...]] = (
    SIGNER_CERT,
    CLIENT_PASSWORD,
    PROVISIONER_WITHOUT_TOKEN,
    SYSTEM_USER,
    SYSTEM_PASSWORD,
    CLIENT_HOSTS,
    CLIENT_SIGNER_CERT,
    SERVER_SIGNER_CERT,
    DENY_SERVERS,
    ISSUER_NAMES,
    ISSUER_PUBLIC,
    TRUSTED_SIGNERS,
    CHORIA_CA,
    FILE_CA,
    EVENT_RETENTION,
    EVENT_REPLICAS,
    MACHINE_RETENTION,
    MACHINE_REPLICAS,
    ADVISORY_RETENTION,
    ADVISORY_REPLICAS,
    ELECTION_TTL,
    ELECTION_REPLICAS,
)
