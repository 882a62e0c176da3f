"""The rules in order, for the fleet, edges and gates, as :func:`.decide` applies and ``explain`` shows them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from broker_auth.policy import rules
from broker_auth.policy.case import Case
from broker_auth.policy.decision import Admit
from broker_auth.policy.model import Serves
from broker_auth.tokens.jws import show


@dataclass(frozen=True, slots=True)
class PolicyRule:
    """A rule of docs/policy.md#the-rules-in-order.

    Attributes:
        number: its number there.
        name: its name in ``explain``.
        apply: admits the case, refuses it (:class:`.case.Refused`), or returns None if it does not claim the case.
        why_passed: returns in a few words why the rule did not claim a case.
    """

    number: int
    name: str
    apply: Callable[[Case], Admit | None]
    why_passed: Callable[[Case], str]


def _connection(case: Case) -> str:
    return f"{case.request.client_info.type} client over TLS, {_tls(case)}"


def _not_provisioner(case: Case) -> str:  # noqa: ARG001
    return f"the user is not '{rules.PROVISIONER}'"


def _not_system_user(case: Case) -> str:
    return "no system user is configured" if case.policy.system is None else "the user is not the system user"


def _no_token(case: Case) -> str:  # noqa: ARG001
    return "no token is present"


def _not_verified(case: Case) -> str:
    return f"TLS is {_tls(case)}"


def _tls(case: Case) -> str:
    if case.peer is not None:
        return f"verified as {show(case.peer.display_name)}"
    if case.refused_peer is not None:
        verified = "the server verified the client's certificate, but it does not lead to client_ca"
        return f"not verified: {verified}: {case.refused_peer.description}"
    return "not verified: the client presented no certificate, or the server did not verify it"


FLEET_RULES: Final = (
    PolicyRule(0, "connection", rules.rule_0_connection, _connection),
    PolicyRule(1, "provisioner", rules.rule_1_provisioner, _not_provisioner),
    PolicyRule(2, "system user", rules.rule_2_system, _not_system_user),
    PolicyRule(3, "token", rules.rule_3_token, _no_token),
    PolicyRule(4, "verified TLS without a token", rules.rule_4_verified_tls, _not_verified),
    PolicyRule(5, "everything else", rules.rule_5_everything_else, _not_verified),
)
# These rules never assign the fleet's account or the system account (docs/policy.md#at-an-edge).
EDGE_RULES: Final = (
    PolicyRule(0, "connection", rules.rule_0_edge, _connection),
    PolicyRule(1, "provisioner", rules.rule_1_edge, _not_provisioner),
    PolicyRule(2, "system user", rules.rule_2_edge, _not_system_user),
    PolicyRule(3, "token", rules.rule_3_edge, _no_token),
    PolicyRule(4, "verified TLS without a token", rules.rule_4_no_certificate, _not_verified),
    PolicyRule(5, "everything else", rules.rule_5_everything_else, _not_verified),
)
# No rule here names the provisioning account or the system account (docs/policy.md#at-a-gate).
GATE_RULES: Final = (
    PolicyRule(0, "connection", rules.rule_0_gate, _connection),
    PolicyRule(1, "provisioner", rules.rule_1_gate, _not_provisioner),
    PolicyRule(2, "system user", rules.rule_2_gate, _not_system_user),
    PolicyRule(3, "token", rules.rule_3_gate, _no_token),
    PolicyRule(4, "verified TLS without a token", rules.rule_4_no_certificate, _not_verified),
    PolicyRule(5, "everything else", rules.rule_5_everything_else, _not_verified),
)
_RULES: Final = {Serves.FLEET: FLEET_RULES, Serves.EDGE: EDGE_RULES, Serves.GATE: GATE_RULES}


def rules_for(serves: Serves) -> tuple[PolicyRule, ...]:
    """Return the rules for one kind of brokers, in their order."""
    return _RULES[serves]
