"""A redacted request contains no secret, is bounded in size, and can still be decided."""

from __future__ import annotations

import base64
import json

import msgspec
import pytest

from broker_auth.audit.redact import PASSWORD, TOKEN_SIGNATURE, UNREADABLE, redact
from broker_auth.operate.stored import Stored
from broker_auth.operate.stored_case import decide_stored
from broker_auth.policy.decide import decide
from broker_auth.policy.decision import Admit, Deny, DenyCode
from broker_auth.policy.model import Policy
from broker_auth.policy.request import AuthorizationRequest
from broker_auth.tokens.faults import TokenFault
from tests.builders.clock import NOW
from tests.builders.policies import issuer_policy, x509_policy
from tests.builders.requests import client, fleet, node, provisioner, request, server, system
from tests.builders.tokens import provisioning_claims, provisioning_signer, sign

SECRETS = {"cht": "access-token-of-agents", "chpwd": "password-in-a-token"}


def kept_claims(asked: AuthorizationRequest) -> dict[str, object]:
    kept, _ = redact(asked)
    part = kept.connect_opts.auth_token.split(".")[1]
    claims: dict[str, object] = json.loads(base64.urlsafe_b64decode(part + "=" * (-len(part) % 4)))
    return claims


def test_secrets_inside_a_provisioning_token_are_masked_and_its_other_claims_kept() -> None:
    claims = provisioning_claims(**SECRETS)
    asked = node(sign(claims, provisioning_signer()))
    assert kept_claims(asked) == claims | {"cht": "*****", "chpwd": "*****"}


X509 = [node(), provisioner(), system(), fleet()]
ISSUED = [client(), server()]


@pytest.mark.parametrize(
    ("asked", "policy"), [(asked, x509_policy()) for asked in X509] + [(asked, issuer_policy()) for asked in ISSUED]
)
def test_redacted_request_is_decided_like_the_original(asked: AuthorizationRequest, policy: Policy) -> None:
    kept, redacted = redact(asked)
    before = decide(asked, policy, NOW)
    after, _ = decide_stored(Stored(request=kept, redacted=frozenset(redacted)), policy, NOW)
    assert isinstance(before, Admit)
    # Which of several keys signed cannot be known without the signature.
    assert isinstance(after, Admit)
    assert msgspec.structs.replace(after, signer=before.signer, evidence=before.evidence) == before


def test_removed_parts_are_named() -> None:
    assert redact(provisioner())[1] == (PASSWORD,)
    assert redact(node())[1] == (TOKEN_SIGNATURE,)
    assert redact(fleet())[1] == ()


@pytest.mark.parametrize("token", ["a password in the wrong place", "a.b.c", "x" * 100_000, "." * 17_000])
def test_malformed_token_is_replaced_and_still_rejected(token: str) -> None:
    kept, redacted = redact(request(auth_token=token))
    assert kept.connect_opts.auth_token == UNREADABLE
    again, _ = decide_stored(Stored(request=kept, redacted=frozenset(redacted)), x509_policy(), NOW)
    assert isinstance(again, Deny)
    assert again.code is TokenFault.NOT_COMPACT


def test_client_chosen_fields_are_truncated() -> None:
    long = "n" * 60_000
    kept, _ = redact(request(name=long, user=long, lang=long, version=long, sig=long, nkey=long, jwt=long))
    assert len(msgspec.json.encode(kept.connect_opts)) < 2000


def test_truncated_name_is_refused_like_the_original() -> None:
    kept, redacted = redact(node(name="n" * 60_000))
    again, _ = decide_stored(Stored(request=kept, redacted=frozenset(redacted)), x509_policy(), NOW)
    assert isinstance(again, Deny)
    assert again.code is DenyCode.NODE_NAME
