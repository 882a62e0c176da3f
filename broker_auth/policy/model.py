"""The loaded policy: everything a decision needs, prepared so that deciding does no work twice.

Built from settings by :func:`broker_auth.settings.policy.build_policy`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from ipaddress import IPv4Network, IPv6Address, IPv6Network, ip_address

from broker_auth.certificates.peer import PREFIXES, PeerIdentity
from broker_auth.certificates.verifier import PeerVerifier
from broker_auth.policy.gauge import ConnectionGauge
from broker_auth.secret import Secret
from broker_auth.tokens.verify import TokenVerifier


@dataclass(frozen=True, slots=True, kw_only=True)
class Accounts:
    """The three accounts a connection can be placed in."""

    fleet: str = "choria"
    provisioning: str = "provisioning"
    system: str = "system"


@dataclass(frozen=True, slots=True, kw_only=True)
class IdentityPatterns:
    """Which verified peers may be the provisioner; none given means any (docs/policy.md#1-the-provisioner)."""

    literals: frozenset[str] = frozenset()
    expressions: tuple[re.Pattern[str], ...] = ()

    def allow(self, peer: PeerIdentity) -> bool:
        """Return whether a literal equals one of the peer's names, or an expression matches one of its kind whole."""
        if not self.literals and not self.expressions:
            return True
        return self.match(peer.names)

    def match(self, names: Iterable[str]) -> bool:
        """Return whether one of ``names``, as :func:`.identity_names` writes them, is allowed."""
        return any(name in self.literals or self._matches(name) for name in names)

    def _matches(self, name: str) -> bool:
        kind = _kind(name)
        return any(expression.fullmatch(name) for expression in self.expressions if _kind(expression.pattern) == kind)


def _kind(name: str) -> str:
    """Return the prefix for which a name or an expression is written; empty for DNS names."""
    return next((prefix for prefix in PREFIXES if name.startswith(prefix)), "")


@dataclass(frozen=True, slots=True, kw_only=True)
class Provisioning:
    """Whether and how unprovisioned nodes and their provisioner get in.

    Attributes:
        gauge: how full the provisioning account is; it changes while the service runs.
    """

    enabled: bool = False
    passwords: tuple[Secret, ...] = ()
    identities: IdentityPatterns = field(default_factory=IdentityPatterns)
    require_mtls: bool = True
    provisioner_without_token: bool = False
    isolate_nodes: bool = True
    allow_non_expiring_tokens: bool = False
    gauge: ConnectionGauge = field(default_factory=ConnectionGauge)


@dataclass(frozen=True, slots=True, kw_only=True)
class SystemUser:
    """The user of the system account; several passwords overlap during a rotation."""

    user: str
    passwords: tuple[Secret, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class HostList:
    """``client_hosts``: addresses and CIDRs."""

    networks: tuple[IPv4Network | IPv6Network, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.networks)

    def __contains__(self, host: object) -> bool:
        """Whether the address is listed; what is no address is not."""
        try:
            address = ip_address(str(host).partition("%")[0])
        except ValueError:
            return False
        if isinstance(address, IPv6Address) and address.ipv4_mapped:
            address = address.ipv4_mapped
        return any(address in network for network in self.networks)


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """What the rules are applied with.

    Attributes:
        edge: the brokers that ask are edges (docs/policy.md#at-an-edge).
        issuer_mode: organization issuers are configured (docs/policy.md#two-modes).
        pub_sub: issuer mode: verified TLS without a token gets pub-sub permissions.
        token_leeway: seconds, for ``nbf`` and ``iat``.
    """

    tokens: TokenVerifier
    peers: PeerVerifier
    edge: bool = False
    accounts: Accounts = field(default_factory=Accounts)
    issuer_mode: bool = False
    provisioning: Provisioning = field(default_factory=Provisioning)
    system: SystemUser | None = None
    client_hosts: HostList = field(default_factory=HostList)
    deny_servers: bool = False
    pub_sub: bool = False
    token_leeway: float = 0.0
