"""A TLS peer as decisions and records know it: who it is, or why its certificate does not count."""

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
    """What a peer's certificate says.

    Attributes:
        common_name: the subject's last CN, empty if there is none.
        sans: DNS names, e-mail addresses, URIs and IP addresses, in the certificate's order.
        names: what the policy's identities are compared with (docs/policy.md#1-the-provisioner).
        not_after: Unix seconds until which the whole path to the CA is valid.
        fingerprint: SHA-256 of the certificate (DER), lower-case hex.
    """

    common_name: str
    sans: tuple[str, ...]
    names: tuple[str, ...]
    not_after: float
    fingerprint: str

    @property
    def display_name(self) -> str:
        """CN, else the first SAN, else the fingerprint; never empty."""
        return _display(self.common_name, self.sans, self.fingerprint)

    @property
    def all_names(self) -> tuple[str, ...]:
        """CN and SANs, for people to find the peer by."""
        return _all(self.common_name, self.sans)


@dataclass(frozen=True, slots=True, kw_only=True)
class RefusedPeer:
    """A peer whose chain does not count.

    Attributes:
        reason: what is wrong with the certificate or its chain, for people.
        unusable: whether it could not even be read; that denies the connection.
        common_name: as far as the certificate can be read, like the rest.
    """

    reason: str
    unusable: bool = False
    common_name: str = ""
    sans: tuple[str, ...] = ()
    fingerprint: str = ""

    @property
    def all_names(self) -> tuple[str, ...]:
        """CN and SANs, for people to find the peer by."""
        return _all(self.common_name, self.sans)

    @property
    def description(self) -> str:
        """Which certificate, and what is wrong with it, in one line."""
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
    """Return what the policy's identities are compared with (docs/policy.md#1-the-provisioner).

    DNS names stand as they are; URIs, e-mail and IP addresses with a prefix. A common name counts only without
    alternative names and where no CA is ``constrained`` in the names it may issue: it is under no constraint.
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
    """Return at most 64 characters of a name, to stand in a reason."""
    return text if len(text) <= _CUT else text[: _CUT - 1] + "…"
