"""Every reason occurs in some row of some table; and the part of it that is sent to nats-server."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from typing import get_args

import pytest

from broker_auth.policy.decide import decide, explained
from broker_auth.policy.decision import PHRASES, Admit, Code, Deny, DenyCode, Rule
from broker_auth.policy.model import Serves
from broker_auth.policy.outcomes import ADMITTED, outcomes
from broker_auth.tokens.faults import TokenFault
from tests.builders.clock import NOW
from tests.builders.policies import PASSWORD, issuer_policy, x509_policy
from tests.builders.requests import fleet, node, presenting, provisioner, request
from tests.policy import (
    test_bounds,
    test_chain_issuer_age,
    test_counting,
    test_crls,
    test_edge,
    test_gate,
    test_permissions,
    test_revocation_index,
    test_rule0_connection,
    test_rule1_provisioner,
    test_rule2_system,
    test_rule3_token,
    test_rule4_verified_tls,
)
from tests.policy.table import TOKEN_ID, codes
from tests.tokens import test_chain, test_jws

MODULES = (
    test_bounds,
    test_counting,
    test_edge,
    test_gate,
    test_rule0_connection,
    test_rule1_provisioner,
    test_rule2_system,
    test_rule3_token,
    test_rule4_verified_tls,
    test_permissions,
    test_chain_issuer_age,
    test_revocation_index,
    test_crls,
)
TABLES = [table for module in MODULES for table in module.TABLES]
BAD_TOKENS = {**test_jws.REJECTED, **test_chain.REJECTED}
ALL: tuple[Code, ...] = (*DenyCode, *TokenFault)
OF_THE_SERVICE = {DenyCode.INTERNAL_ERROR}  # used by the service if a decision fails


def test_every_code_occurs_in_some_row() -> None:
    assert set(get_args(Code)) == {DenyCode, TokenFault}
    tested = codes(TABLES) | {fault for _, fault in BAD_TOKENS.values()}
    assert set(ALL) - tested == OF_THE_SERVICE


def test_possible_outcomes_have_every_code() -> None:
    """Each row of the tables checks that its outcome is among them, and so do the mutated requests."""
    assert {code for serves in Serves for _, code in outcomes(serves)} == {*map(str, ALL), ADMITTED}
    assert {rule for serves in Serves for rule, _ in outcomes(serves)} == set(map(str, Rule))
    assert all(len(outcomes(serves)) < 256 for serves in Serves)  # each is a time series of every zone


def test_every_rule_admits_or_denies_in_some_row() -> None:
    assert {row.rule for table in TABLES for row in table.values()} == set(Rule)


@pytest.mark.parametrize("mode", ["x509", "issuer"])
def test_bad_token_is_denied_with_any_other_credentials(mode: str) -> None:
    """By rule 3 in every mode, also on verified TLS."""
    policy = {"x509": x509_policy, "issuer": issuer_policy}[mode]()
    for token, _ in BAD_TOKENS.values():
        if not token:
            continue  # without a token, rule 4 decides
        for asked in (presenting(token), presenting(token, chains=fleet().client_tls.verified_chains)):  # type: ignore[union-attr]
            decision = decide(asked, policy, NOW)
            assert isinstance(decision, Deny)
            assert decision.rule.number == 3


def test_the_fault_of_a_token_is_the_code_of_the_denial() -> None:
    policy = x509_policy()
    for token, fault in test_jws.REJECTED.values():
        if token:
            decision = decide(presenting(token), policy, NOW)
            assert isinstance(decision, Deny)
            assert decision.code is fault


def test_codes_are_unique_texts() -> None:
    assert len({code.value for code in ALL}) == len(ALL)


def test_phrases_are_few_and_independent_of_the_request() -> None:
    phrases = {Deny(rule=Rule.NONE, code=code, detail="the detail").phrase for code in ALL}
    assert len(phrases) <= 12
    assert phrases == {*PHRASES.values(), "token not accepted"}
    assert all(phrase.isascii() and len(phrase) < 48 and "%" not in phrase for phrase in phrases)


def test_a_denial_shows_no_secret() -> None:
    token = node().connect_opts.auth_token
    for asked in (
        provisioner(password="hunter2"),
        provisioner(chains=(), password=PASSWORD),
        request(user="x", password="hunter2"),
        presenting(token + "x", password="hunter2"),
    ):
        decision = decide(asked, x509_policy(), NOW)
        assert isinstance(decision, Deny)
        shown = f"{decision!r} {explained(decision)} {asked.connect_opts!r}"
        for secret in ("hunter2", PASSWORD, token, token.split(".")[2]):
            assert secret not in shown


def test_denial_records_the_token_id() -> None:
    decision = decide(node(name="a b"), x509_policy(), NOW)
    assert isinstance(decision, Deny)
    assert decision.token_id == TOKEN_ID
    assert explained(decision) == f"node_name: {decision.detail}"


def test_decision_is_deterministic() -> None:
    policy = issuer_policy()
    for table in test_rule3_token.TABLES:
        for row in table.values():
            first, second = (decide(row.request, row.policy, row.now) for _ in range(2))
            assert first == second
    fresh = decide(fleet(), replace(policy), NOW)
    assert isinstance(fresh, Admit)
    assert explained(fresh) == fresh.reason


def test_rule_numbers_match_the_documentation() -> None:
    numbers = {rule.value: rule.number for rule in Rule}
    assert numbers == {
        "connection": 0,
        "provisioner": 1,
        "system": 2,
        "client": 3,
        "server": 3,
        "provisioning": 3,
        "token": 3,
        "verified_tls": 4,
        "none": 5,
    }


@pytest.mark.parametrize("module", ["broker_auth.policy.decide", "broker_auth.tokens.verify"])
def test_core_loads_no_io_modules(module: str) -> None:
    """It does not load NATS, an event loop or sockets."""
    program = f"import sys, {module}; print(*sorted({{'nats', 'asyncio', 'uvloop', 'aiohttp'}} & set(sys.modules)))"
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert ended.stdout.strip() == ""
