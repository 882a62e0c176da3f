"""``explain`` decides stored requests again (docs/policy.md#what-is-kept-of-a-decision)."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from broker_auth.audit.redact import PASSWORD, TOKEN_SIGNATURE
from broker_auth.audit.unsigned import with_placeholder
from broker_auth.operate.stored import Stored
from broker_auth.operate.stored_case import decide_stored
from broker_auth.policy.decide import decide
from broker_auth.policy.decision import Admit, Deny, DenyCode, Evidence
from broker_auth.policy.request import AuthorizationRequest
from broker_auth.tokens.faults import TokenFault
from tests.builders.clock import NOW
from tests.builders.policies import issuer_policy, x509_policy
from tests.builders.requests import client, fleet, node, provisioner, server, system
from tests.builders.tokens import FOREIGN, provisioning_claims, provisioning_signer, sign

BOTH = frozenset({PASSWORD, TOKEN_SIGNATURE})
ASKED = {
    "fleet": (fleet(), x509_policy(), []),
    "node": (node(), x509_policy(), ["token signature"]),
    "client": (client(), issuer_policy(), ["token signature"]),
    "server": (server(), issuer_policy(), ["token signature"]),
    "provisioner": (provisioner(), x509_policy(), ["password"]),
    "system": (system(), issuer_policy(), ["password"]),
}


def stripped(asked: AuthorizationRequest) -> AuthorizationRequest:
    """Remove the password and the token's signature, like an audit record."""
    options = asked.connect_opts
    token = options.auth_token.rpartition(".")[0] + "." if options.auth_token else ""
    kept = msgspec.structs.replace(options, password="", auth_token=token)
    return msgspec.structs.replace(asked, connect_opts=kept)


def stored(asked: AuthorizationRequest) -> Stored:
    return Stored(request=stripped(asked), redacted=BOTH)


@pytest.mark.parametrize(("asked", "policy", "skipped"), ASKED.values(), ids=ASKED)
def test_stored_request_is_decided_like_the_original_with_skipped_checks_named(
    asked: AuthorizationRequest, policy: Any, skipped: list[str]
) -> None:
    again, case = decide_stored(stored(asked), policy, NOW)
    before = decide(asked, policy, NOW)
    assert isinstance(again, Admit)
    assert msgspec.structs.replace(again, evidence=before.evidence) == before
    assert list(case.skipped) == skipped


@pytest.mark.parametrize(("asked", "policy", "skipped"), ASKED.values(), ids=ASKED)
def test_stored_request_is_not_admitted_by_the_service(
    asked: AuthorizationRequest, policy: Any, skipped: list[str]
) -> None:
    """Not even after it was explained with the same policy, because explaining does not change its caches."""
    decide_stored(stored(asked), policy, NOW)
    decision = decide(stripped(asked), policy, NOW)
    assert isinstance(decision, Deny if skipped else Admit)


def code(stored: Stored, policy: Any, now: float = NOW) -> str:
    decision, _ = decide_stored(stored, policy, now)
    assert isinstance(decision, Deny)
    return decision.code


def test_complete_request_repeats_every_check() -> None:
    assert code(Stored(request=client(FOREIGN)), issuer_policy()) is TokenFault.SIGNATURE
    assert code(Stored(request=provisioner(password="x")), x509_policy()) is DenyCode.PROVISIONER_PASSWORD
    assert not decide_stored(Stored(request=client()), issuer_policy(), NOW)[1].skipped


@pytest.mark.parametrize("removed", [PASSWORD, TOKEN_SIGNATURE])
def test_only_checks_of_removed_parts_are_skipped(removed: str) -> None:
    signature = Stored(request=client(FOREIGN), redacted=frozenset({removed}))
    password = Stored(request=provisioner(password="x"), redacted=frozenset({removed}))
    if removed == PASSWORD:
        assert code(signature, issuer_policy()) is TokenFault.SIGNATURE
        assert isinstance(decide_stored(password, x509_policy(), NOW)[0], Admit)
    else:
        assert isinstance(decide_stored(signature, issuer_policy(), NOW)[0], Admit)
        assert code(password, x509_policy()) is DenyCode.PROVISIONER_PASSWORD


def test_checks_of_stored_parts_are_repeated() -> None:
    assert code(stored(client()), issuer_policy(), NOW + 10**6) is TokenFault.EXPIRED
    assert code(stored(client(sig="")), issuer_policy()) is TokenFault.NONCE_UNSIGNED
    assert code(stored(node(name="")), x509_policy()) is DenyCode.NODE_NAME


@pytest.mark.parametrize(("raw", "filled"), [("h.c.", "h.c.AA"), ("h.c.\n", "h.c.AA"), ("h.c.s", "h.c.s"), ("", "")])
def test_only_a_missing_signature_gets_a_placeholder(raw: str, filled: str) -> None:
    assert with_placeholder(raw) == filled


def test_bounds_of_a_token_are_compared_with_the_stored_name_and_address() -> None:
    bounds = {"names": ["new1.example.net"], "networks": ["192.0.2.0/24"]}
    token = sign(provisioning_claims(extensions={"broker-auth": bounds}), provisioning_signer())
    again, case = decide_stored(stored(node(token)), x509_policy(), NOW)
    assert isinstance(again, Admit)
    assert list(case.skipped) == ["token signature"]
    assert code(stored(node(token, name="new2.example.net")), x509_policy()) is DenyCode.NODE_NAME_NOT_ALLOWED
    assert code(stored(node(token, host="198.51.100.7")), x509_policy()) is DenyCode.ADDRESS_NOT_ALLOWED


@pytest.mark.parametrize(
    ("counted", "expected"),
    [
        ("counted", None),
        ("used_up", DenyCode.TOKEN_USED_UP),
        ("unknown", DenyCode.NODES_NOT_COUNTED),
        ("", None),
        ("another word", None),
    ],
)
def test_count_is_that_of_the_record(counted: str, expected: DenyCode | None) -> None:
    token = sign(provisioning_claims(extensions={"broker-auth": {"max_nodes": 2}}), provisioning_signer())
    kept = Stored(request=node(token), evidence=Evidence(counted=counted))
    again, case = decide_stored(kept, x509_policy(), NOW)
    assert (again.code if isinstance(again, Deny) else None) == expected
    known = counted in ("counted", "used_up", "unknown")
    assert (list(case.skipped), again.evidence.counted) == (([], counted) if known else (["number of nodes"], ""))
    assert not isinstance(again, Deny) or again.claim is None
