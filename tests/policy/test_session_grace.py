"""Sessions of fleet members may outlive their credential by ``session_grace``; nobody else's, and no login may."""

from __future__ import annotations

from dataclasses import replace

import pytest

from broker_auth.audit.record import make_record
from broker_auth.policy.decide import decide
from broker_auth.policy.decision import Admit, Deny, DenyCode, Rule
from broker_auth.policy.model import Policy
from broker_auth.policy.request import AuthorizationRequest
from broker_auth.policy.revocation_index import Revocations
from broker_auth.policy.revocations import Revocation, RevocationKind
from broker_auth.times import MAX_TIME
from broker_auth.tokens.faults import TokenFault
from tests.builders.clock import DAY, NOW
from tests.builders.policies import changed, issuer_policy
from tests.builders.requests import client, fleet, node, provisioner, server, system
from tests.builders.tokens import ABSENT, provisioning_signer
from tests.policy.table import ISSUER, PEER_ENDS, TOKEN_ENDS, X509
from tests.policy.test_rule3_token import with_key

GRACE = 7.0 * DAY
ROWS: dict[str, tuple[AuthorizationRequest, Policy, Rule, float | None, bool]] = {
    "client": (client(), ISSUER, Rule.CLIENT, TOKEN_ENDS, True),
    "server": (server(), ISSUER, Rule.SERVER, TOKEN_ENDS, True),
    "certificate": (fleet(), X509, Rule.VERIFIED_TLS, PEER_ENDS, True),
    "provisioner": (provisioner(), X509, Rule.PROVISIONER, PEER_ENDS, False),
    "operator": (system(), X509, Rule.SYSTEM, PEER_ENDS, False),
    "node": (node(), X509, Rule.PROVISIONING, TOKEN_ENDS, False),
    "node without an end": (
        with_key(provisioning_signer(), exp=ABSENT),
        changed(X509, allow_non_expiring_tokens=True),
        Rule.PROVISIONING,
        None,
        False,
    ),
}


def graceful(policy: Policy, grace: float = GRACE) -> Policy:
    return replace(policy, session_grace=grace)


@pytest.mark.parametrize("who", ROWS)
def test_sessions_of_fleet_members_outlive_their_credential(who: str) -> None:
    request, policy, rule, ends, longer = ROWS[who]
    decision = decide(request, graceful(policy), NOW)
    assert isinstance(decision, Admit), decision
    grace = GRACE if longer else 0.0
    assert (decision.rule, decision.grace) == (rule, grace)
    assert decision.expires == (None if ends is None else ends + grace)
    record = make_record(request, decision, NOW, 1)
    assert record.grace == grace
    if record.expires is not None and ends is not None:
        assert record.expires.timestamp() - record.grace == ends


def test_expired_credential_is_denied_as_before() -> None:
    decision = decide(client(), graceful(ISSUER), TOKEN_ENDS + 1)
    assert isinstance(decision, Deny)
    assert decision.code is TokenFault.EXPIRED
    decision = decide(fleet(), graceful(X509), PEER_ENDS + 1)
    assert isinstance(decision, Deny)


def test_revoked_credential_is_denied_as_before() -> None:
    revoked = Revocations.of([Revocation(kind=RevocationKind.IDENTITY, value="up=alice")])
    decision = decide(client(), replace(graceful(issuer_policy()), revocations=revoked), NOW)
    assert isinstance(decision, Deny)
    assert decision.code is DenyCode.REVOKED


@pytest.mark.parametrize(("left", "grace"), [(0, 0.0), (DAY, 1.0 * DAY), (9 * DAY, GRACE)])
def test_session_ends_before_times_that_no_date_can_show(left: int, grace: float) -> None:
    request = client(claims={"exp": MAX_TIME - left})
    decision = decide(request, graceful(ISSUER), NOW)
    assert isinstance(decision, Admit), decision
    assert (decision.grace, decision.expires) == (grace, MAX_TIME - left + grace)
    assert make_record(request, decision, NOW, 1).expires
