"""Who is answered first, and who not at all, when more ask than can be answered."""

from __future__ import annotations

import pytest

from broker_auth.callout.backlog import Backlog
from broker_auth.policy.model import Policy
from broker_auth.policy.request import AuthorizationRequest
from broker_auth.policy.urgency import Urgency, urgency
from tests.builders import policies, requests, tokens
from tests.builders.clock import HOUR, NOW
from tests.builders.peers import fleet_chain


def _drained(backlog: Backlog[str]) -> list[str]:
    return backlog.take(len(backlog) + 1)


def test_the_urgent_go_first_and_the_oldest_of_them_before_the_others() -> None:
    backlog: Backlog[str] = Backlog()
    for item, kind in (
        ("refused", Urgency.REFUSED),
        ("node 1", Urgency.NODE),
        ("unknown", Urgency.UNKNOWN),
        ("fleet 1", Urgency.FLEET),
        ("node 2", Urgency.NODE),
        ("fleet 2", Urgency.FLEET),
    ):
        assert backlog.put(item, kind) == []
    assert len(backlog) == 6
    assert _drained(backlog) == ["fleet 1", "fleet 2", "node 1", "node 2", "unknown", "refused"]
    assert len(backlog) == 0


def test_no_more_are_taken_than_asked_for() -> None:
    backlog: Backlog[str] = Backlog()
    for item, kind in (("node 1", Urgency.NODE), ("node 2", Urgency.NODE), ("fleet", Urgency.FLEET)):
        backlog.put(item, kind)
    assert backlog.take(2) == ["fleet", "node 1"]
    assert backlog.take(2) == ["node 2"]
    assert backlog.take(2) == []


def test_without_room_the_oldest_of_the_least_urgent_goes() -> None:
    backlog: Backlog[str] = Backlog(capacity=3)
    backlog.put("refused 1", Urgency.REFUSED)
    backlog.put("refused 2", Urgency.REFUSED)
    backlog.put("node 1", Urgency.NODE)
    assert backlog.put("fleet 1", Urgency.FLEET) == ["refused 1"]
    assert backlog.put("refused 3", Urgency.REFUSED) == ["refused 2"]
    assert backlog.put("node 2", Urgency.NODE) == ["refused 3"]
    assert backlog.put("unknown", Urgency.UNKNOWN) == ["unknown"], "all that waits is more urgent"
    assert _drained(backlog) == ["fleet 1", "node 1", "node 2"]


def test_of_one_kind_the_newest_have_the_best_chance_to_be_in_time() -> None:
    backlog: Backlog[str] = Backlog(capacity=2)
    assert [backlog.put(str(number), Urgency.UNKNOWN) for number in range(4)] == [[], [], ["0"], ["1"]]
    assert _drained(backlog) == ["2", "3"]


def test_bytes_are_bounded_too_and_large_requests_push_out_no_more_urgent_ones() -> None:
    backlog: Backlog[str] = Backlog(max_bytes=100)
    backlog.put("fleet", Urgency.FLEET, 30)
    backlog.put("node 1", Urgency.NODE, 30)
    backlog.put("node 2", Urgency.NODE, 30)
    assert backlog.put("large node", Urgency.NODE, 60) == ["node 1", "node 2"]
    assert backlog.put("larger node", Urgency.NODE, 80) == ["large node", "larger node"]
    assert _drained(backlog) == ["fleet"]
    assert backlog.put("alone, however large", Urgency.UNKNOWN, 1000) == []
    assert _drained(backlog) == ["alone, however large"]
    assert [backlog.put(str(number), Urgency.NODE, 50) for number in range(3)] == [[], [], ["0"]]


def _known(request: AuthorizationRequest, policy: Policy) -> AuthorizationRequest:
    policy.tokens.examine(request.connect_opts.auth_token)
    return request


PROVISIONING = tokens.sign(tokens.provisioning_claims(), tokens.provisioning_signer())
FOREIGN = tokens.sign(tokens.provisioning_claims(), tokens.FOREIGN)


@pytest.mark.parametrize(
    ("request_", "seen", "expected"),
    [
        pytest.param(requests.fleet(), False, Urgency.FLEET, id="certificate"),
        pytest.param(requests.provisioner(), False, Urgency.FLEET, id="provisioner"),
        pytest.param(requests.node(FOREIGN, chains=(fleet_chain(),)), True, Urgency.FLEET, id="certificate, bad token"),
        pytest.param(requests.server(), True, Urgency.TOKEN, id="server token known good"),
        pytest.param(requests.client(), True, Urgency.TOKEN, id="client token known good"),
        pytest.param(requests.server(), False, Urgency.UNKNOWN, id="server token never seen"),
        pytest.param(requests.node(PROVISIONING), True, Urgency.NODE, id="provisioning token known good"),
        pytest.param(requests.node(PROVISIONING), False, Urgency.UNKNOWN, id="provisioning token never seen"),
        pytest.param(requests.node(FOREIGN), True, Urgency.REFUSED, id="known bad"),
        pytest.param(requests.node(FOREIGN), False, Urgency.UNKNOWN, id="bad, never seen"),
        pytest.param(requests.request(), False, Urgency.UNKNOWN, id="no credential"),
        pytest.param(requests.node("x" * 20_000), True, Urgency.UNKNOWN, id="too large to be remembered"),
        pytest.param(requests.request(tls=None), False, Urgency.UNKNOWN, id="no TLS"),
    ],
)
def test_urgency(request_: AuthorizationRequest, seen: bool, expected: Urgency) -> None:
    policy = policies.issuer_policy()
    if seen:
        _known(request_, policy)
    assert urgency(request_, policy.tokens, NOW) is expected


def test_a_token_that_expired_since_is_no_longer_urgent() -> None:
    policy = policies.issuer_policy()
    request = _known(requests.server(), policy)
    assert urgency(request, policy.tokens, NOW + HOUR - 1) is Urgency.TOKEN
    assert urgency(request, policy.tokens, NOW + HOUR) is Urgency.REFUSED


def test_telling_the_urgency_verifies_nothing() -> None:
    """A flood of new tokens must not buy signature checks before their turn."""
    policy = policies.issuer_policy()
    urgency(requests.node(PROVISIONING), policy.tokens, NOW)
    assert policy.tokens.recall(PROVISIONING) is None
