"""Search for a valid path from a peer's certificate to a configured root, with bounded work.

nats-server has verified the rest (name constraints, policies, critical extensions), which is not checked again. A path
is verified from the root downwards, so that a key is used only after a trusted key has signed its certificate.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Final

from broker_auth.certificates.authorities import Roots
from broker_auth.certificates.certificate import Certificate, CertificateError, certificate_from_pem, pem_fingerprint
from broker_auth.certificates.names import AlternativeNames
from broker_auth.certificates.peer import PeerIdentity, RefusedPeer, cut, identity_names
from broker_auth.certificates.signatures import check_key, is_signed_by

MAX_CERTIFICATES: Final = 32  # distinct certificates read from one connection's chains
MAX_CHAINS: Final = 64  # examined for one connection; nats-server builds one for each renewal of a CA
MAX_CHAIN_LENGTH: Final = 10  # certificates from the leaf to the CA
MAX_PATHS: Final = 64  # from the leaf to a root, checked for one connection
MAX_SIGNATURES: Final = 32  # verified for one connection
_REFUSAL_SECONDS: Final = 30.0  # how long a refusal is cached


@dataclass(frozen=True, slots=True)
class CachedPeer:
    """The cached result for a set of chains, valid from ``start`` until ``end``."""

    peer: PeerIdentity | RefusedPeer
    start: float
    end: float


@dataclass(slots=True)
class Search:
    """A bounded search for the path with the longest validity in the chains of one connection."""

    roots: Roots
    now: float
    problems: list[str] = field(default_factory=list)
    unreadable: str = ""
    _read: dict[str, Certificate] = field(default_factory=dict)
    _checked: set[tuple[Certificate, ...]] = field(default_factory=set)
    _signed: dict[tuple[bytes, bytes], bool] = field(default_factory=dict)

    def run(self, chains: Sequence[Sequence[str]]) -> CachedPeer:
        if not chains or not all(chains):
            return self._refuse(RefusedPeer(reason="a verified chain is empty", unusable=True))
        try:
            leaf = self._parse(chains[0][0])
        except CertificateError as error:
            fingerprint = pem_fingerprint(chains[0][0])
            return self._refuse(
                RefusedPeer(reason=f"it cannot be used: {error}", unusable=True, fingerprint=fingerprint)
            )
        try:
            names = leaf.alternative_names
        except CertificateError as error:
            return self._refuse(_refused(leaf, AlternativeNames(), str(error), unusable=True))
        path = self._longest(leaf, [chain for chain in chains[:MAX_CHAINS] if chain[0] == chains[0][0]])
        if path is not None:
            if self.roots:
                self._vouch(path)
            return CachedPeer(_identity(path, names), _start(path), _end(path))
        reason = self.unreadable or next(iter(self.problems), "it does not lead to client_ca")
        if len(chains) > MAX_CHAINS:
            reason += f" (the first {MAX_CHAINS} of {len(chains)} chains)"
        return self._refuse(_refused(leaf, names, reason, unusable=bool(self.unreadable)))

    def _refuse(self, peer: RefusedPeer) -> CachedPeer:
        return CachedPeer(peer, self.now, self.now + _REFUSAL_SECONDS)

    def _vouch(self, path: list[Certificate]) -> None:
        """Cache the CAs between leaf and root, because the next peer probably has them too."""
        pems = {certificate: pem for pem, certificate in self._read.items()}
        for issued, issuer in itertools.pairwise(path[1:]):
            self.roots.vouched.add(pems[issued], issued, issuer)

    def _parse(self, pem: str) -> Certificate:
        certificate = self._read.get(pem)
        if certificate is None:
            if len(self._read) == MAX_CERTIFICATES:
                raise CertificateError(f"the chains hold more than {MAX_CERTIFICATES} certificates")
            certificate = self._read[pem] = self.roots.vouched.certificate(pem) or certificate_from_pem(pem)
        return certificate

    def _longest(self, leaf: Certificate, chains: Sequence[Sequence[str]]) -> list[Certificate] | None:
        best: list[Certificate] | None = None
        for chain in chains:
            for path in self._paths(leaf, chain):
                if tuple(path) in self._checked or (best is not None and _end(path) <= _end(best)):
                    continue
                if len(self._checked) == MAX_PATHS:
                    return best
                self._checked.add(tuple(path))
                try:
                    self._check(path)
                except CertificateError as error:
                    self.problems.append(str(error))
                    continue
                best = path
                if _end(best) == leaf.not_after:
                    return best
        return best

    def _paths(self, leaf: Certificate, chain: Sequence[str]) -> Iterator[list[Certificate]]:
        """Yield each prefix of the chain whose last issuer has a root's name, completed with that root."""
        path = [leaf]
        if leaf in self.roots:
            yield path
            return
        if self.roots:
            yield from ([*path, root] for root in self.roots.named(leaf.issuer))
        for pem in chain[1:MAX_CHAIN_LENGTH]:
            try:
                issuer = self._parse(pem)
            except CertificateError as error:
                self.unreadable = f"a certificate of its chain cannot be used: {error}"
                return
            if issuer.subject != path[-1].issuer:
                self.problems.append(f"the next certificate of its chain is not its issuer {_issuer(path[-1])}")
                return
            if issuer in self.roots:
                return
            path = [*path, issuer]
            yield from ([*path, root] for root in self.roots.named(issuer.issuer))
        if self.roots:
            self.problems.append(
                f"it does not lead to client_ca: its issuer {_issuer(path[-1])} is not one of these CAs"
            )
        else:
            yield path

    def _check(self, path: list[Certificate]) -> None:
        """Check a path, cheap checks first.

        Raises:
            CertificateError: the path is not valid; the message says why.
        """
        leaf, issuers = path[0], path[1:]
        for certificate in path:
            self._check_times(certificate, leaf)
        if not leaf.is_for_clients:
            raise CertificateError("it is not for TLS clients (extended key usage clientAuth)")
        if not self.roots:
            return
        for below, issuer in enumerate(issuers):
            self.roots.authority(issuer).check(below)
        for certificate in path[:-1]:  # a root's key is checked when it is loaded
            self._check_key(certificate, leaf)
        for issued, issuer in reversed(list(itertools.pairwise(path))):
            if not self._is_signed(issued, issuer):
                raise CertificateError(f"it was not signed by {cut(issuer.subject_text)!r}, which it names")

    def _check_times(self, certificate: Certificate, leaf: Certificate) -> None:
        if self.now >= certificate.not_after:
            who = _whose(certificate, leaf)
            raise CertificateError(f"{who} expired on {certificate.expires:%Y-%m-%d %H:%M:%S} UTC")
        if self.now < certificate.not_before:
            who = _whose(certificate, leaf)
            raise CertificateError(f"{who} is not valid before {certificate.begins:%Y-%m-%d %H:%M:%S} UTC")

    def _check_key(self, certificate: Certificate, leaf: Certificate) -> None:
        try:
            check_key(certificate)
        except CertificateError as error:
            raise CertificateError(f"{_whose(certificate, leaf)}: {error}") from error

    def _is_signed(self, issued: Certificate, issuer: Certificate) -> bool:
        link = (issued.der, issuer.spki)
        if (known := self._signed.get(link)) is not None:
            return known
        if self.roots.vouched.is_signed(issued, issuer):
            return True
        if len(self._signed) == MAX_SIGNATURES:
            raise CertificateError(f"its chains need more than {MAX_SIGNATURES} signatures verified")
        signed = self._signed[link] = is_signed_by(issued, self.roots.key(issuer))
        return signed


