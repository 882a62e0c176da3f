"""The decisions for a gate: docs/policy.md#at-a-gate, a row for each sentence."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from broker_auth.policy.decide import decide
from broker_auth.policy.decision import Admit, Deny, DenyCode, Rule
from broker_auth.policy.model import Policy, Serves
from broker_auth.policy.request import AuthorizationRequest
from broker_auth.tokens.faults import TokenFault
from tests.builders.clock import HOUR, NOW
from tests.builders.peers import foreign_chain
from tests.builders.policies import SYSTEM_USER, issuer_policy, x509_policy
from tests.builders.requests import client, fleet, node, provisioner, request, server, system
from tests.builders.tokens import CLIENT_SIGNER, HOLDER, NONCE, ORG, SERVER_SIGNER, client_claims, nonce_signature, sign
from tests.policy.table import Row, Table, deny, rows

X509 = x509_policy()
ISSUER = issuer_policy()
GATE = replace(X509, serves=Serves.GATE)
ISSUER_GATE = replace(ISSUER, serves=Serves.GATE)
BY_TOKEN = replace(ISSUER_GATE, provisioning=replace(ISSUER_GATE.provisioning, require_mtls=False))


def x509_client(**changes: Any) -> AuthorizationRequest:
    """Return the request of a client with a token of the configured client signer."""
    return client(CLIENT_SIGNER, **changes)


def x509_server(**changes: Any) -> AuthorizationRequest:
    """Return the request of a server with a token of the configured server signer."""
    return server(SERVER_SIGNER, **changes)


def with_token(**changes: Any) -> AuthorizationRequest:
    """Return the request of a connection whose token may be the provisioner and the system user."""
    token = sign(client_claims(permissions={"provisioner": True, "system_user": True}), ORG)
    valid = {"chains": (), "auth_token": token, "nonce": NONCE, "sig": nonce_signature(HOLDER)}
    return provisioner(**(valid | changes))


def verified(asked: AuthorizationRequest, policy: Policy = GATE) -> Row:
    return deny(asked, Rule.CONNECTION, DenyCode.GATE_VERIFIED_TLS, policy)


DENIED: Table = {
    "gate-a-verified-certificate": verified(fleet()),
    "gate-a-verified-certificate-issuer-mode": verified(fleet(), ISSUER_GATE),
    "gate-a-chain-is-not-read": verified(fleet(chains=(("garbage",),))),
    "gate-a-chain-of-another-ca": verified(fleet(chains=(foreign_chain(),))),
    "gate-a-provisioner-with-everything": verified(provisioner()),
    "gate-the-system-user-with-everything": verified(system()),
    "gate-no-tls": deny(client(tls=None), Rule.CONNECTION, DenyCode.NO_TLS, ISSUER_GATE),
    "gate-provisioner": deny(provisioner(chains=()), Rule.PROVISIONER, DenyCode.GATE_PROVISIONER, GATE),
    "gate-provisioner-password-is-not-compared": deny(
        provisioner(chains=(), password="wrong"), Rule.PROVISIONER, DenyCode.GATE_PROVISIONER, GATE
    ),
    "gate-provisioner-with-a-token": deny(with_token(), Rule.PROVISIONER, DenyCode.GATE_PROVISIONER, ISSUER_GATE),
    "gate-provisioner-whose-token-stands-in-elsewhere": deny(
        with_token(), Rule.PROVISIONER, DenyCode.GATE_PROVISIONER, BY_TOKEN
    ),
    "gate-system-user": deny(system(chains=()), Rule.SYSTEM, DenyCode.GATE_SYSTEM_USER, GATE),
    "gate-system-user-password-is-not-compared": deny(
        system(chains=(), password="wrong"), Rule.SYSTEM, DenyCode.GATE_SYSTEM_USER, GATE
    ),
    "gate-system-user-with-a-token": deny(
        with_token(user=SYSTEM_USER), Rule.SYSTEM, DenyCode.GATE_SYSTEM_USER, ISSUER_GATE
    ),
    "gate-provisioning-token": deny(node(), Rule.PROVISIONING, DenyCode.GATE_PROVISIONING_TOKEN, GATE),
    "gate-client-without-nonce": deny(client(sig=""), Rule.CLIENT, TokenFault.NONCE_UNSIGNED, ISSUER_GATE),
    "gate-client-expired": deny(client(), Rule.CLIENT, TokenFault.EXPIRED, ISSUER_GATE, NOW + 2 * HOUR),
    "gate-server-where-servers-are-denied": deny(
        server(), Rule.SERVER, DenyCode.SERVERS_DENIED, replace(ISSUER_GATE, deny_servers=True)
    ),
    "gate-no-token": deny(node("no token"), Rule.TOKEN, TokenFault.NOT_COMPACT, GATE),
    "gate-nothing": deny(request(), Rule.NONE, DenyCode.NO_CREDENTIAL, GATE),
}
TABLES = (DENIED,)


@rows(DENIED)
def test_gate_is_refused(row: Row) -> None:
    row.check()


@pytest.mark.parametrize(
    ("asked", "policy"),
    [(client(), ISSUER), (server(), ISSUER), (x509_client(), X509), (x509_server(), X509)],
    ids=["client by issuer", "server by issuer", "client by signer", "server by signer"],
)
def test_token_gets_what_it_gets_in_the_fleet(asked: AuthorizationRequest, policy: Policy) -> None:
    decided = decide(asked, replace(policy, serves=Serves.GATE), NOW)
    assert isinstance(decided, Admit)
    assert decided == decide(asked, policy, NOW)


@pytest.mark.parametrize("policy", [GATE, ISSUER_GATE, BY_TOKEN])
def test_every_admission_at_a_gate_is_by_token_into_the_fleets_account(policy: Policy) -> None:
    asked = [
        maker(**changes)
        for maker in (fleet, provisioner, system, node, client, server, x509_client, x509_server, with_token)
        for changes in ({}, {"chains": ()}, {"type": "websocket"}, {"user": SYSTEM_USER}, {"user": "provisioner"})
    ]
    decided = [decide(item, policy, NOW) for item in asked]
    admitted = [item for item in decided if isinstance(item, Admit)]
    assert {(item.account, item.rule.number) for item in admitted} == {("choria", 3)}
    assert all(item.token_id and not item.fingerprint for item in admitted)
    assert not [item for item in decided if isinstance(item, Deny) and item.code is DenyCode.INTERNAL_ERROR]
