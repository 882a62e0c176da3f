"""CAs: which certificates may sign others, and the configured roots."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from broker_auth.cache import BoundedCache
from broker_auth.certificates.certificate import Certificate, CertificateError
from broker_auth.certificates.peer import cut
from broker_auth.certificates.signatures import MAX_ROOT_RSA_BITS, PublicKey, public_key

VOUCHED_CACHE: Final = 64  # intermediate CAs; a fleet has a handful


@dataclass(frozen=True, slots=True)
class SigningAuthority:
    """A CA certificate's right to sign other certificates.

    Attributes:
        name: the CA's name in messages.
        problem: why it must not sign certificates; empty if it may.
        path_length: how many CAs may stand between it and a leaf; None for any number.
    """

    name: str
    problem: str
    path_length: int | None = None

    def check(self, below: int) -> None:
        """Check that this CA may sign for a path with ``below`` CAs between it and the leaf.

        Raises:
            CertificateError: it must not; the message says why.
        """
        if self.problem:
            raise CertificateError(f"{self.name} {self.problem}")
        if self.path_length is not None and below > self.path_length:
            raise CertificateError(f"{self.name} allows {self.path_length} CAs below it, not {below}")


def authority(certificate: Certificate, *, is_root: bool) -> SigningAuthority:
    """Return the signing rights of ``certificate``, by the rules of Go's ``crypto/x509``.

    X.509 version 1 has no CA flag; such a certificate is a CA only if it is a configured root.
    """
    name = f"its CA {cut(certificate.subject_text)!r}"
    if certificate.version < 3:
        problem = "" if is_root else f"is X.509 version {certificate.version}, which only a CA in client_ca may be"
        return SigningAuthority(name, problem)
    try:
        if not certificate.authority:
            return SigningAuthority(name, "is not a CA (basicConstraints)")
        if not certificate.may_sign_certificates:
            return SigningAuthority(name, "may not sign certificates (keyUsage)")
        return SigningAuthority(name, "", certificate.path_length)
    except CertificateError as error:
        return SigningAuthority(name, f"cannot be used: {error}")


class Vouched:
    """A cache of the intermediate CAs of admitted peers, so that each is parsed and verified once.

    Only CAs below a configured root are added, so refused chains cannot evict anything.
    """

    def __init__(self) -> None:
        self._certificates: BoundedCache[str, Certificate] = BoundedCache(VOUCHED_CACHE)
        self._links: BoundedCache[tuple[bytes, bytes], bool] = BoundedCache(VOUCHED_CACHE)
        self._keys: BoundedCache[bytes, PublicKey] = BoundedCache(VOUCHED_CACHE)

    def add(self, pem: str, issued: Certificate, issuer: Certificate) -> None:
        """Remember that ``issuer`` signed the CA ``issued``, whose PEM is ``pem``."""
        if self.is_signed(issued, issuer) and self.certificate(pem) is not None:
            return
        self._certificates.put(pem, issued)
        self._links.put((issued.der, issuer.spki), True)
        self._keys.put(issued.spki, public_key(issued))

    def certificate(self, pem: str) -> Certificate | None:
        """Return the certificate of this PEM text, if it is cached."""
        return self._certificates.get(pem)

    def is_signed(self, issued: Certificate, issuer: Certificate) -> bool:
        """Return whether the cache holds that ``issuer`` signed ``issued``."""
        return self._links.get((issued.der, issuer.spki)) is not None

    def key(self, certificate: Certificate) -> PublicKey:
        """Return the public key of an intermediate CA.

        Raises:
            CertificateError: the key is out of bounds, or of a type that is not accepted.
        """
        return self._keys.get(certificate.spki) or public_key(certificate)


class Roots:
    """The configured CAs by subject; a CA renewed under the same name has several certificates.

    Attributes:
        vouched: cached intermediate CAs below them.
    """

    def __init__(self, roots: Sequence[Certificate]) -> None:
        self._by_subject: dict[bytes, list[Certificate]] = {}
        self._authorities = {root: authority(root, is_root=True) for root in roots}
        self._keys: dict[bytes, PublicKey] = {}
        self.vouched = Vouched()
        for root in self._authorities:
            self._by_subject.setdefault(root.subject, []).append(root)

    def __bool__(self) -> bool:
        """Return whether any CA is configured."""
        return bool(self._authorities)

    def __contains__(self, certificate: object) -> bool:
        """Return whether exactly this certificate is configured."""
        return certificate in self._authorities

    def named(self, subject: bytes) -> Sequence[Certificate]:
        """Return the roots with this distinguished name (DER)."""
        return self._by_subject.get(subject, ())

    def authority(self, certificate: Certificate) -> SigningAuthority:
        """Return the signing rights of ``certificate``, a root or not."""
        return self._authorities.get(certificate) or authority(certificate, is_root=False)

    def key(self, certificate: Certificate) -> PublicKey:
        """Return the public key of ``certificate``; a root's may be larger, because a peer cannot choose it.

        Raises:
            CertificateError: the key is out of bounds, or of a type that is not accepted.
        """
        if certificate not in self._authorities:
            return self.vouched.key(certificate)
        if (key := self._keys.get(certificate.spki)) is None:
            key = self._keys[certificate.spki] = public_key(certificate, MAX_ROOT_RSA_BITS)
        return key
