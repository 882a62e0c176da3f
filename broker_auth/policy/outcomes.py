"""The possible results of decisions: pairs of rule and code, so that counters of all of them start at 0."""

from __future__ import annotations

from collections.abc import Iterable
from functools import cache
from typing import Final

from broker_auth.policy.decision import Code, DenyCode, Rule
from broker_auth.policy.model import Serves
from broker_auth.tokens.faults import TokenFault

ADMITTED: Final = "admitted"
_ANY_TOKEN: Final = frozenset(TokenFault)
_UNREADABLE: Final = frozenset(
    {
        TokenFault.TOO_LARGE,
        TokenFault.NOT_COMPACT,
        TokenFault.ENCODING,
        TokenFault.HEADER,
        TokenFault.CRITICAL_HEADER,
        TokenFault.NOT_JSON,
        TokenFault.TOO_DEEP,
        TokenFault.DUPLICATE_CLAIM,
        TokenFault.PURPOSE,
    }
)
"""Faults that hide a token's purpose, which selects its rule."""
_NONCE: Final = frozenset(
    {
        TokenFault.PUBLIC_KEY,
        TokenFault.NONCE_MISSING,
        TokenFault.NONCE_UNSIGNED,
        TokenFault.NONCE_SIGNATURE_FORMAT,
        TokenFault.NONCE_SIGNATURE,
    }
)
_READABLE: Final = _ANY_TOKEN - _UNREADABLE
_REVOKED: Final = (ADMITTED, DenyCode.REVOKED)
_BY_CERTIFICATE: Final = (DenyCode.CRL_EXPIRED,)  # of a peer, which only the fleet has
_CONNECTION: Final = (DenyCode.KIND, DenyCode.TYPE, DenyCode.NO_TLS, DenyCode.JWT_DIFFERS)
_PROVISIONER: Final = (
    *_REVOKED,
    *_ANY_TOKEN,
    DenyCode.PROVISIONING_DISABLED,
    DenyCode.PROVISIONER_PASSWORD,
    DenyCode.PROVISIONER_NOT_VERIFIED,
    DenyCode.PROVISIONER_IDENTITY,
    DenyCode.PROVISIONER_TOKEN_MISSING,
    DenyCode.PROVISIONER_TOKEN_KIND,
    DenyCode.PROVISIONER_CLAIM,
)
_NODE: Final = (
    *_REVOKED,
    *(_READABLE - _NONCE),
    DenyCode.PROVISIONING_DISABLED,
    DenyCode.NODE_NAME,
    DenyCode.NODE_NAME_NOT_ALLOWED,
    DenyCode.ADDRESS_NOT_ALLOWED,
    DenyCode.PROVISIONING_FULL,
    DenyCode.TOKEN_USED_UP,
    DenyCode.NODES_NOT_COUNTED,
)
_MEMBERS: Final = {
    Rule.CLIENT: (*_REVOKED, *_READABLE),
    Rule.SERVER: (*_REVOKED, *_READABLE, DenyCode.SERVERS_DENIED),
}
_SHARED: Final = {
    Rule.TOKEN: tuple(_UNREADABLE),
    Rule.NONE: (DenyCode.NO_CREDENTIAL, DenyCode.INTERNAL_ERROR),
}
_TABLE: Final[dict[Serves, dict[Rule, tuple[Code | str, ...]]]] = {
    Serves.FLEET: {
        Rule.CONNECTION: (*_CONNECTION, DenyCode.CHAIN_UNUSABLE),
        Rule.PROVISIONER: (*_PROVISIONER, *_BY_CERTIFICATE),
        Rule.SYSTEM: (
            *_REVOKED,
            *_BY_CERTIFICATE,
            *_ANY_TOKEN,
            DenyCode.SYSTEM_PASSWORD,
            DenyCode.SYSTEM_TOKEN_MISSING,
            DenyCode.SYSTEM_TOKEN_KIND,
            DenyCode.SYSTEM_CLAIM,
        ),
        **{rule: (*codes, *_BY_CERTIFICATE) for rule, codes in _MEMBERS.items()},
        Rule.PROVISIONING: (*_NODE, DenyCode.PROVISIONING_TOKEN_ON_VERIFIED_TLS),
        Rule.VERIFIED_TLS: (*_REVOKED, *_BY_CERTIFICATE, DenyCode.CLIENT_HOST, DenyCode.PUB_SUB_DISABLED),
        **_SHARED,
    },
    Serves.EDGE: {
        Rule.CONNECTION: (*_CONNECTION, DenyCode.EDGE_VERIFIED_TLS),
        Rule.PROVISIONER: (*_PROVISIONER, DenyCode.EDGE_PROVISIONER),
        Rule.SYSTEM: (DenyCode.EDGE_SYSTEM_USER,),
        Rule.CLIENT: (DenyCode.EDGE_FLEET_TOKEN,),
        Rule.SERVER: (DenyCode.EDGE_FLEET_TOKEN,),
        Rule.PROVISIONING: _NODE,
        **_SHARED,
    },
    Serves.GATE: {
        Rule.CONNECTION: (*_CONNECTION, DenyCode.GATE_VERIFIED_TLS),
        Rule.PROVISIONER: (DenyCode.GATE_PROVISIONER,),
        Rule.SYSTEM: (DenyCode.GATE_SYSTEM_USER,),
        **_MEMBERS,
        Rule.PROVISIONING: (DenyCode.GATE_PROVISIONING_TOKEN,),
        **_SHARED,
    },
}


@cache
def outcomes(serves: Serves) -> frozenset[tuple[str, str]]:
    """Return every pair of rule and code (or ``admitted``) that a decision by these rules can have."""
    return frozenset(_pairs(_TABLE[serves]))


def _pairs(table: dict[Rule, tuple[Code | str, ...]]) -> Iterable[tuple[str, str]]:
    for rule, codes in table.items():
        for code in codes:
            yield str(rule), str(code)
