"""Rules 1 to 3: a chain issuer is accepted for a limited time, regardless of the claims in tokens that it issues."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import msgspec
import pytest

from broker_auth.callout.priority import Priority, priority
from broker_auth.policy.decide import decide
from broker_auth.policy.decision import Admit, Deny, Rule
from broker_auth.policy.request import AuthorizationRequest
from broker_auth.tokens.chain import ChainIssuer
from broker_auth.tokens.faults import TokenFault
from broker_auth.tokens.verify import TokenVerifier, TrustedKeys
from tests.builders import requests
from tests.builders.clock import DAY, NOW, YEAR
from tests.builders.policies import PASSWORD, SYSTEM_PASSWORD, SYSTEM_USER, changed, issuer_policy, x509_policy
from tests.builders.requests import presenting
from tests.builders.tokens import (
    CLIENT_SIGNER,
    CREATOR,
    ORG,
    ORGANIZATION,
    Claims,
    client_claims,
    creator_claims,
    issued,
    ksuid,
    org_issuer,
    server_claims,
    sign,
)
from tests.policy.grants import ALICE
from tests.policy.table import ISSUER, TOKEN_ENDS, TOKEN_ID, Row, Table, deny, rows

AGE = 366 * DAY
F = TokenFault
PAYLOAD = b"fedcba9876543210"


def aged(made: int) -> Claims:
    """Return the claims of a chain issuer whose token was made at ``made`` and claims to expire in ten years."""
    return creator_claims(jti=ksuid(made, PAYLOAD), iat=made, nbf=made, exp=NOW + 10 * YEAR)


def below(made: int, build: Callable[..., Claims] = client_claims, **claims: Any) -> AuthorizationRequest:
    """Return a connection with a new token of a chain issuer of that age, with a distant ``issexp``."""
    return presenting(sign(issued(build(**claims), creator_token=aged(made)), CREATOR))


def as_user(asked: AuthorizationRequest, user: str, password: str) -> AuthorizationRequest:
    options = msgspec.structs.replace(asked.connect_opts, user=user, password=password)
    return msgspec.structs.replace(asked, connect_opts=options)


def admitted(made: int, policy: Any = ISSUER, expires: float = TOKEN_ENDS) -> Row:
    return Row(
        request=below(made),
        policy=policy,
        rule=Rule.CLIENT,
        account="choria",
        name="up=alice",
        grant=ALICE,
        expires=expires,
        token_id=TOKEN_ID,
        signer=f"organization via {ksuid(made, PAYLOAD)}",
    )


def refused(asked: AuthorizationRequest, rule: Rule = Rule.CLIENT, policy: Any = ISSUER) -> Row:
    return deny(asked, rule, F.CHAIN_ISSUER_TOO_OLD, policy)


SHORT = replace(
    ISSUER, tokens=TokenVerifier(TrustedKeys(issuers={ORGANIZATION: ORG.verifies}, chain_issuer_max_age=float(DAY)))
)
LENIENT = replace(ISSUER, token_leeway=60.0)
NO_KSUID = org_issuer(client_claims(jti="not a KSUID", public_key=CREATOR.hex))
PROVISIONER = as_user(below(NOW - AGE, permissions={"provisioner": True}), "provisioner", PASSWORD)
SYSTEM = as_user(below(NOW - AGE, permissions={"org_admin": True}), SYSTEM_USER, SYSTEM_PASSWORD)
AGES: Table = {
    "rule3-chain-issuer-just-made": admitted(NOW),
    "rule3-chain-issuer-in-its-last-second": admitted(NOW - AGE + 1, expires=NOW + 1),
    "rule3-chain-issuer-too-old": refused(below(NOW - AGE)),
    "rule3-chain-issuer-much-too-old": refused(below(NOW - 9 * YEAR)),
    "rule3-chain-issuer-too-old-org-admin": refused(below(NOW - AGE, permissions={"org_admin": True})),
    "rule3-chain-issuer-too-old-server": refused(below(NOW - AGE, server_claims), Rule.SERVER),
    "rule3-chain-issuer-too-old-itself": refused(presenting(sign(aged(NOW - AGE), ORG), CREATOR)),
    "rule3-chain-issuer-too-old-leeway-does-not-help": refused(below(NOW - AGE), policy=LENIENT),
    "rule1-chain-issuer-too-old": refused(PROVISIONER, Rule.PROVISIONER, changed(ISSUER, require_mtls=False)),
    "rule2-chain-issuer-too-old": refused(SYSTEM, Rule.SYSTEM),
    "rule3-chain-issuer-max-age-shorter": admitted(NOW - DAY + 1, SHORT, expires=NOW + 1),
    "rule3-chain-issuer-max-age-shorter-too-old": refused(below(NOW - DAY), policy=SHORT),
    "rule3-chain-issuer-from-the-future": deny(below(NOW + 1), Rule.CLIENT, F.CHAIN_ISSUER_IN_FUTURE, ISSUER),
    "rule3-chain-issuer-within-the-leeway": admitted(NOW + 60, LENIENT),
    "rule3-chain-issuer-beyond-the-leeway": deny(below(NOW + 61), Rule.CLIENT, F.CHAIN_ISSUER_IN_FUTURE, LENIENT),
    "rule3-chain-issuer-id-not-a-ksuid": deny(
        presenting(sign(issued(client_claims(), creator_token=NO_KSUID), CREATOR)),
        Rule.CLIENT,
        F.CHAIN_ISSUER_ID,
        ISSUER,
    ),
}
TABLES = (AGES,)


@rows(*TABLES)
def test_rule(row: Row) -> None:
    row.check()


def test_old_token_signed_by_the_organization_has_no_chain_issuer() -> None:
    decision = decide(requests.client(ORG, {"jti": ksuid(NOW - 5 * YEAR), "iat": NOW - 5 * YEAR}), ISSUER, NOW)
    assert isinstance(decision, Admit)
    assert decision.chain_issuer is None


@pytest.mark.parametrize(("now", "admits"), [(NOW, True), (NOW + 1, False)])
def test_cached_token_expires_with_its_chain_issuer(now: float, admits: bool) -> None:
    asked, policy = below(NOW - AGE + 1), ISSUER
    assert isinstance(decide(asked, policy, NOW), Admit)
    assert policy.tokens.recall(asked.connect_opts.auth_token) is not None
    assert isinstance(decide(asked, policy, now), Admit if admits else Deny)
    assert priority(asked, policy, now) is (Priority.TOKEN if admits else Priority.REFUSED)


@pytest.mark.parametrize("made", [NOW - DAY, NOW - AGE])
def test_admissions_and_denials_name_the_chain_issuer(made: int) -> None:
    expected = ChainIssuer(id=ksuid(made, PAYLOAD), issued=made, ends=made + AGE)
    assert decide(below(made), issuer_policy(), NOW).chain_issuer == expected
    itself = decide(presenting(sign(aged(made), ORG), CREATOR), issuer_policy(), NOW)
    assert itself.chain_issuer == expected


def test_chain_issuer_is_not_recorded_without_chain_verification() -> None:
    forged = decide(presenting(sign(issued(client_claims()), ORG)), issuer_policy(), NOW)
    assert isinstance(forged, Deny)
    assert forged.chain_issuer is None


def test_chain_age_is_ignored_without_issuers() -> None:
    old = sign(aged(NOW - AGE) | {"exp": NOW + DAY}, CLIENT_SIGNER)
    decision = decide(presenting(old, CREATOR), x509_policy(), NOW)
    assert isinstance(decision, Admit)
    assert (decision.chain_issuer, decision.expires) == (None, NOW + DAY)
