"""Revocations of credentials that have not expired: an input of the policy (docs/policy.md#revoked-credentials).

Checked each time a connection would be admitted, so that cached tokens and certificates are covered.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Final

from broker_auth.certificates.peer import PeerIdentity
from broker_auth.policy.crls import NO_CRLS, CrlSet, ExpiredCrls, ListedCertificate
from broker_auth.policy.revocable import peer_names, shown, token_name
from broker_auth.policy.revocation_matches import Networks, Patterns
from broker_auth.policy.revocations import (
    MAX_PATTERNS,
    Key,
    Revocation,
    RevocationError,
    RevocationKind,
    Revoked,
    Term,
    index_key,
    indexed_value,
)
from broker_auth.tokens.verify import Verified

_NOTHING: Final[Mapping[Key, Term]] = {}


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
        terms: Mapping[RevocationKind, Mapping[Key, Term]] | None = None,
        version: str = "",
        crls: CrlSet = NO_CRLS,
    ) -> None:
        """Make the index from the terms of each kind, by keys of :func:`.index_key`; see :meth:`of`."""
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
        self._patterns = Patterns(self._identities)
        self._networks = Networks(self._held(RevocationKind.NETWORK))

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
                    yield term.revocation(kind, indexed_value(kind, key))

    def _has(self, one: Revocation) -> bool:
        return index_key(one.kind, one.value) in self._held(one.kind)

    def items(self) -> Iterator[tuple[RevocationKind, str, Term]]:
        """Yield every revocation, as the index holds it."""
        for kind, held in self._terms.items():
            for key, term in held.items():
                yield kind, indexed_value(kind, key), term

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
                match = self._networks.find(host, now)
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
            if self._identities and token_name(claims) in self._identities:
                return True
        if peer is not None:
            if self._serials and not self._serials.keys().isdisjoint(peer.serials):
                return True
            if self._certificates and bytes.fromhex(peer.fingerprint) in self._certificates:
                return True
            if self._identities and any(name in self._identities for name in peer_names(peer)):
                return True
        return node in self._nodes

    def _named(self, token: Verified | None, peer: PeerIdentity | None, node: str, now: float) -> Revoked | None:
        all_shown = shown(token, peer, node)
        for kind, key in all_shown.keys:
            term = self._held(kind).get(key)
            if term is not None and now < term.until and all_shown.issued < term.before:
                return Revoked(kind, indexed_value(kind, key))
        return self._patterns.find(all_shown.names, now)

    def _held(self, kind: RevocationKind) -> Mapping[Key, Term]:
        return self._terms.get(kind, _NOTHING)


class Draft:
    """A set of revocations while it is changed, part by part; the set that it began with stays as it is."""

    def __init__(self, base: Revocations) -> None:
        self._base = base
        self._terms: dict[RevocationKind, dict[Key, Term]] = {}
        self._known: dict[Term, Term] = {}  # equal terms share one object, to save memory

    def apply(self, added: Iterable[Revocation], removed: Iterable[Revocation]) -> None:
        """Remove and add revocations.

        Raises:
            RevocationError: a value is not usable.
        """
        for one in removed:
            self._of(one.kind).pop(index_key(one.kind, one.value), None)
        for one in added:
            term = Term.of(one)
            self._of(one.kind)[index_key(one.kind, one.value)] = self._known.setdefault(term, term)

    def finish(self, version: str) -> Revocations:
        """Return the set under its new version.

        Raises:
            RevocationError: there are too many patterns.
        """
        made = Revocations({**self._base._terms, **self._terms}, version, self._base.crls)
        if len(made._patterns) > MAX_PATTERNS:
            raise RevocationError(f"there are more than {MAX_PATTERNS} patterns; revoke identities by name")
        return made

    def _of(self, kind: RevocationKind) -> dict[Key, Term]:
        if kind not in self._terms:
            self._terms[kind] = dict(self._base._held(kind))
        return self._terms[kind]


NO_REVOCATIONS: Final = Revocations()
