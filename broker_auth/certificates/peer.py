"""The result of verifying a TLS peer: its identity, or why its certificate is refused."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass
from typing import Final

from broker_auth.certificates.certificate import Certificate
from broker_auth.certificates.names import AlternativeNames, shorten

PREFIXES: Final = ("uri:", "email:", "ip:")
_CUT: Final = 64  # characters of a name within a reason


@dataclass(frozen=True, slots=True, kw_only=True)
class PeerIdentity:
    """The identity of a verified peer, from its certificate.

    Attributes:
        common_name: the subject's last CN; empty if it has no CN.
        sans: DNS names, e-mail addresses, URIs and IP addresses, in the certificate's order.
        names: the names that the policy's identities are compared with (docs/policy.md#1-the-provisioner).
        not_after: end of the validity of the whole path to the CA (Unix seconds).
        fingerprint: SHA-256 of the certificate (DER), lower-case hex.
        serials: :attr:`.Certificate.issuer_and_serial` of each certificate below the CA, this one's first.
    """

    common_name: str
    sans: tuple[str, ...]
    names: tuple[str, ...]
    not_after: float
    fingerprint: str
    serials: tuple[bytes, ...] = ()

    @property
    def display_name(self) -> str:
        """CN, else the first SAN, else the fingerprint; never empty."""
        return _display(self.common_name, self.sans, self.fingerprint)

    @property
    def all_names(self) -> tuple[str, ...]:
        """CN and SANs, so that operators can search for the peer."""
        return _all(self.common_name, self.sans)


@dataclass(frozen=True, slots=True, kw_only=True)
class RefusedPeer:
    """A peer whose chain is refused.

    Attributes:
        reason: the problem with the certificate or its chain, in readable form.
        unusable: whether the certificate could not be read, which denies the connection.
        common_name: empty if the certificate cannot be read that far, like the other fields.
    """

    reason: str
    unusable: bool = False
    common_name: str = ""
    sans: tuple[str, ...] = ()
    fingerprint: str = ""

    @property
    def all_names(self) -> tuple[str, ...]:
        """CN and SANs, so that operators can search for the peer."""
        return _all(self.common_name, self.sans)

    @property
    def description(self) -> str:
        """The certificate and the problem with it, in one line."""
        if not self.fingerprint:
            return shorten(self.reason)
        name = _display(self.common_name, self.sans, "")
        who = f"{cut(name)!r} (sha256:{self.fingerprint[:16]}…)" if name else f"sha256:{self.fingerprint}"
        return shorten(f"certificate {who}: {self.reason}")


def identity_literal(identity: str) -> str:
    """Return a literal identity as :func:`identity_names` writes it: prefix in lower case, IP address in short form."""
    for prefix in PREFIXES:
        if identity[: len(prefix)].lower() == prefix:
            value = identity[len(prefix) :].strip()
            return prefix + (_address(value) if prefix == "ip:" else value)
    return identity


def _address(text: str) -> str:
    try:
        return str(ipaddress.ip_address(text))
    except ValueError:
        return text


def identity_names(leaf: Certificate, names: AlternativeNames, *, constrained: bool) -> tuple[str, ...]:
    """Return the names that the policy's identities are compared with (docs/policy.md#1-the-provisioner).

    DNS names stand as they are; URIs, e-mail and IP addresses have a prefix. A common name counts only if there are no
    alternative names and no CA is ``constrained`` in the names it may issue, because constraints do not cover it.
    """
    bare = names.dns
    if not leaf.has_alternative_names and not constrained and leaf.common_name:
        bare = (leaf.common_name,)
    return (
        *(name for name in bare if not name.startswith(PREFIXES)),
        *(f"uri:{name}" for name in names.uri),
        *(f"email:{name}" for name in names.email),
        *(f"ip:{name}" for name in names.ip),
    )


def _display(common_name: str, sans: tuple[str, ...], fingerprint: str) -> str:
    return common_name or next(iter(sans), f"sha256:{fingerprint}" if fingerprint else "")


def _all(common_name: str, sans: tuple[str, ...]) -> tuple[str, ...]:
    return (common_name, *sans) if common_name else sans


def cut(text: str) -> str:
    """Return at most 64 characters of a name, for use in a reason."""
    return text if len(text) <= _CUT else text[: _CUT - 1] + "…"
