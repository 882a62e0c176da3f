"""``decide``: one authorization request, one policy, one moment, one decision. Pure."""

from __future__ import annotations

from typing import Any

from broker_auth.policy.case import Case, Refused
from broker_auth.policy.decision import Admit, Decision, Deny
from broker_auth.policy.model import Policy
from broker_auth.policy.order import rules_for
from broker_auth.policy.request import AuthorizationRequest
from broker_auth.tokens.verify import Rejected, Verified


def decide(request: AuthorizationRequest, policy: Policy, now: float) -> Decision:
    """Decide one connection by the rules of docs/policy.md#the-rules-in-order.

    Args:
        request: what nats-server says of the connection.
        policy: what to decide by.
        now: Unix seconds, read once per request.

    Returns:
        Admit or Deny; nothing is raised, whatever the request holds.
    """
    return decide_case(Case(request, policy, now))


def decide_case(case: Case) -> Decision:
    """Apply the rules to a case, in their order. Never raises, whatever its request holds."""
    try:
        for rule in rules_for(edge=case.policy.edge):
            admitted = rule.apply(case)
            if admitted is not None:
                return admitted
        raise AssertionError("the last rule decides")
    except Refused as refused:
        return Deny(
            rule=case.rule,
            code=refused.code,
            detail=refused.detail,
            token_id=_token_id(case.token),
            chain_issuer=case.token.chain_issuer if isinstance(case.token, Verified) else None,
            **_peer(case),
        )


def explained(decision: Decision) -> str:
    """The decision's reason in one line, as audit records and ``explain`` show it."""
    if isinstance(decision, Admit):
        return decision.reason
    return f"{decision.code}: {decision.detail}"


def _token_id(token: Verified | Rejected | None) -> str:
    if isinstance(token, Verified):
        return token.claims.jti
    return token.token_id if token else ""


def _peer(case: Case) -> dict[str, Any]:
    """What a denial says of the peer's certificate, whether it counts or not."""
    if (peer := case.peer or case.refused_peer) is None:
        return {}
    problem = case.refused_peer.reason if case.refused_peer else ""
    return {"fingerprint": peer.fingerprint, "certificate_names": peer.all_names, "certificate_problem": problem}
