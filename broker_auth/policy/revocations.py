"""Revocations of credentials that have not expired: an input of the policy (docs/policy.md#revoked-credentials).

Checked each time a connection would be admitted, so that cached tokens and certificates are covered.
"""

from __future__ import annotations

import ipaddress
import math
import re
from collections.abc import Iterable, Iterator, Mapping
from enum import StrEnum
from typing import Final

import msgspec

from broker_auth.certificates.peer import PREFIXES, PeerIdentity, identity_literal
from broker_auth.policy.crls import NO_CRLS, CrlSet, ExpiredCrls, ListedCertificate
from broker_auth.policy.decision import DenyCode
from broker_auth.tokens.claims import Claims, ClientClaims, ServerClaims
from broker_auth.tokens.verify import Verified

MAX_PATTERNS: Final = 32  # each costs a match per admission; everything else is a look-up
MAX_VALUE: Final = 1024  # characters
_HEX_DIGEST: Final = re.compile(r"[0-9a-f]{64}")
_SERIAL: Final = re.compile(r"(?P<issuer>[0-9a-f]{64})/(?P<serial>(?:[0-9a-f]{2}){1,32})")


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
    """For how long, and for tokens of which time, a revocation counts."""

    until: float = math.inf
    before: float = math.inf


class Revoked(msgspec.Struct, frozen=True):
    """The revocation that applies to a connection."""

    kind: RevocationKind
    value: str
    code: DenyCode = DenyCode.REVOKED

    @property
    def detail(self) -> str:
        """One line for the audit log."""
        return f"the {_LABELS[self.kind]} {self.value} was revoked"


_Key = str | bytes
_NOTHING: Final[Mapping[_Key, Term]] = {}
_Network = ipaddress.IPv4Network | ipaddress.IPv6Network


