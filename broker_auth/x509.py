"""Who a verified TLS peer is, and whether its chain leads to a CA of ours (docs/policy.md#0-what-is-not-served).

nats-server hands over the chains it verified. It may have verified them against the system's roots (fact 3 of
docs/nats-server.md), so one question is asked again here: does this chain lead to one of our CAs, link by link, now?
What else nats-server has verified (name constraints, policies, critical extensions) is not repeated.

The path is verified from the configured root downwards, so that no key is used before a trusted one vouched for it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Final

from broker_auth.cache import BoundedCache
from broker_auth.certificate import Certificate, CertificateError, certificate_from_pem, certificates_from_pem
from broker_auth.distinguished import AlternativeNames
from broker_auth.errors import InputError
from broker_auth.issued import MAX_ROOT_RSA_BITS, MAX_RSA_BITS, PublicKey, check_key, is_signed_by, public_key
from broker_auth.peer import PeerIdentity, RefusedPeer, cut, identity_names

MAX_CERTIFICATES: Final = 32  # different ones, read of one connection's chains
MAX_CHAINS: Final = 64  # looked at of one connection; nats-server makes one for each renewal of a CA
MAX_CHAIN_LENGTH: Final = 10  # certificates from the leaf to the CA
MAX_SIGNATURES: Final = 32  # verified for one connection
PEER_CACHE: Final = 2048  # peers; some 1 KB each
REFUSED_CACHE: Final = 512  # apart from the peers', so that refused chains displace no peer
_MAX_REMEMBERED_NAMES: Final = 16_384  # characters; a peer with more is looked at each time
_REFUSAL_SECONDS: Final = 30.0  # how long a refused chain is not looked at again


@dataclass(frozen=True, slots=True)
class _Known:
    """A chain looked at before; holds from ``start`` until ``end``."""

    peer: PeerIdentity | RefusedPeer
    start: float
    end: float


class PeerVerifier:
    """Verifies peers against a fixed set of roots, remembering each set of chains by its SHA-256."""

    def __init__(self, roots: Sequence[Certificate]) -> None:
        """With no roots, any chain that nats-server verified counts."""
        self._roots = _Roots(roots)
        self._known: BoundedCache[bytes, _Known] = BoundedCache(PEER_CACHE)
        self._refused: BoundedCache[bytes, _Known] = BoundedCache(REFUSED_CACHE)

    def identify(self, chains: Sequence[Sequence[str]], now: float) -> PeerIdentity | RefusedPeer:
        """Return the peer, or why none of its chains leads to a configured root at ``now``.

        Args:
            chains: the verified chains as PEM, leaf first, as in the authorization request.
            now: Unix seconds.
        """
        digest = _digest(chains)
        known = self._known.get(digest) or self._refused.get(digest)
        if known is None or not known.start <= now < known.end:
            known = _Search(self._roots, now).run(chains)
            self._remember(digest, known)
        return known.peer

    def _remember(self, digest: bytes, known: _Known) -> None:
        peer = known.peer
        if sum(map(len, peer.all_names)) > _MAX_REMEMBERED_NAMES:
            return
        (self._known if isinstance(peer, PeerIdentity) else self._refused).put(digest, known)


class _Roots:
    """The configured CAs by subject; a CA renewed with the same name has several."""

    def __init__(self, roots: Sequence[Certificate]) -> None:
        self.all = frozenset(roots)
        self._keys: dict[bytes, PublicKey] = {}
        self._by_subject: dict[bytes, list[Certificate]] = {}
        for root in dict.fromkeys(roots):
            self._by_subject.setdefault(root.subject, []).append(root)

    def named(self, subject: bytes) -> Sequence[Certificate]:
        return self._by_subject.get(subject, ())

    def key(self, root: Certificate) -> PublicKey:
        if (key := self._keys.get(root.spki)) is None:
            key = self._keys[root.spki] = public_key(root, MAX_ROOT_RSA_BITS)
        return key


@dataclass(slots=True)
class _Search:
    """Looks for the path that holds longest in the chains of one connection; its work is bounded."""

    roots: _Roots
    now: float
    problems: list[str] = field(default_factory=list)
    unreadable: str = ""
    _read: dict[str, Certificate] = field(default_factory=dict)
    _signed: dict[tuple[bytes, bytes], bool] = field(default_factory=dict)

    def run(self, chains: Sequence[Sequence[str]]) -> _Known:
        if not chains or not all(chains):
            return self._refuse(RefusedPeer(reason="a verified chain is empty", unusable=True))
        try:
            leaf = self._parse(chains[0][0])
        except CertificateError as error:
            return self._refuse(RefusedPeer(reason=f"the certificate cannot be used: {error}", unusable=True))
        try:
            names = leaf.alternative_names
        except CertificateError as error:
            return self._refuse(_refused(leaf, AlternativeNames(), str(error), unusable=True))
        path = self._longest(leaf, [chain for chain in chains[:MAX_CHAINS] if chain[0] == chains[0][0]])
        if path is not None:
            return _Known(_identity(path, names), _start(path), _end(path))
        reason = self.unreadable or next(iter(self.problems), "it does not lead to client_ca")
        if len(chains) > MAX_CHAINS:
            reason += f" (the first {MAX_CHAINS} of {len(chains)} chains)"
        return self._refuse(_refused(leaf, names, reason, unusable=bool(self.unreadable)))

    def _refuse(self, peer: RefusedPeer) -> _Known:
        return _Known(peer, self.now, self.now + _REFUSAL_SECONDS)

    def _parse(self, pem: str) -> Certificate:
        certificate = self._read.get(pem)
        if certificate is None:
            if len(self._read) == MAX_CERTIFICATES:
                raise CertificateError(f"the chains hold more than {MAX_CERTIFICATES} certificates")
            certificate = self._read[pem] = certificate_from_pem(pem)
        return certificate

    def _longest(self, leaf: Certificate, chains: Sequence[Sequence[str]]) -> list[Certificate] | None:
        best: list[Certificate] | None = None
        for chain in chains:
            for path in self._paths(leaf, chain):
                if best is not None and _end(path) <= _end(best):
                    continue
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
        """Yield every beginning of the chain that a root, by its name, could have issued, with that root."""
        path = [leaf]
        if leaf in self.roots.all:
            yield path
            return
        if self.roots.all:
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
            if issuer in self.roots.all:
                return
            path = [*path, issuer]
            yield from ([*path, root] for root in self.roots.named(issuer.issuer))
        if self.roots.all:
            self.problems.append(f"it does not lead to client_ca: its issuer {_issuer(path[-1])} is none of these CAs")
        else:
            yield path

    def _check(self, path: list[Certificate]) -> None:
        """Check a path, what costs nothing first.

        Raises:
            CertificateError: it does not hold; says why.
        """
        leaf, issuers = path[0], path[1:]
        for certificate in path:
            self._check_times(certificate, leaf)
        if not leaf.is_for_clients:
            raise CertificateError("it is not for TLS clients (extended key usage clientAuth)")
        if not self.roots.all:
            return
        for below, issuer in enumerate(issuers):
            _check_authority(issuer, below, is_root=issuer in self.roots.all)
        for certificate in path:
            self._check_key(certificate, leaf)
        for issued, issuer in reversed(list(zip(path, issuers, strict=False))):
            if not self._is_signed(issued, issuer):
                raise CertificateError(f"it was not signed by {cut(issuer.subject_text)!r}, which it names")

    def _check_times(self, certificate: Certificate, leaf: Certificate) -> None:
        who = _whose(certificate, leaf)
        if self.now >= certificate.not_after:
            raise CertificateError(f"{who} expired on {certificate.expires:%Y-%m-%d %H:%M:%S} UTC")
        if self.now < certificate.not_before:
            raise CertificateError(f"{who} is not valid before {certificate.begins:%Y-%m-%d %H:%M:%S} UTC")

    def _check_key(self, certificate: Certificate, leaf: Certificate) -> None:
        try:
            check_key(certificate, MAX_ROOT_RSA_BITS if certificate in self.roots.all else MAX_RSA_BITS)
        except CertificateError as error:
            raise CertificateError(f"{_whose(certificate, leaf)}: {error}") from error

    def _is_signed(self, issued: Certificate, issuer: Certificate) -> bool:
        link = (issued.der, issuer.spki)
        if (known := self._signed.get(link)) is not None:
            return known
        if len(self._signed) == MAX_SIGNATURES:
            raise CertificateError(f"its chains need more than {MAX_SIGNATURES} signatures verified")
        key = self.roots.key(issuer) if issuer in self.roots.all else public_key(issuer)
        signed = self._signed[link] = is_signed_by(issued, key)
        return signed


def load_roots(data: bytes, name: str) -> list[Certificate]:
    """Return all certificates of a PEM file.

    Raises:
        InputError: there is none, or one cannot be read.
    """
    try:
        roots = certificates_from_pem(data)
    except CertificateError as error:
        raise InputError(f"{name}: {error}") from error
    if not roots:
        raise InputError(f"{name}: holds no readable PEM certificate")
    return roots


def _digest(chains: Sequence[Sequence[str]]) -> bytes:
    """SHA-256 of the chains and of where each certificate ends, so that no other cut has the same one."""
    cuts = ";".join([",".join([str(len(pem)) for pem in chain]) for chain in chains])
    whole = "".join([pem for chain in chains for pem in chain])
    return hashlib.sha256(f"{cuts}\n{whole}".encode("utf-8", "surrogatepass")).digest()


def _check_authority(issuer: Certificate, below: int, *, is_root: bool) -> None:
    """Check that ``issuer`` may sign certificates, as Go does; ``below`` CAs stand between it and the leaf."""
    name = f"its CA {cut(issuer.subject_text)!r}"
    authority, path_length = issuer.authority, issuer.path_length
    if issuer.version < 3 and not is_root:
        raise CertificateError(f"{name} is X.509 version {issuer.version}, which only a CA in client_ca may be")
    if issuer.version == 3 and not authority:
        raise CertificateError(f"{name} is no CA (basicConstraints)")
    if not issuer.may_sign_certificates:
        raise CertificateError(f"{name} may not sign certificates (keyUsage)")
    if path_length is not None and below > path_length:
        raise CertificateError(f"{name} allows {path_length} CAs below it, not {below}")


def _identity(path: Sequence[Certificate], names: AlternativeNames) -> PeerIdentity:
    leaf = path[0]
    constrained = any(certificate.has_name_constraints for certificate in path[1:])
    return PeerIdentity(
        common_name=leaf.common_name,
        sans=names.ordered,
        names=identity_names(leaf, names, constrained=constrained),
        not_after=_end(path),
        fingerprint=leaf.fingerprint,
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
