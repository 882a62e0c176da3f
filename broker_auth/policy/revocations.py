"""Revocations: their kinds, and the one form in which each value is written (docs/policy.md#revoked-credentials)."""

from __future__ import annotations

import ipaddress
import math
import re
from enum import StrEnum
from typing import Final

import msgspec

from broker_auth.certificates.peer import identity_literal
from broker_auth.policy.decision import DenyCode

MAX_PATTERNS: Final = 32  # each costs a match per admission; everything else is a look-up
MAX_VALUE: Final = 1024  # characters
_HEX_DIGEST: Final = re.compile(r"[0-9a-f]{64}")
_SERIAL: Final = re.compile(r"(?P<issuer>[0-9a-f]{64})/(?P<serial>(?:[0-9a-f]{2}){1,32})")


Key = str | bytes
"""A value as an index holds it; see :func:`index_key`."""


class RevocationKind(StrEnum):
    """The kinds of things that can be revoked."""

    TOKEN_ID = "token-id"
    TOKEN_SHA256 = "token-sha256"
    KEY = "key"
    CHAIN_ISSUER = "chain-issuer"
    IDENTITY = "identity"
    SIGNER = "signer"
    CERTIFICATE = "certificate"
    SERIAL = "serial"
    NODE = "node"
    NETWORK = "network"


_DIGESTS: Final = frozenset({RevocationKind.TOKEN_SHA256, RevocationKind.KEY, RevocationKind.CERTIFICATE})
_LABELS: Final = {
    RevocationKind.TOKEN_ID: "token id",
    RevocationKind.TOKEN_SHA256: "token with SHA-256",
    RevocationKind.KEY: "key",
    RevocationKind.CHAIN_ISSUER: "chain issuer",
    RevocationKind.IDENTITY: "identity",
    RevocationKind.SIGNER: "signer",
    RevocationKind.CERTIFICATE: "certificate",
    RevocationKind.SERIAL: "certificate by issuer and serial number",
    RevocationKind.NODE: "node name",
    RevocationKind.NETWORK: "network",
}


class RevocationError(ValueError):
    """A revocation's value is not usable; the message is one line."""


class Revocation(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, forbid_unknown_fields=True):
    """One revocation. Times are Unix seconds.

    Attributes:
        value: in the form that :func:`normalized` returns.
        before: for signers: only tokens issued before this moment.
        until: when the revocation ends; None if it does not.
        reason: for operators; no decision depends on it.
        by: who revoked.
        at: when.
    """

    kind: RevocationKind
    value: str
    before: float | None = None
    until: float | None = None
    reason: str = ""
    by: str = ""
    at: float = 0.0


class Term(msgspec.Struct, frozen=True):
    """For how long, and for tokens of which time, a revocation counts; infinite where it has no limit."""

    until: float = math.inf
    before: float = math.inf

    @classmethod
    def of(cls, revocation: Revocation) -> Term:
        """Return the term of a revocation."""
        until, before = revocation.until, revocation.before
        return cls(math.inf if until is None else until, math.inf if before is None else before)

    def revocation(self, kind: RevocationKind, value: str) -> Revocation:
        """Return a revocation on this term, without those particulars on which no decision depends."""
        until = None if self.until == math.inf else self.until
        before = None if self.before == math.inf else self.before
        return Revocation(kind=kind, value=value, until=until, before=before)


class Revoked(msgspec.Struct, frozen=True):
    """The revocation that applies to a connection."""

    kind: RevocationKind
    value: str
    code: DenyCode = DenyCode.REVOKED

    @property
    def detail(self) -> str:
        """One line for the audit log."""
        return f"the {_LABELS[self.kind]} {self.value} was revoked"


def normalized(kind: RevocationKind, value: str) -> str:
    """Return a value in the one form that is stored.

    Raises:
        RevocationError: no connection can show such a value.
    """
    if not 0 < len(value) <= MAX_VALUE or not value.isprintable() or value.strip() != value:
        raise RevocationError(f"write 1 to {MAX_VALUE} printable characters without surrounding white space")
    if kind in _DIGESTS:
        text = value.lower().replace(":", "")
        if not _HEX_DIGEST.fullmatch(text):
            raise RevocationError("write 64 hex digits")
        return text
    if kind is RevocationKind.SERIAL:
        if not _SERIAL.fullmatch(value):
            raise RevocationError("write the SHA-256 of the issuer's name (DER), a slash and the serial number, in hex")
        return value
    if kind is RevocationKind.NETWORK:
        return str(_network(value))
    if kind is RevocationKind.IDENTITY and expression(value) is None:
        return identity_literal(value)
    return value


def check_normal(kind: RevocationKind, value: str) -> None:
    """Check that a value is in the form that :func:`normalized` returns.

    Raises:
        RevocationError: it is not.
    """
    if (text := normalized(kind, value)) != value:
        raise RevocationError(f"{kind} {value!r} should be written {text!r}")


def is_wide(revocation: Revocation) -> bool:
    """Return whether a revocation may concern more than one connection's owner."""
    wide = {RevocationKind.SIGNER, RevocationKind.CHAIN_ISSUER, RevocationKind.NETWORK}
    if revocation.kind is RevocationKind.NETWORK:
        return _network(revocation.value).num_addresses > 1
    return revocation.kind in wide or is_pattern(revocation)


def is_pattern(revocation: Revocation) -> bool:
    """Return whether a revocation is one of the patterns, of which there may be :data:`MAX_PATTERNS`."""
    return revocation.kind is RevocationKind.IDENTITY and expression(revocation.value) is not None


def expression(identity: str) -> re.Pattern[str] | None:
    """Return the regular expression of a pattern of identities; None for the name of one identity.

    Raises:
        RevocationError: it is not a regular expression.
    """
    if not (len(identity) > 1 and identity[0] == identity[-1] == "/"):
        return None
    try:
        return re.compile(identity[1:-1])
    except (re.error, RecursionError, OverflowError) as error:
        raise RevocationError(f"{identity!r} is not a regular expression: {error}") from error


def index_key(kind: RevocationKind, value: str) -> Key:
    """Return what an index holds for a value, as small as it can be.

    Raises:
        RevocationError: the value is not in its normal form.
    """
    check_normal(kind, value)
    if kind in _DIGESTS:
        return bytes.fromhex(value)
    if kind is RevocationKind.SERIAL:
        issuer, _, serial = value.partition("/")
        return bytes.fromhex(issuer) + bytes.fromhex(serial)
    return value


def indexed_value(kind: RevocationKind, key: Key) -> str:
    """Return the value for which an index holds a key."""
    if isinstance(key, str):
        return key
    return f"{key[:32].hex()}/{key[32:].hex()}" if kind is RevocationKind.SERIAL else key.hex()


def _network(value: str) -> ipaddress.IPv4Network | ipaddress.IPv6Network:
    try:
        network = ipaddress.ip_network(value, strict=False)
    except ValueError as error:
        raise RevocationError("write an IP address or a network such as 10.1.0.0/16") from error
    if isinstance(network, ipaddress.IPv6Network) and (mapped := network.network_address.ipv4_mapped):
        return ipaddress.IPv4Network((mapped, network.prefixlen - 96))
    return network
