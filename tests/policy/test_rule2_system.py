"""Rule 2: the system user."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from broker_auth.policy.decision import Code, DenyCode, Rule
from broker_auth.policy.model import Policy, SystemUser
from broker_auth.policy.request import AuthorizationRequest
from broker_auth.secret import Secret
from broker_auth.tokens.faults import TokenFault
from tests.builders.clock import NOW
from tests.builders.policies import PASSWORD, SYSTEM_PASSWORD, SYSTEM_USER
from tests.builders.requests import system
from tests.builders.tokens import (
    CLIENT_SIGNER,
    FOREIGN,
    HOLDER,
    NONCE,
    ORG,
    Key,
    client_claims,
    nonce_signature,
    provisioning_claims,
    provisioning_signer,
    server_claims,
    sign,
)
from tests.policy.grants import PUB_SUB, SYSTEM_ACCESS, UNRESTRICTED
from tests.policy.table import ISSUER, PEER_ENDS, TOKEN_ENDS, TOKEN_ID, X509, Row, Table, deny, rows

SYSTEM = Rule.SYSTEM
NAME = "admin.example.net"


def by_token(
    key: Key = ORG, permissions: dict[str, bool] | None = None, signer: Key = HOLDER, **changes: Any
) -> AuthorizationRequest:
    """Return the system user on unverified TLS, with a client token and the nonce signed."""
    token = sign(client_claims(permissions={"system_user": True} if permissions is None else permissions), key)
    valid = {"chains": (), "auth_token": token, "nonce": NONCE, "sig": nonce_signature(signer)}
    return system(**(valid | changes))


def admitted(asked: AuthorizationRequest, policy: Policy, **changes: Any) -> Row:
    row = Row(
        request=asked,
        policy=policy,
        rule=SYSTEM,
        account="system",
        name=NAME,
        grant=SYSTEM_ACCESS,
        expires=PEER_ENDS,
        verified=True,
    )
    return replace(row, **changes)


def admitted_by_token(asked: AuthorizationRequest, policy: Policy, signer: str) -> Row:
    changes = {"name": "up=alice", "expires": TOKEN_ENDS, "token_id": TOKEN_ID, "signer": signer, "verified": False}
    return admitted(asked, policy, **changes)


def refused(asked: AuthorizationRequest, code: Code, policy: Policy = ISSUER) -> Row:
    return deny(asked, SYSTEM, code, policy)


MODES = (("x509", X509, CLIENT_SIGNER), ("issuer", ISSUER, ORG))
ROTATED = replace(X509, system=SystemUser(user=SYSTEM_USER, passwords=(Secret("old"), Secret(SYSTEM_PASSWORD))))
EMPTY_SECRET = replace(X509, system=SystemUser(user=SYSTEM_USER, passwords=(Secret(""),)))

VERIFIED: Table = {f"rule2-verified-{mode}": admitted(system(), policy) for mode, policy, _ in MODES}
VERIFIED |= {
    f"rule2-password-{name}-{mode}": refused(system(password=password), DenyCode.SYSTEM_PASSWORD, policy)
    for mode, policy, _ in MODES
    for name, password in {"empty": "", "wrong": "x", "longer": SYSTEM_PASSWORD + "x", "provisioner": PASSWORD}.items()
}
VERIFIED |= {
    "rule2-password-rotated-old": admitted(system(password="old"), ROTATED),
    "rule2-password-rotated-new": admitted(system(), ROTATED),
    "rule2-password-rotated-other": refused(system(password="o"), DenyCode.SYSTEM_PASSWORD, ROTATED),
    "rule2-password-empty-secret": refused(system(password=""), DenyCode.SYSTEM_PASSWORD, EMPTY_SECRET),
    "rule2-verified-needs-no-token": admitted(system(auth_token="garbage"), ISSUER),
    "rule2-account-as-configured": admitted(
        system(), replace(X509, accounts=replace(X509.accounts, system="$SYS")), account="$SYS"
    ),
    "rule2-not-configured-x509": admitted(
        system(), replace(X509, system=None), rule=Rule.VERIFIED_TLS, account="choria", grant=UNRESTRICTED
    ),
    "rule2-not-configured-issuer": admitted(
        system(), replace(ISSUER, system=None), rule=Rule.VERIFIED_TLS, account="choria", grant=PUB_SUB
    ),
    "rule2-another-user": admitted(
        system(user="Admin"), X509, rule=Rule.VERIFIED_TLS, account="choria", grant=UNRESTRICTED
    ),
    "rule2-not-configured-unverified": deny(
        system(chains=()), Rule.NONE, DenyCode.NO_CREDENTIAL, replace(X509, system=None)
    ),
}
UNVERIFIED: Table = {}
for mode, policy, key in MODES:
    signer = key.name
    UNVERIFIED |= {
        f"rule2-unverified-password-alone-{mode}": refused(system(chains=()), DenyCode.SYSTEM_TOKEN_MISSING, policy),
        f"rule2-unverified-system-user-{mode}": admitted_by_token(by_token(key), policy, signer),
        f"rule2-unverified-org-admin-{mode}": admitted_by_token(by_token(key, {"org_admin": True}), policy, signer),
        f"rule2-unverified-no-claim-{mode}": refused(by_token(key, {}), DenyCode.SYSTEM_CLAIM, policy),
        f"rule2-unverified-other-claims-{mode}": refused(
            by_token(key, {"provisioner": True, "streams_admin": True, "system_user": False}),
            DenyCode.SYSTEM_CLAIM,
            policy,
        ),
        f"rule2-unverified-foreign-{mode}": refused(by_token(FOREIGN), TokenFault.SIGNATURE, policy),
        f"rule2-unverified-nonce-not-signed-{mode}": refused(by_token(key, sig=""), TokenFault.NONCE_UNSIGNED, policy),
        f"rule2-unverified-nonce-missing-{mode}": refused(by_token(key, nonce=""), TokenFault.NONCE_MISSING, policy),
        f"rule2-unverified-nonce-foreign-{mode}": refused(
            by_token(key, None, FOREIGN), TokenFault.NONCE_SIGNATURE, policy
        ),
        f"rule2-unverified-wrong-password-{mode}": refused(
            by_token(key, password="x"), DenyCode.SYSTEM_PASSWORD, policy
        ),
        f"rule2-unverified-server-token-{mode}": refused(
            by_token(auth_token=sign(server_claims(), key)), DenyCode.SYSTEM_TOKEN_KIND, policy
        ),
        f"rule2-unverified-provisioning-token-{mode}": refused(
            by_token(auth_token=sign(provisioning_claims(), provisioning_signer())), DenyCode.SYSTEM_TOKEN_KIND, policy
        ),
        f"rule2-unverified-garbage-{mode}": refused(by_token(auth_token="x.y"), TokenFault.NOT_COMPACT, policy),
        f"rule2-unverified-expired-{mode}": replace(refused(by_token(key), TokenFault.EXPIRED, policy), now=TOKEN_ENDS),
        f"rule2-unverified-last-moment-{mode}": replace(
            admitted_by_token(by_token(key), policy, signer), now=TOKEN_ENDS - 0.001
        ),
    }
assert TOKEN_ENDS > NOW

TABLES = (VERIFIED, UNVERIFIED)


@rows(*TABLES)
def test_rule_2(row: Row) -> None:
    row.check()
