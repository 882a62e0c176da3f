"""The decision as a value, with everything that audit records and ``explain`` show."""

from __future__ import annotations

from enum import StrEnum
from typing import Final

import msgspec

from broker_auth.policy.counting import NodeClaim
from broker_auth.policy.permissions import Permissions
from broker_auth.tokens.chain import ChainIssuer
from broker_auth.tokens.faults import TokenFault


class Rule(StrEnum):
    """The rule that claimed a connection; :attr:`number` is that of docs/policy.md#the-rules-in-order."""

    CONNECTION = "connection"
    PROVISIONER = "provisioner"
    SYSTEM = "system"
    CLIENT = "client"
    SERVER = "server"
    PROVISIONING = "provisioning"
    TOKEN = "token"
    VERIFIED_TLS = "verified_tls"
    NONE = "none"

    @property
    def number(self) -> int:
        """Return the rule's number in docs/policy.md#the-rules-in-order."""
        return _NUMBERS[self]


_NUMBERS: Final = {
    Rule.CONNECTION: 0,
    Rule.PROVISIONER: 1,
    Rule.SYSTEM: 2,
    Rule.CLIENT: 3,
    Rule.SERVER: 3,
    Rule.PROVISIONING: 3,
    Rule.TOKEN: 3,
    Rule.VERIFIED_TLS: 4,
    Rule.NONE: 5,
}


class DenyCode(StrEnum):
    """Reasons for denying a connection, other than faults of its token (:class:`TokenFault`)."""

    KIND = "connection_kind"
    TYPE = "connection_type"
    NO_TLS = "no_tls"
    CHAIN_UNUSABLE = "verified_chain_unusable"
    JWT_DIFFERS = "jwt_differs"
    EDGE_VERIFIED_TLS = "edge_verified_tls"
    EDGE_PROVISIONER = "edge_provisioner"
    EDGE_SYSTEM_USER = "edge_system_user"
    EDGE_FLEET_TOKEN = "edge_fleet_token"
    GATE_VERIFIED_TLS = "gate_verified_tls"
    GATE_PROVISIONER = "gate_provisioner"
    GATE_SYSTEM_USER = "gate_system_user"
    GATE_PROVISIONING_TOKEN = "gate_provisioning_token"
    PROVISIONING_DISABLED = "provisioning_disabled"
    PROVISIONER_PASSWORD = "provisioner_password"
    PROVISIONER_NOT_VERIFIED = "provisioner_not_verified"
    PROVISIONER_IDENTITY = "provisioner_identity"
    PROVISIONER_TOKEN_MISSING = "provisioner_token_missing"
    PROVISIONER_TOKEN_KIND = "provisioner_token_kind"
    PROVISIONER_CLAIM = "provisioner_claim"
    SYSTEM_PASSWORD = "system_password"
    SYSTEM_TOKEN_MISSING = "system_token_missing"
    SYSTEM_TOKEN_KIND = "system_token_kind"
    SYSTEM_CLAIM = "system_claim"
    PROVISIONING_TOKEN_ON_VERIFIED_TLS = "provisioning_token_on_verified_tls"
    NODE_NAME = "node_name"
    NODE_NAME_NOT_ALLOWED = "node_name_not_allowed"
    ADDRESS_NOT_ALLOWED = "address_not_allowed"
    PROVISIONING_FULL = "provisioning_full"
    TOKEN_USED_UP = "token_used_up"
    NODES_NOT_COUNTED = "nodes_not_counted"
    SERVERS_DENIED = "servers_denied"
    CLIENT_HOST = "client_host"
    PUB_SUB_DISABLED = "pub_sub_disabled"
    NO_CREDENTIAL = "no_credential"
    REVOKED = "revoked"
    CRL_EXPIRED = "crl_expired"
    INTERNAL_ERROR = "internal_error"


Code = DenyCode | TokenFault


