"""``decide``: a pure function from an authorization request, a policy and the time to a decision."""

from __future__ import annotations

from typing import Any

from broker_auth.policy.case import Case, Refused
from broker_auth.policy.counting import Counted
from broker_auth.policy.decision import Admit, Decision, Deny
from broker_auth.policy.model import Policy
from broker_auth.policy.order import rules_for
from broker_auth.policy.request import AuthorizationRequest
from broker_auth.tokens.verify import Rejected, Verified


def decide(
    request: AuthorizationRequest, policy: Policy, now: float, broker: str = "", counted: Counted | None = None
) -> Decision:
    """Decide one connection by the rules of docs/policy.md#the-rules-in-order.

    Args:
        request: nats-server's description of the connection.
        policy: the loaded policy.
        now: Unix seconds, read once for each request.
        broker: the configured broker that the request was received from.
        counted: whether the node is counted for its token; None if nobody was asked: a denial then says whom to count.

    Returns:
        Admit or Deny; never raises, for any request.
    """
    return decide_case(Case(request, policy, now, broker, counted))


def decide_case(case: Case) -> Decision:
    """Apply the rules to a case, in their order. Never raises, for any request."""
    try:
        for rule in rules_for(case.policy.serves):
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
            evidence=case.evidence,
            claim=case.claim,
            **_peer(case),
        )


def explained(decision: Decision) -> str:
    """Return the decision's reason in one line, for audit records and ``explain``."""
    if isinstance(decision, Admit):
        return decision.reason
    return f"{decision.code}: {decision.detail}"


def _token_id(token: Verified | Rejected | None) -> str:
    if isinstance(token, Verified):
        return token.claims.jti
    return token.token_id if token else ""


def _peer(case: Case) -> dict[str, Any]:
    """Return the fields of a denial that describe the peer's certificate, accepted or not."""
    if (peer := case.peer or case.refused_peer) is None:
        return {}
    problem = case.refused_peer.reason if case.refused_peer else ""
    return {"fingerprint": peer.fingerprint, "certificate_names": peer.all_names, "certificate_problem": problem}
