"""Which records store their request (``plugin.broker_auth.audit.requests``)."""

from __future__ import annotations

import pytest

from broker_auth.callout.sampling import SAMPLE_SECONDS, RequestSampler
from broker_auth.policy.decide import decide
from broker_auth.policy.model import Policy
from broker_auth.policy.request import AuthorizationRequest
from broker_auth.settings.model import StoredRequests
from tests.builders import requests
from tests.builders.clock import NOW
from tests.builders.peers import fleet_chain
from tests.builders.policies import x509_policy
from tests.builders.tokens import provisioning_claims, provisioning_signer, sign


def stores(sampler: RequestSampler, request: AuthorizationRequest, now: float = NOW) -> bool:
    return sampler.stores(request, decide(request, POLICY, NOW), now)


POLICY: Policy = x509_policy()
WRONG = requests.provisioner(password="guess")


@pytest.mark.parametrize(("stored", "expected"), [(StoredRequests.ALL, True), (StoredRequests.NONE, False)])
def test_all_or_none(stored: StoredRequests, expected: bool) -> None:
    sampler = RequestSampler(stored)
    assert [stores(sampler, request) for request in (requests.fleet(), requests.fleet(), WRONG)] == [expected] * 3


def test_sample_holds_every_denial() -> None:
    sampler = RequestSampler(StoredRequests.SAMPLE)
    assert all(stores(sampler, WRONG) for _ in range(3))


def test_sample_holds_one_admission_an_hour() -> None:
    sampler = RequestSampler(StoredRequests.SAMPLE)
    times = [0.0, 1.0, SAMPLE_SECONDS - 1, SAMPLE_SECONDS, SAMPLE_SECONDS + 1]
    assert [stores(sampler, requests.fleet(), NOW + time) for time in times] == [True, False, False, True, False]


def test_sample_survives_a_clock_set_back() -> None:
    sampler = RequestSampler(StoredRequests.SAMPLE)
    assert stores(sampler, requests.fleet())
    assert stores(sampler, requests.fleet(), NOW - 10)


@pytest.mark.parametrize(
    ("first", "second"),
    [
        (requests.fleet(), requests.fleet(chains=(fleet_chain("other.example.net"),))),
        (requests.fleet(), requests.fleet(host="192.0.2.77")),
        (requests.fleet(), requests.provisioner()),
        (requests.node(), requests.node(sign(provisioning_claims(jti="another"), provisioning_signer()))),
        (requests.node(), requests.node(name="new2.example.net")),
    ],
    ids=["identity", "address", "rule", "token", "node"],
)
def test_sample_holds_each_that_can_be_decided_differently(
    first: AuthorizationRequest, second: AuthorizationRequest
) -> None:
    sampler = RequestSampler(StoredRequests.SAMPLE)
    assert [stores(sampler, request) for request in (first, second, first, second)] == [True, True, False, False]