class Evidence(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Results of the checks that a stored request cannot repeat (docs/policy.md#what-is-kept-of-a-decision).

    Attributes:
        signer_key: fingerprint of the key that signed the token; empty if no signature was verified.
        password: which of the accepted passwords matched, ``current`` or ``previous``; empty if none did.
        connections: estimated connections of the provisioning account, if the limit was checked and servers report.
        counted: of a token for a number of nodes, the :class:`.counting.Counted` of this one; empty if not checked.
    """

    signer_key: str = ""
    password: str = ""
    connections: int | None = None
    counted: str = ""


NO_EVIDENCE: Final = Evidence()


class Admit(msgspec.Struct, frozen=True, kw_only=True):
    """The connection is admitted.

    Attributes:
        name: identity in broker logs and connection reports.
        expires: Unix seconds at which nats-server ends the session; None if its credential never ends.
        grace: seconds by which that is later than the end of the credential.
        reason: one line.
        token_id: ``jti`` of the token that was used; empty without a token.
        signer: name of the key that signed it.
        fingerprint: SHA-256 of a verified peer's certificate, hex.
        chain_issuer: the token's chain issuer, or the token itself if it is a chain issuer's.
        evidence: results of the checks that a stored request cannot repeat.
    """

    rule: Rule
    account: str
    name: str
    permissions: Permissions
    expires: float | None
    reason: str
    grace: float = 0.0
    token_id: str = ""
    signer: str = ""
    fingerprint: str = ""
    chain_issuer: ChainIssuer | None = None
    evidence: Evidence = NO_EVIDENCE

    @property
    def tags(self) -> tuple[str, ...]:
        """Tags of the user JWT (docs/policy.md#the-admitted-session)."""
        rule = f"rule:{self.rule}"
        return (rule, f"token:{self.token_id}") if self.token_id else (rule,)


class Deny(msgspec.Struct, frozen=True, kw_only=True):
    """The connection is denied. ``detail`` is only for the audit log.

    Attributes:
        token_id: ``jti`` of the token, verified or not.
        fingerprint: SHA-256 of the peer's certificate, accepted or not.
        certificate_names: CN and alternative names of that certificate.
        certificate_problem: why its chain is refused; empty if it is accepted.
        chain_issuer: only for a verified token.
        evidence: as in :class:`Admit`.
        claim: the node to count, if only that is missing: the connection is then decided again. In no audit record.
    """

    rule: Rule
    code: Code
    detail: str
    token_id: str = ""
    fingerprint: str = ""
    chain_issuer: ChainIssuer | None = None
    certificate_names: tuple[str, ...] = ()
    certificate_problem: str = ""
    evidence: Evidence = NO_EVIDENCE
    claim: NodeClaim | None = None

    @property
    def phrase(self) -> str:
        """The message for nats-server and its log: one of a dozen fixed phrases (docs/interface.md#the-wire)."""
        return PHRASES.get(self.code, "token not accepted")


Decision = Admit | Deny

PHRASES: Final[dict[Code, str]] = {
    DenyCode.KIND: "connection type not served",
    DenyCode.TYPE: "connection type not served",
    DenyCode.NO_TLS: "TLS required",
    DenyCode.CHAIN_UNUSABLE: "certificate not accepted",
    DenyCode.JWT_DIFFERS: "credentials contradict each other",
    DenyCode.EDGE_VERIFIED_TLS: "connection type not served",
    DenyCode.EDGE_PROVISIONER: "connection type not served",
    DenyCode.EDGE_SYSTEM_USER: "connection type not served",
    DenyCode.EDGE_FLEET_TOKEN: "connection type not served",
    DenyCode.GATE_VERIFIED_TLS: "connection type not served",
    DenyCode.GATE_PROVISIONER: "connection type not served",
    DenyCode.GATE_SYSTEM_USER: "connection type not served",
    DenyCode.GATE_PROVISIONING_TOKEN: "connection type not served",
    DenyCode.PROVISIONING_DISABLED: "provisioning not enabled",
    DenyCode.PROVISIONER_PASSWORD: "wrong password",
    DenyCode.PROVISIONER_NOT_VERIFIED: "credentials not sufficient",
    DenyCode.PROVISIONER_IDENTITY: "certificate not accepted",
    DenyCode.PROVISIONER_TOKEN_MISSING: "credentials not sufficient",
    DenyCode.PROVISIONER_TOKEN_KIND: "token not accepted",
    DenyCode.PROVISIONER_CLAIM: "credentials not sufficient",
    DenyCode.SYSTEM_PASSWORD: "wrong password",
    DenyCode.SYSTEM_TOKEN_MISSING: "credentials not sufficient",
    DenyCode.SYSTEM_TOKEN_KIND: "token not accepted",
    DenyCode.SYSTEM_CLAIM: "credentials not sufficient",
    DenyCode.PROVISIONING_TOKEN_ON_VERIFIED_TLS: "credentials contradict each other",
    DenyCode.NODE_NAME: "connection name not accepted",
    DenyCode.NODE_NAME_NOT_ALLOWED: "connection name not accepted",
    DenyCode.ADDRESS_NOT_ALLOWED: "token not accepted",
    DenyCode.PROVISIONING_FULL: "connection type not served",
    DenyCode.TOKEN_USED_UP: "token not accepted",
    DenyCode.NODES_NOT_COUNTED: "token not accepted",
    DenyCode.SERVERS_DENIED: "connection type not served",
    DenyCode.CLIENT_HOST: "connection type not served",
    DenyCode.PUB_SUB_DISABLED: "credentials not sufficient",
    DenyCode.NO_CREDENTIAL: "no credentials",
    DenyCode.REVOKED: "credentials not sufficient",
    DenyCode.CRL_EXPIRED: "certificate not accepted",
    DenyCode.INTERNAL_ERROR: "internal error",
    TokenFault.EXPIRED: "token expired",
    TokenFault.ISSUER_EXPIRED: "token expired",
    TokenFault.CHAIN_ISSUER_TOO_OLD: "token expired",
}
"""All other codes, which are token faults, have the phrase ``token not accepted``."""