class Revocations:
    """A frozen set of revocations, indexed by what a connection shows.

    Attributes:
        version: names the set; a service confirms it by this name.
        count: how many revocations it holds.
        crls: the CRLs of the fleet's CAs, which neither count nor have a part in the version.
    """

    __slots__ = (
        "_certificates",
        "_chain_issuers",
        "_digests",
        "_identities",
        "_keys",
        "_networks",
        "_nodes",
        "_patterns",
        "_serials",
        "_signers",
        "_terms",
        "_token_ids",
        "count",
        "crls",
        "version",
    )

    def __init__(
        self,
        terms: Mapping[RevocationKind, Mapping[_Key, Term]] | None = None,
        version: str = "",
        crls: CrlSet = NO_CRLS,
    ) -> None:
        """Make the index from the terms of each kind, by keys of :func:`_key`; see :meth:`of`."""
        self.version = version
        self.crls = crls
        self._terms = {kind: held for kind, held in (terms or {}).items() if held}
        self.count = sum(map(len, self._terms.values()))
        self._token_ids = self._held(RevocationKind.TOKEN_ID)
        self._digests = self._held(RevocationKind.TOKEN_SHA256)
        self._keys = self._held(RevocationKind.KEY)
        self._signers = self._held(RevocationKind.SIGNER)
        self._chain_issuers = self._held(RevocationKind.CHAIN_ISSUER)
        self._certificates = self._held(RevocationKind.CERTIFICATE)
        self._serials = self._held(RevocationKind.SERIAL)
        self._identities = self._held(RevocationKind.IDENTITY)
        self._nodes = self._held(RevocationKind.NODE)
        self._patterns = [(_pattern(text), text, term) for text, term in self._identities.items() if _is_pattern(text)]
        self._networks: dict[tuple[int, int], dict[int, tuple[_Key, Term]]] = {}
        for text, term in self._terms.get(RevocationKind.NETWORK, {}).items():
            network = ipaddress.ip_network(str(text))
            shift = network.max_prefixlen - network.prefixlen
            held = self._networks.setdefault((network.version, shift), {})
            held[int(network.network_address) >> shift] = (text, term)

    @classmethod
    def of(cls, revocations: Iterable[Revocation], version: str = "") -> Revocations:
        """Return the set of these revocations.

        Raises:
            RevocationError: one is not usable.
        """
        return cls().changed(revocations, (), version)

    def changed(self, added: Iterable[Revocation], removed: Iterable[Revocation], version: str) -> Revocations:
        """Return the set with some revocations removed and others added. Copies only the kinds that change.

        Raises:
            RevocationError: a value is not usable, or there are too many patterns.
        """
        draft = Draft(self)
        draft.apply(added, removed)
        return draft.finish(version)

    def with_crls(self, crls: CrlSet) -> Revocations:
        """Return the set with other CRLs."""
        return Revocations(self._terms, self.version, crls)

    def since(self, earlier: Revocations) -> tuple[list[Revocation], list[Revocation]]:
        """Return what to add to an earlier set and what to remove from it, to make this one."""
        return list(self._beyond(earlier)), [one for one in earlier._beyond(self) if not self._has(one)]

    def _beyond(self, other: Revocations) -> Iterator[Revocation]:
        for kind, held in self._terms.items():
            theirs = other._held(kind)
            for key, term in held.items():
                if theirs.get(key) != term:
                    until = None if term.until == math.inf else term.until
                    before = None if term.before == math.inf else term.before
                    yield Revocation(kind=kind, value=_shown(kind, key), until=until, before=before)

    def _has(self, one: Revocation) -> bool:
        return _key(one.kind, one.value) in self._held(one.kind)

    def items(self) -> Iterator[tuple[RevocationKind, str, Term]]:
        """Yield every revocation, as the index holds it."""
        for kind, held in self._terms.items():
            for key, term in held.items():
                yield kind, _shown(kind, key), term

    def find(
        self, token: Verified | None, peer: PeerIdentity | None, node: str, host: str, now: float
    ) -> Revoked | ListedCertificate | ExpiredCrls | None:
        """Return the revocation that applies to a connection; None if it may be admitted.

        Args:
            token: the token that lets it in.
            peer: the verified peer.
            node: the name of an unprovisioned node; empty for others.
            host: the client's address.
            now: Unix seconds.
        """
        if self._terms:
            match = None
            if self._patterns or self._may_concern(token, peer, node):
                match = self._named(token, peer, node, now)
            if match is None and self._networks:
                match = self._containing(host, now)
            if match is not None:
                return match
        return self.crls.find(peer.serials, now) if peer is not None and self.crls else None

    def _may_concern(self, token: Verified | None, peer: PeerIdentity | None, node: str) -> bool:
        """Return False if no look-up by name can find anything: what almost every connection pays."""
        if token is not None:
            claims = token.claims
            if (
                claims.jti in self._token_ids
                or token.digest in self._digests
                or token.signer in self._signers
                or (token.chain_issuer is not None and (self._signers or token.chain_issuer.id in self._chain_issuers))
            ):
                return True
            if self._keys and not self._keys.keys().isdisjoint(token.keys):
                return True
            if self._identities and _token_name(claims) in self._identities:
                return True
        if peer is not None:
            if self._serials and not self._serials.keys().isdisjoint(peer.serials):
                return True
            if self._certificates and bytes.fromhex(peer.fingerprint) in self._certificates:
                return True
            if self._identities and any(name in self._identities for name in _peer_names(peer)):
                return True
        return node in self._nodes

    def _named(self, token: Verified | None, peer: PeerIdentity | None, node: str, now: float) -> Revoked | None:
        shown: list[tuple[RevocationKind, _Key]] = [(RevocationKind.NODE, node)]
        names: list[str] = []
        issued = -math.inf
        if token is not None:
            issued = _issued(token)
            shown += _of_token(token)
            names.append(_token_name(token.claims))
        if peer is not None:
            shown.append((RevocationKind.CERTIFICATE, bytes.fromhex(peer.fingerprint)))
            shown += [(RevocationKind.SERIAL, serial) for serial in peer.serials]
            names += _peer_names(peer)
        shown += [(RevocationKind.IDENTITY, name) for name in names]
        for kind, key in shown:
            term = self._held(kind).get(key)
            if term is not None and now < term.until and issued < term.before:
                return Revoked(kind, _shown(kind, key))
        return self._matching(names, now)

    def _held(self, kind: RevocationKind) -> Mapping[_Key, Term]:
        return self._terms.get(kind, _NOTHING)

    def _matching(self, names: Iterable[str], now: float) -> Revoked | None:
        for expression, text, term in self._patterns:
            if now < term.until and any(
                _prefix(name) == _prefix(expression.pattern) and expression.fullmatch(name) for name in names
            ):
                return Revoked(RevocationKind.IDENTITY, str(text))
        return None

    def _containing(self, host: str, now: float) -> Revoked | None:
        address = _address(host)
        if address is None:
            return None
        version, number = address
        for (of_version, shift), held in self._networks.items():
            if of_version == version and (entry := held.get(number >> shift)) and now < entry[1].until:
                return Revoked(RevocationKind.NETWORK, str(entry[0]))
        return None


class Draft:
    """A set of revocations while it is changed, part by part; the set that it began with stays as it is."""

    def __init__(self, base: Revocations) -> None:
        self._base = base
        self._terms: dict[RevocationKind, dict[_Key, Term]] = {}
        self._known: dict[tuple[float, float], Term] = {}  # equal terms share one object, to save memory

    def apply(self, added: Iterable[Revocation], removed: Iterable[Revocation]) -> None:
        """Remove and add revocations.

        Raises:
            RevocationError: a value is not usable.
        """
        for one in removed:
            self._of(one.kind).pop(_key(one.kind, one.value), None)
        for one in added:
            until = math.inf if one.until is None else one.until
            before = math.inf if one.before is None else one.before
            term = self._known.setdefault((until, before), Term(until, before))
            self._of(one.kind)[_key(one.kind, one.value)] = term

    def finish(self, version: str) -> Revocations:
        """Return the set under its new version.

        Raises:
            RevocationError: there are too many patterns.
        """
        made = Revocations({**self._base._terms, **self._terms}, version, self._base.crls)
        if len(made._patterns) > MAX_PATTERNS:
            raise RevocationError(f"there are more than {MAX_PATTERNS} patterns; revoke identities by name")
        return made

    def _of(self, kind: RevocationKind) -> dict[_Key, Term]:
        if kind not in self._terms:
            self._terms[kind] = dict(self._base._held(kind))
        return self._terms[kind]


