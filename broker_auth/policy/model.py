"""The loaded policy: everything that a decision needs, prepared once.

Built from settings by :func:`broker_auth.settings.policy.build_policy`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from enum import StrEnum
from ipaddress import IPv4Network, IPv6Address, IPv6Network, ip_address

from broker_auth.certificates.peer import PREFIXES, PeerIdentity
from broker_auth.certificates.verifier import PeerVerifier
from broker_auth.policy.gauge import ConnectionGauge
from broker_auth.policy.revocation_index import NO_REVOCATIONS, Revocations
from broker_auth.secret import Secret
from broker_auth.tokens.verify import TokenVerifier


@dataclass(frozen=True, slots=True, kw_only=True)
class Accounts:
    """The three accounts to which connections are assigned."""

    fleet: str = "choria"
    provisioning: str = "provisioning"
    system: str = "system"


@dataclass(frozen=True, slots=True, kw_only=True)
class IdentityPatterns:
    """The identities of provisioners; an empty set allows every verified peer (docs/policy.md#1-the-provisioner)."""

    literals: frozenset[str] = frozenset()
    expressions: tuple[re.Pattern[str], ...] = ()

    def allow(self, peer: PeerIdentity) -> bool:
        """Return whether a literal equals a name of the peer, or an expression fully matches a name of its kind."""
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
    """Return the prefix of a name or an expression; empty for DNS names."""
    return next((prefix for prefix in PREFIXES if name.startswith(prefix)), "")


@dataclass(frozen=True, slots=True, kw_only=True)
class Provisioning:
    """The settings for unprovisioned nodes and provisioners.

    Attributes:
        counts_nodes: whether hosts share the nodes of tokens for a number of nodes; if not, nobody can count them.
        gauge: the estimate of connections in the provisioning account; changes while the service runs.
    """

    enabled: bool = False
    passwords: tuple[Secret, ...] = ()
    identities: IdentityPatterns = field(default_factory=IdentityPatterns)
    require_mtls: bool = True
    provisioner_without_token: bool = False
    isolate_nodes: bool = True
    allow_non_expiring_tokens: bool = False
    counts_nodes: bool = True
    gauge: ConnectionGauge = field(default_factory=ConnectionGauge)


@dataclass(frozen=True, slots=True, kw_only=True)
class SystemUser:
    """The user of the system account; it has several passwords during a rotation."""

    user: str
    passwords: tuple[Secret, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class HostList:
    """The addresses and CIDRs in ``client_hosts``."""

    networks: tuple[IPv4Network | IPv6Network, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.networks)

    def __contains__(self, host: object) -> bool:
        """Return whether the address is in the list; False for anything that is not an IP address."""
        try:
            address = ip_address(str(host).partition("%")[0])
        except ValueError:
            return False
        if isinstance(address, IPv6Address) and address.ipv4_mapped:
            address = address.ipv4_mapped
        return any(address in network for network in self.networks)


class Serves(StrEnum):
    """The kind of brokers that ask, which selects the rules (docs/policy.md#zones)."""

    FLEET = "fleet"
    EDGE = "edge"
    GATE = "gate"


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """The configuration of the rules.

    Attributes:
        serves: the kind of brokers that ask (docs/policy.md#at-an-edge, docs/policy.md#at-a-gate).
        issuer_mode: whether organization issuers are configured (docs/policy.md#two-modes).
        pub_sub: whether, in issuer mode, verified TLS without a token gets pub-sub permissions.
        token_leeway: seconds, for ``nbf`` and ``iat``.
        session_grace: seconds by which sessions of fleet members may outlive their credential.
        revocations: what is not admitted although it is valid; a running worker replaces its policy when they change.
    """

    tokens: TokenVerifier
    peers: PeerVerifier
    serves: Serves = Serves.FLEET
    accounts: Accounts = field(default_factory=Accounts)
    issuer_mode: bool = False
    provisioning: Provisioning = field(default_factory=Provisioning)
    system: SystemUser | None = None
    client_hosts: HostList = field(default_factory=HostList)
    deny_servers: bool = False
    pub_sub: bool = False
    token_leeway: float = 0.0
    session_grace: float = 0.0
    revocations: Revocations = NO_REVOCATIONS
