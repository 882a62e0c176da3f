"""What ``explain`` decides again from a stored request (POLICY "What is kept of a decision")."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from broker_auth.policy.case import PASSWORD as PASSWORD_REMOVED
from broker_auth.policy.case import TOKEN_SIGNATURE, Replay
from broker_auth.policy.decide import decide
from broker_auth.policy.decision import Admit, Deny, DenyCode
from broker_auth.policy.request import AuthorizationRequest
from broker_auth.tokens.faults import TokenFault
from tests.builders.clock import NOW
from tests.builders.policies import issuer_policy, x509_policy
from tests.builders.requests import client, fleet, node, provisioner, server, system
from tests.builders.tokens import FOREIGN

BOTH = frozenset({PASSWORD_REMOVED, TOKEN_SIGNATURE})
ASKED = {
    "fleet": (fleet(), x509_policy(), []),
    "node": (node(), x509_policy(), ["token signature"]),
    "client": (client(), issuer_policy(), ["token signature"]),
    "server": (server(), issuer_policy(), ["token signature"]),
    "provisioner": (provisioner(), x509_policy(), ["password"]),
    "system": (system(), issuer_policy(), ["password"]),
}


def stored(asked: AuthorizationRequest) -> AuthorizationRequest:
    """As an audit record keeps it: no password, the token's signature cut off."""
    options = asked.connect_opts
    token = options.auth_token.rpartition(".")[0] + "." if options.auth_token else ""
    kept = msgspec.structs.replace(options, password="", auth_token=token)
    return msgspec.structs.replace(asked, connect_opts=kept)


@pytest.mark.parametrize(("asked", "policy", "skipped"), ASKED.values(), ids=ASKED)
def test_a_stored_request_is_decided_as_it_was_and_says_what_it_could_not_check(
    asked: AuthorizationRequest, policy: Any, skipped: list[str]
) -> None:
    replay = Replay(BOTH)
    again = decide(stored(asked), policy, NOW, replay)
    assert isinstance(again, Admit)
    assert again == decide(asked, policy, NOW)
    assert replay.skipped == skipped


@pytest.mark.parametrize(("asked", "policy", "skipped"), ASKED.values(), ids=ASKED)
def test_a_stored_request_admits_nobody_by_itself(asked: AuthorizationRequest, policy: Any, skipped: list[str]) -> None:
    """Nor after it was explained with the same policy: nothing of a replay is remembered."""
    decide(stored(asked), policy, NOW, Replay(BOTH))
    decision = decide(stored(asked), policy, NOW)
    assert isinstance(decision, Deny if skipped else Admit)


def test_a_full_request_repeats_every_check() -> None:
    replay = Replay(frozenset())
    assert decide(client(FOREIGN), issuer_policy(), NOW, replay).code is TokenFault.SIGNATURE  # type: ignore[union-attr]
    assert decide(provisioner(password="x"), x509_policy(), NOW, replay).code is DenyCode.PROVISIONER_PASSWORD  # type: ignore[union-attr]
    assert replay.skipped == []


def test_what_was_kept_is_checked_again() -> None:
    replay = Replay(BOTH)
    late = decide(stored(client()), issuer_policy(), NOW + 10**6, replay)
    assert isinstance(late, Deny)
    assert late.code is TokenFault.EXPIRED
    unsigned = decide(stored(client(sig="")), issuer_policy(), NOW, replay)
    assert isinstance(unsigned, Deny)
    assert unsigned.code is TokenFault.NONCE_UNSIGNED
    named = decide(stored(node(name="")), x509_policy(), NOW, replay)
    assert isinstance(named, Deny)
    assert named.code is DenyCode.NODE_NAME