NO_REVOCATIONS: Final = Revocations()


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
    if kind is RevocationKind.IDENTITY and not _is_pattern(value):
        return identity_literal(value)
    if kind is RevocationKind.IDENTITY:
        _pattern(value)
    return value


def is_wide(revocation: Revocation) -> bool:
    """Return whether a revocation may concern more than one connection's owner."""
    wide = {RevocationKind.SIGNER, RevocationKind.CHAIN_ISSUER, RevocationKind.NETWORK}
    if revocation.kind is RevocationKind.NETWORK:
        return _network(revocation.value).num_addresses > 1
    return revocation.kind in wide or is_pattern(revocation)


def is_pattern(revocation: Revocation) -> bool:
    """Return whether a revocation is one of the patterns, of which there may be :data:`MAX_PATTERNS`."""
    return revocation.kind is RevocationKind.IDENTITY and _is_pattern(revocation.value)


def _network(value: str) -> _Network:
    try:
        network = ipaddress.ip_network(value, strict=False)
    except ValueError as error:
        raise RevocationError("write an IP address or a network such as 10.1.0.0/16") from error
    if isinstance(network, ipaddress.IPv6Network) and (mapped := network.network_address.ipv4_mapped):
        return ipaddress.IPv4Network((mapped, network.prefixlen - 96))
    return network


def _key(kind: RevocationKind, value: str) -> _Key:
    """Return what the index holds for a value, as small as it can be.

    Raises:
        RevocationError: see :func:`normalized`.
    """
    text = normalized(kind, value)
    if text != value:
        raise RevocationError(f"{kind} {value!r} should be written {text!r}")
    if kind in _DIGESTS:
        return bytes.fromhex(text)
    if kind is RevocationKind.SERIAL:
        issuer, _, serial = text.partition("/")
        return bytes.fromhex(issuer) + bytes.fromhex(serial)
    return text


def _shown(kind: RevocationKind, key: _Key) -> str:
    if isinstance(key, str):
        return key
    return f"{key[:32].hex()}/{key[32:].hex()}" if kind is RevocationKind.SERIAL else key.hex()


def _is_pattern(text: _Key) -> bool:
    return isinstance(text, str) and len(text) > 1 and text[0] == text[-1] == "/"


def _pattern(text: _Key) -> re.Pattern[str]:
    try:
        return re.compile(str(text)[1:-1])
    except (re.error, RecursionError, OverflowError) as error:
        raise RevocationError(f"{text!r} is not a regular expression: {error}") from error


def _prefix(name: str) -> str:
    """Return the prefix for which a name or an expression is written, as for provisioners' identities."""
    return next((prefix for prefix in PREFIXES if name.startswith(prefix)), "")


def _issued(token: Verified) -> float:
    """Return when a token was issued: without ``iat`` at any time, and never after its chain issuer was."""
    issued = token.claims.iat
    if issued is None:
        return -math.inf
    return min(issued, token.chain_issuer.issued) if token.chain_issuer else issued


def _of_token(token: Verified) -> list[tuple[RevocationKind, _Key]]:
    shown: list[tuple[RevocationKind, _Key]] = [
        (RevocationKind.TOKEN_ID, token.claims.jti),
        (RevocationKind.TOKEN_SHA256, token.digest),
        (RevocationKind.SIGNER, token.signer),
    ]
    shown += [(RevocationKind.KEY, key) for key in token.keys]
    if token.chain_issuer is not None:
        shown.append((RevocationKind.CHAIN_ISSUER, token.chain_issuer.id))
        shown.append((RevocationKind.SIGNER, token.signer.partition(" via ")[0]))
    return shown


def _token_name(claims: Claims) -> str:
    """Return whose token it is; empty for provisioning tokens."""
    if isinstance(claims, ClientClaims):
        return claims.callerid
    return claims.identity if isinstance(claims, ServerClaims) else ""


def _peer_names(peer: PeerIdentity) -> tuple[str, ...]:
    """Return every name that may be revoked: the common name counts here whatever other names there are."""
    return (*peer.names, peer.common_name) if peer.common_name else peer.names


def _address(host: str) -> tuple[int, int] | None:
    """Return the version and number of an IP address, of IPv4 in IPv6 as of IPv4; None for other text."""
    parts = host.split(".")
    if len(parts) == 4 and host.isascii() and host.replace(".", "").isdigit():  # the usual form, read fast
        try:
            return 4, int.from_bytes(map(int, parts), "big")
        except ValueError:
            return None
    try:
        address = ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        return None
    if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped:
        address = address.ipv4_mapped
    return address.version, int(address)
