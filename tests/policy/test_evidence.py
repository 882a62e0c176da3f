"""Evidence in records of the checks that a stored request cannot repeat (docs/policy.md#what-is-kept-of-a-decision)."""

from __future__ import annotations

import hashlib
from dataclasses import replace

import pytest
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from broker_auth.audit.record import encode, make_record
from broker_auth.policy.decide import decide
from broker_auth.policy.decision import NO_EVIDENCE, Evidence
from broker_auth.policy.model import Policy
from broker_auth.policy.request import AuthorizationRequest
from broker_auth.secret import Secret
from broker_auth.tokens.keys import ed25519_key, load_verification_key
from tests.builders import requests
from tests.builders.clock import HOUR, NOW
from tests.builders.policies import PASSWORD, changed, issuer_policy, x509_policy
from tests.builders.tokens import FOREIGN, ORG, Key, ec_key, provisioning_claims, provisioning_signer, sign

NEXT = "the next password"


def fingerprint(key: Key) -> str:
    der = key.private.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    return hashlib.sha256(der).hexdigest()


def rotating() -> Policy:
    return changed(x509_policy(), passwords=(Secret(NEXT), Secret(PASSWORD)))


EXPIRED = sign(provisioning_claims(exp=NOW - HOUR), provisioning_signer())
CASES = {
    "client": (requests.client(), issuer_policy(), Evidence(signer_key=fingerprint(ORG))),
    "node": (requests.node(), x509_policy(), Evidence(signer_key=fingerprint(provisioning_signer()))),
    "expired token": (requests.node(EXPIRED), x509_policy(), Evidence(signer_key=fingerprint(provisioning_signer()))),
    "current password": (requests.provisioner(password=NEXT), rotating(), Evidence(password="current")),
    "previous password": (requests.provisioner(), rotating(), Evidence(password="previous")),
    "password of an identity that is not allowed": (
        requests.provisioner(chains=requests.fleet().client_tls.verified_chains),  # type: ignore[union-attr]
        x509_policy(),
        Evidence(password="current"),
    ),
    "number of nodes": (
        requests.node(),
        changed(x509_policy(), gauge=requests.gauge(2)),
        Evidence(signer_key=fingerprint(provisioning_signer()), connections=2),
    ),
    "too many nodes": (
        requests.node(),
        changed(x509_policy(), gauge=requests.gauge(3)),
        Evidence(signer_key=fingerprint(provisioning_signer()), connections=3),
    ),
    "number of nodes of its token": (
        requests.node(sign(provisioning_claims(extensions={"broker-auth": {"max_nodes": 2}}), provisioning_signer())),
        x509_policy(),
        Evidence(signer_key=fingerprint(provisioning_signer()), counted="unknown"),
    ),
    "wrong password": (requests.provisioner(password="guess"), rotating(), NO_EVIDENCE),
    "no password": (requests.provisioner(password=""), rotating(), NO_EVIDENCE),
    "wrong signature": (requests.client(FOREIGN), issuer_policy(), NO_EVIDENCE),
    "fleet member": (requests.fleet(), x509_policy(), NO_EVIDENCE),
}


@pytest.mark.parametrize(("asked", "policy", "evidence"), CASES.values(), ids=CASES)
def test_evidence_of_a_decision(asked: AuthorizationRequest, policy: Policy, evidence: Evidence) -> None:
    decision = decide(asked, policy, NOW)
    assert decision.evidence == evidence
    kept = make_record(asked, decision, NOW, 1, with_request=True)
    assert (kept.evidence or NO_EVIDENCE) == evidence
    assert make_record(asked, decision, NOW, 1).evidence is None
    for secret in (PASSWORD, NEXT):
        assert secret.encode() not in encode(kept)
        assert hashlib.sha256(secret.encode()).hexdigest().encode() not in encode(kept)


def test_equal_passwords_count_as_the_current_one() -> None:
    policy = changed(x509_policy(), passwords=(Secret(PASSWORD), Secret(PASSWORD)))
    assert decide(requests.provisioner(), policy, NOW).evidence.password == "current"


@pytest.mark.parametrize("key", [ORG, provisioning_signer(), ec_key("a"), ec_key("b", 384)], ids=lambda key: key.name)
def test_fingerprint_is_that_of_the_public_key(key: Key) -> None:
    assert load_verification_key(key.public_pem, "x").fingerprint == fingerprint(key)


def test_fingerprint_of_a_key_in_hex_is_that_of_its_pem() -> None:
    assert ed25519_key(ORG.hex, "x").fingerprint == replace(ORG.verifies, name="x").fingerprint == fingerprint(ORG)
