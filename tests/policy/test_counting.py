"""Provisioning tokens for a number of nodes: what a decision makes of the count, and when it asks for it (rule 3)."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from broker_auth.audit.record import encode, make_record
from broker_auth.policy.counting import Counted, NodeClaim
from broker_auth.policy.decide import decide, explained
from broker_auth.policy.decision import Admit, Deny, DenyCode, Evidence, Rule
from broker_auth.policy.model import Policy
from broker_auth.policy.request import AuthorizationRequest
from broker_auth.policy.revocations import RevocationKind
from broker_auth.tokens.bounds import MOST_NODES
from broker_auth.tokens.faults import TokenFault
from tests.builders import requests
from tests.builders.clock import NOW
from tests.builders.policies import changed
from tests.builders.requests import NODE_NAME, gauge, presenting
from tests.builders.tokens import ORG, client_claims, provisioning_claims, provisioning_signer, rsa_key, sign
from tests.policy import test_edge, test_gate, test_rule1_provisioner, test_rule3_token, test_rule4_verified_tls
from tests.policy.grants import SHARED_NODE
from tests.policy.table import ISSUER, X509, Row, Table, deny, rows
from tests.policy.test_bounds import EDGE, NODES, SHARED, bounded
from tests.policy.test_gate import GATE
from tests.policy.test_revocation_index import revoked, without
from tests.policy.test_rule3_token import client, waiting

YES, USED_UP, UNKNOWN = Counted.YES, Counted.USED_UP, Counted.UNKNOWN
USED, NOT_COUNTED = DenyCode.TOKEN_USED_UP, DenyCode.NODES_NOT_COUNTED


def numbered(most: int = 3, **changes: Any) -> AuthorizationRequest:
    """Return a node whose token is for this number of nodes."""
    return bounded({"max_nodes": most}, **changes)


def by_an_organization() -> AuthorizationRequest:
    return bounded({"max_nodes": 3}, ORG)


def denied(code: DenyCode, counted: Counted | None, asked: AuthorizationRequest, policy: Policy = X509) -> Row:
    return deny(asked, NODES, code, policy, counted=counted)


UNSHARED = changed(X509, counts_nodes=False)  # no bucket by which hosts share the nodes
REVOKED = without(X509, revoked(RevocationKind.NODE, NODE_NAME))
COUNTED: Table = {
    "rule3-number-counted": waiting(numbered(), counted=YES),
    "rule3-number-counted-at-an-edge": waiting(numbered(), EDGE, counted=YES),
    "rule3-number-counted-by-an-organization": waiting(by_an_organization(), ISSUER, "organization", counted=YES),
    "rule3-number-counted-where-nodes-are-not-isolated": waiting(numbered(), SHARED, grant=SHARED_NODE, counted=YES),
    "rule3-number-least": waiting(numbered(1), counted=YES),
    "rule3-number-most": waiting(numbered(MOST_NODES), counted=YES),
    "rule3-number-beside-names": waiting(bounded({"max_nodes": 3, "names": [NODE_NAME]}), counted=YES),
    "rule3-number-of-a-client-means-nothing": client(
        presenting(sign(client_claims(extensions={"broker-auth": {"max_nodes": 1}}), ORG)), counted=USED_UP
    ),
    "rule3-number-used-up": denied(USED, USED_UP, numbered()),
    "rule3-number-used-up-at-an-edge": denied(USED, USED_UP, numbered(), EDGE),
    "rule3-number-used-up-by-an-organization": denied(USED, USED_UP, by_an_organization(), ISSUER),
    "rule3-number-used-up-where-nodes-are-not-isolated": denied(USED, USED_UP, numbered(), SHARED),
    "rule3-number-not-known": denied(NOT_COUNTED, UNKNOWN, numbered()),
    "rule3-number-not-known-at-an-edge": denied(NOT_COUNTED, UNKNOWN, numbered(), EDGE),
    "rule3-number-without-a-bucket": denied(NOT_COUNTED, None, numbered(), UNSHARED),
    "rule3-no-number-without-a-bucket": waiting(requests.node(), UNSHARED),
    "rule3-number-not-asked": denied(NOT_COUNTED, None, numbered()),
    "rule3-number-not-asked-at-an-edge": denied(NOT_COUNTED, None, numbered(), EDGE),
    "rule3-number-not-asked-where-nodes-are-not-isolated": denied(NOT_COUNTED, None, numbered(), SHARED),
}
BEFORE: dict[str, tuple[AuthorizationRequest, Any, Policy]] = {
    "name": (bounded({"max_nodes": 3, "names": ["x"]}), DenyCode.NODE_NAME_NOT_ALLOWED, X509),
    "address": (bounded({"max_nodes": 3, "networks": ["10.0.0.0/8"]}), DenyCode.ADDRESS_NOT_ALLOWED, X509),
    "unfit-name": (numbered(name="a b"), DenyCode.NODE_NAME, X509),
    "unfit-name-where-nodes-are-not-isolated": (numbered(name="a b"), DenyCode.NODE_NAME, SHARED),
    "no-name-where-nodes-are-not-isolated": (numbered(name=""), DenyCode.NODE_NAME, SHARED),
    "places": (numbered(), DenyCode.PROVISIONING_FULL, changed(X509, gauge=gauge(3))),
    "revoked": (numbered(), DenyCode.REVOKED, REVOKED),
    "revoked-at-an-edge": (numbered(), DenyCode.REVOKED, replace(REVOKED, serves=EDGE.serves)),
    "signature": (bounded({"max_nodes": 3}, rsa_key("stranger")), TokenFault.SIGNATURE, X509),
    "times": (
        requests.node(
            sign(provisioning_claims(exp=NOW - 1, extensions={"broker-auth": {"max_nodes": 3}}), provisioning_signer())
        ),
        TokenFault.EXPIRED,
        X509,
    ),
    "bucket": (numbered(), NOT_COUNTED, UNSHARED),
    "malformed": (numbered(0), TokenFault.BOUNDS, X509),
    "disabled": (numbered(), DenyCode.PROVISIONING_DISABLED, changed(X509, enabled=False)),
    "certificate": (
        numbered(chains=requests.fleet().client_tls.verified_chains),  # type: ignore[union-attr]
        DenyCode.PROVISIONING_TOKEN_ON_VERIFIED_TLS,
        X509,
    ),
    "gate": (numbered(), DenyCode.GATE_PROVISIONING_TOKEN, GATE),
}
COUNTED |= {
    f"rule3-number-comes-after-{label}-{counted}": deny(asked, NODES, code, policy, counted=counted)
    for label, (asked, code, policy) in BEFORE.items()
    for counted in (None, *Counted)
}
TABLES = (COUNTED,)


@rows(*TABLES)
def test_counting(row: Row) -> None:
    row.check()


@pytest.mark.parametrize(("asked", "code", "policy"), BEFORE.values(), ids=BEFORE)
@pytest.mark.parametrize("counted", [None, *Counted])
def test_connection_that_is_denied_anyway_claims_no_place(
    asked: AuthorizationRequest, code: Any, policy: Policy, counted: Counted | None
) -> None:
    decision = decide(asked, policy, NOW, counted=counted)
    assert isinstance(decision, Deny)
    assert (decision.code, decision.claim, decision.evidence.counted) == (code, None, "")


@pytest.mark.parametrize("policy", [X509, EDGE, SHARED], ids=["fleet", "edge", "not isolated"])
def test_only_a_decision_without_the_count_claims_a_place(policy: Policy) -> None:
    asked = numbered()
    claims = {}
    for counted in (None, *Counted):
        decision = decide(asked, policy, NOW, counted=counted)
        claims[counted] = decision.claim if isinstance(decision, Deny) else None
    expected = NodeClaim(token=asked.connect_opts.auth_token, node=NODE_NAME)
    assert claims == {None: expected, YES: None, USED_UP: None, UNKNOWN: None}


def test_claim_has_no_white_space_by_which_one_token_would_be_many() -> None:
    token = numbered().connect_opts.auth_token
    asked = requests.node(f" {token}" + "\v" * 15_000)
    decision = decide(asked, X509, NOW)
    assert isinstance(decision, Deny)
    assert decision.claim == NodeClaim(token=token, node=NODE_NAME)
    assert decision.claim.signed == token.rpartition(".")[0]


@pytest.mark.parametrize(
    "table", [test_rule3_token, test_edge, test_gate, test_rule1_provisioner, test_rule4_verified_tls]
)
def test_count_changes_no_other_decision(table: Any) -> None:
    for row in (row for rows_ in table.TABLES for row in rows_.values()):
        decisions = [decide(row.request, row.policy, row.now, counted=counted) for counted in (None, *Counted)]
        assert all(decision == decisions[0] for decision in decisions)
        assert not isinstance(decisions[0], Deny) or decisions[0].claim is None


def test_denial_says_how_many_nodes_the_token_is_for() -> None:
    shown = [explained(decide(numbered(most), X509, NOW, counted=USED_UP)) for most in (1, 3)]
    assert shown == [
        "token_used_up: the token is for 1 node, and others have waited by it",
        "token_used_up: the token is for 3 nodes, and others have waited by it",
    ]
    assert "the token is for 3 nodes" in explained(decide(numbered(), X509, NOW))


@pytest.mark.parametrize("counted", [None, *Counted])
def test_record_has_neither_the_claim_nor_the_token(counted: Counted | None) -> None:
    asked = numbered()
    decision = decide(asked, X509, NOW, counted=counted)
    token = asked.connect_opts.auth_token
    for secret in (token, token.rpartition(".")[2]):
        assert secret not in repr(decision)
        for with_request in (False, True):
            line = encode(make_record(asked, decision, NOW, 1, with_request=with_request))
            assert secret.encode() not in line
            assert b"claim" not in line


@pytest.mark.parametrize(
    ("counted", "evidence"), [(None, "unknown"), (YES, "counted"), (USED_UP, "used_up"), (UNKNOWN, "unknown")]
)
def test_record_with_its_request_says_how_the_count_ended(counted: Counted | None, evidence: str) -> None:
    asked = numbered()
    decision = decide(asked, X509, NOW, counted=counted)
    assert isinstance(decision, Admit) == (counted is YES)
    kept = make_record(asked, decision, NOW, 1, with_request=True).evidence
    assert kept == Evidence(signer_key=decision.evidence.signer_key, counted=evidence)
    assert make_record(asked, decision, NOW, 1).evidence is None


def test_node_is_named_in_the_decision_by_its_own_name() -> None:
    decision = decide(numbered(), SHARED, NOW, counted=YES)
    assert isinstance(decision, Admit)
    assert (decision.rule, decision.name) == (Rule.PROVISIONING, NODE_NAME)
