"""Requests from an edge: docs/policy.md#at-an-edge, a row for each sentence."""

from __future__ import annotations

from dataclasses import replace

import pytest

from broker_auth.policy.decide import decide
from broker_auth.policy.decision import Admit, Deny, DenyCode, Rule
from broker_auth.policy.model import Policy, Serves, SystemUser
from broker_auth.policy.request import AuthorizationRequest
from broker_auth.tokens.faults import TokenFault
from tests.builders.clock import NOW
from tests.builders.peers import foreign_chain
from tests.builders.policies import SYSTEM_USER, issuer_policy, x509_policy
from tests.builders.requests import client, fleet, node, provisioner, request, server, system
from tests.builders.tokens import HOLDER, NONCE, ORG, client_claims, nonce_signature, sign
from tests.policy.table import Row, Table, deny, rows

EDGE = replace(x509_policy(), serves=Serves.EDGE)
ISSUER_EDGE = replace(issuer_policy(), serves=Serves.EDGE)
BY_TOKEN = replace(ISSUER_EDGE, provisioning=replace(ISSUER_EDGE.provisioning, require_mtls=False))
WITHOUT_SECRETS = replace(
    EDGE,
    provisioning=replace(EDGE.provisioning, passwords=()),
    system=SystemUser(user=SYSTEM_USER, passwords=()),
)


def with_token(**changes: object) -> AuthorizationRequest:
    """Return a provisioner without a certificate, with a token for it and the nonce signed."""
    token = sign(client_claims(permissions={"provisioner": True}), ORG)
    valid = {"chains": (), "auth_token": token, "nonce": NONCE, "sig": nonce_signature(HOLDER)}
    return provisioner(**(valid | changes))


def verified(asked: AuthorizationRequest, policy: Policy = EDGE) -> Row:
    return deny(asked, Rule.CONNECTION, DenyCode.EDGE_VERIFIED_TLS, policy)


DENIED: Table = {
    "edge-a-verified-certificate": verified(fleet()),
    "edge-a-verified-certificate-issuer-mode": verified(fleet(), ISSUER_EDGE),
    "edge-a-chain-is-not-read": verified(fleet(chains=(("garbage",),))),
    "edge-a-chain-of-another-ca": verified(fleet(chains=(foreign_chain(),))),
    "edge-a-provisioner-with-everything": verified(provisioner()),
    "edge-the-system-user-with-everything": verified(system()),
    "edge-provisioner": deny(provisioner(chains=()), Rule.PROVISIONER, DenyCode.EDGE_PROVISIONER, EDGE),
    "edge-provisioner-password-is-not-compared": deny(
        provisioner(chains=(), password="wrong"), Rule.PROVISIONER, DenyCode.EDGE_PROVISIONER, EDGE
    ),
    "edge-provisioner-with-a-token": deny(with_token(), Rule.PROVISIONER, DenyCode.EDGE_PROVISIONER, ISSUER_EDGE),
    "edge-provisioner-by-token-wrong-password": deny(
        with_token(password="wrong"), Rule.PROVISIONER, DenyCode.PROVISIONER_PASSWORD, BY_TOKEN
    ),
    "edge-system-user": deny(system(chains=()), Rule.SYSTEM, DenyCode.EDGE_SYSTEM_USER, EDGE),
    "edge-system-user-password-is-not-compared": deny(
        system(chains=(), password="wrong"), Rule.SYSTEM, DenyCode.EDGE_SYSTEM_USER, EDGE
    ),
    "edge-system-user-with-a-token": deny(
        with_token(user=SYSTEM_USER), Rule.SYSTEM, DenyCode.EDGE_SYSTEM_USER, ISSUER_EDGE
    ),
    "edge-client-token": deny(client(), Rule.CLIENT, DenyCode.EDGE_FLEET_TOKEN, ISSUER_EDGE),
    "edge-server-token": deny(server(), Rule.SERVER, DenyCode.EDGE_FLEET_TOKEN, ISSUER_EDGE),
    "edge-server-token-x509": deny(server(), Rule.SERVER, DenyCode.EDGE_FLEET_TOKEN, EDGE),
    "edge-no-token": deny(node("no token"), Rule.TOKEN, TokenFault.NOT_COMPACT, EDGE),
    "edge-nothing": deny(request(), Rule.NONE, DenyCode.NO_CREDENTIAL, EDGE),
}
TABLES = (DENIED,)


@rows(DENIED)
def test_edge_request_is_refused(row: Row) -> None:
    row.check()


@pytest.mark.parametrize("policy", [EDGE, WITHOUT_SECRETS], ids=["all known", "without the passwords"])
def test_node_gets_the_same_permissions_at_an_edge(policy: Policy) -> None:
    """The provisioner's password, which provisioning requires, is not needed to admit a node."""
    assert decide(node(), policy, NOW) == decide(node(), x509_policy(), NOW)


def test_provisioner_by_token_gets_the_same_permissions_at_an_edge() -> None:
    assert decide(with_token(), BY_TOKEN, NOW) == decide(with_token(), replace(BY_TOKEN, serves=Serves.FLEET), NOW)


@pytest.mark.parametrize("policy", [EDGE, ISSUER_EDGE, BY_TOKEN, WITHOUT_SECRETS])
def test_edge_requests_are_admitted_only_to_the_provisioning_account(policy: Policy) -> None:
    asked = [
        maker(**changes)
        for maker in (fleet, provisioner, system, node, client, server, with_token)
        for changes in ({}, {"chains": ()}, {"type": "websocket"}, {"user": SYSTEM_USER}, {"user": "provisioner"})
    ]
    decided = [decide(item, policy, NOW) for item in asked]
    assert {item.account for item in decided if isinstance(item, Admit)} == {"provisioning"}
    assert not [item for item in decided if isinstance(item, Deny) and item.code is DenyCode.INTERNAL_ERROR]
