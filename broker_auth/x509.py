"""Who a verified TLS peer is, and whether its chain leads to a CA of ours (POLICY rule 0).

nats-server hands over the chains it verified. It may have verified them against the system's roots
(NATS_FACTS 3), so the chain is verified once more here, against ``client_ca`` alone.
"""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ed25519
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID
from cryptography.x509.verification import (
    ClientVerifier,
    Criticality,
    ExtensionPolicy,
    Policy,
    PolicyBuilder,
    Store,
    VerificationError,
)

from broker_auth.cache import BoundedCache
from broker_auth.errors import InputError

MAX_CERTIFICATES: Final = 16  # in all verified chains of one connection together
PEER_CACHE: Final = 2048  # peers; 1 KB each
_REFUSAL_SECONDS: Final = 30.0  # how long a refused chain is not looked at again
_CLIENT_USAGES: Final = (ExtendedKeyUsageOID.CLIENT_AUTH, ExtendedKeyUsageOID.ANY_EXTENDED_KEY_USAGE)


class UnusableChainError(Exception):
    """The verified chain in the request cannot be parsed; the connection is denied."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PeerIdentity:
    """What a peer's certificate says.

    Attributes:
        common_name: subject CN, empty if there is none.
        sans: DNS names, e-mail addresses, URIs and IP addresses, in the certificate's order.
        not_after: Unix seconds until which the whole chain is valid.
        fingerprint: SHA-256 of the certificate (DER), lower-case hex.
    """

    common_name: str
    sans: tuple[str, ...]
    not_after: float
    fingerprint: str

    @property
    def names(self) -> tuple[str, ...]:
        """Everything an identity pattern is compared with: CN and SANs."""
        return (self.common_name, *self.sans) if self.common_name else self.sans

    @property
    def display_name(self) -> str:
        """CN, else the first SAN, else the fingerprint; never empty."""
        return self.common_name or next(iter(self.sans), f"sha256:{self.fingerprint}")


@dataclass(frozen=True, slots=True)
class _Known:
    """A chain looked at before: ``identity`` None means refused. Holds from ``start`` until ``end``."""

    identity: PeerIdentity | None
    start: float
    end: float


class PeerVerifier:
    """Verifies peers against a fixed set of roots, remembering each chain by its SHA-256."""

    def __init__(self, roots: Sequence[x509.Certificate]) -> None:
        """With no roots, any chain that nats-server verified counts."""
        self._roots = tuple(roots)
        self._known: BoundedCache[bytes, _Known] = BoundedCache(PEER_CACHE)

    def identify(self, chains: Sequence[Sequence[str]], now: float) -> PeerIdentity | None:
        """The peer's identity, or None if none of its chains leads to a configured root at ``now``.

        Args:
            chains: the verified chains as PEM, leaf first, as in the authorization request.
            now: Unix seconds.

        Raises:
            UnusableChainError: the chains are malformed or too many.
        """
        certificates = [pem for chain in chains for pem in chain]
        if not chains or not all(chains) or len(certificates) > MAX_CERTIFICATES:
            raise UnusableChainError(f"verified chains hold {len(certificates)} certificates")
        digest = hashlib.sha256("\0".join(certificates).encode("utf-8", "surrogatepass")).digest()
        known = self._known.get(digest)
        if known is None or not known.start <= now < known.end:
            known = self._identify(chains, now)
            self._known.put(digest, known)
        return known.identity

    def _identify(self, chains: Sequence[Sequence[str]], now: float) -> _Known:
        try:
            parsed = [[x509.load_pem_x509_certificate(pem.encode("ascii")) for pem in chain] for chain in chains]
            leaf = parsed[0][0]
            path = self._path_to_root(leaf, parsed, now)
            if path is None:
                return _Known(None, now, now + _REFUSAL_SECONDS)
            start = max(certificate.not_valid_before_utc.timestamp() for certificate in path)
            end = min(certificate.not_valid_after_utc.timestamp() for certificate in path)
            if not start <= now < end:
                return _Known(None, now, now + _REFUSAL_SECONDS)
            return _Known(_identity(leaf, end), start, end)
        except (ValueError, TypeError, UnsupportedAlgorithm, x509.InvalidVersion, x509.ExtensionNotFound) as error:
            raise UnusableChainError("a certificate of the verified chain cannot be parsed") from error
        except (x509.DuplicateExtension, x509.UnsupportedGeneralNameType) as error:
            raise UnusableChainError("a certificate of the verified chain has unusable extensions") from error

    def _path_to_root(
        self, leaf: x509.Certificate, chains: list[list[x509.Certificate]], now: float
    ) -> list[x509.Certificate] | None:
        if not self._roots:
            return [leaf]
        intermediates = [certificate for chain in chains for certificate in chain[1:]]
        try:
            return list(_verifier(self._roots, now).verify(leaf, intermediates).chain)
        except VerificationError:
            # `cryptography` verifies by the Web's profile, which knows no Ed25519; Go's and Choria's do.
            if not any(_is_ed25519(certificate) for certificate in (leaf, *intermediates, *self._roots)):
                return None
        return next((path for chain in chains if chain[0] == leaf and (path := self._follow(chain))), None)

    def _follow(self, chain: list[x509.Certificate]) -> list[x509.Certificate] | None:
        """The chain as nats-server verified it, each link's signature checked, if it ends in a root."""
        for issued, issuer in itertools.pairwise(chain):
            if not _issued_by(issued, issuer):
                return None
        if chain[-1] in self._roots:
            return chain
        return next(([*chain, root] for root in self._roots if _issued_by(chain[-1], root)), None)