def _identity(path: Sequence[Certificate], names: AlternativeNames) -> PeerIdentity:
    leaf = path[0]
    constrained = any(certificate.has_name_constraints for certificate in path[1:])
    return PeerIdentity(
        common_name=leaf.common_name,
        sans=names.ordered,
        names=identity_names(leaf, names, constrained=constrained),
        not_after=_end(path),
        fingerprint=leaf.fingerprint,
        serials=tuple(certificate.issuer_and_serial for certificate in (leaf, *path[1:-1])),
    )


def _refused(leaf: Certificate, names: AlternativeNames, reason: str, *, unusable: bool) -> RefusedPeer:
    return RefusedPeer(
        reason=reason,
        unusable=unusable,
        common_name=leaf.common_name,
        sans=names.ordered,
        fingerprint=leaf.fingerprint,
    )


def _start(path: Sequence[Certificate]) -> float:
    return max(certificate.not_before for certificate in path)


def _end(path: Sequence[Certificate]) -> float:
    return min(certificate.not_after for certificate in path)


def _whose(certificate: Certificate, leaf: Certificate) -> str:
    return "it" if certificate is leaf else f"its CA {cut(certificate.subject_text)!r}"


def _issuer(certificate: Certificate) -> str:
    return repr(cut(certificate.issuer_text))