def load_roots(data: bytes, name: str) -> list[x509.Certificate]:
    """All certificates of a PEM file.

    Raises:
        InputError: there is none, or one cannot be read.
    """
    try:
        return x509.load_pem_x509_certificates(data)
    except (ValueError, x509.InvalidVersion) as error:
        raise InputError(f"{name}: holds no readable PEM certificate") from error


def _verifier(roots: Sequence[x509.Certificate], now: float) -> ClientVerifier:
    # Fleet PKIs (Puppet's, and many grown by hand) lack what the Web's profile demands, such as SANs and
    # key identifiers, so only what security rests on is required: issuers are CAs, leaves may be clients.
    authorities = ExtensionPolicy.permit_all().require_present(
        x509.BasicConstraints, Criticality.AGNOSTIC, _require_authority
    )
    leaves = ExtensionPolicy.permit_all().may_be_present(
        x509.ExtendedKeyUsage, Criticality.AGNOSTIC, _require_client_usage
    )
    builder = PolicyBuilder().store(Store(list(roots))).time(datetime.fromtimestamp(now, UTC))
    return builder.extension_policies(ca_policy=authorities, ee_policy=leaves).build_client_verifier()


def _require_authority(_policy: Policy, _certificate: x509.Certificate, constraints: x509.BasicConstraints) -> None:
    if not constraints.ca:
        raise ValueError("issuer is not a CA")


def _require_client_usage(_policy: Policy, _certificate: x509.Certificate, usage: x509.ExtendedKeyUsage | None) -> None:
    if usage is not None and not any(oid in _CLIENT_USAGES for oid in usage):
        raise ValueError("certificate is not for clients")


def _is_ed25519(certificate: x509.Certificate) -> bool:
    return isinstance(certificate.public_key(), ed25519.Ed25519PublicKey)


def _issued_by(issued: x509.Certificate, issuer: x509.Certificate) -> bool:
    try:
        issued.verify_directly_issued_by(issuer)
        return issuer.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    except (ValueError, TypeError, InvalidSignature, x509.ExtensionNotFound):
        return False


def _identity(leaf: x509.Certificate, not_after: float) -> PeerIdentity:
    names = leaf.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
    if len(names) > 1:
        raise ValueError("more than one common name")
    common_name = str(names[0].value) if names else ""
    fingerprint = leaf.fingerprint(hashes.SHA256()).hex()
    return PeerIdentity(common_name=common_name, sans=_sans(leaf), not_after=not_after, fingerprint=fingerprint)


def _sans(leaf: x509.Certificate) -> tuple[str, ...]:
    try:
        names = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return ()
    textual = (x509.DNSName, x509.RFC822Name, x509.UniformResourceIdentifier, x509.IPAddress)
    return tuple(str(name.value) for name in names if isinstance(name, textual))
