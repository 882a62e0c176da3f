"""Properties that hold for any input: nothing raises, and admission requires a credential.

A client controls all of ``connect_opts``, but not the fields set by nats-server (kind, TLS, nonce). So requests are
mutated and decided as if the server had signed them.
"""

from __future__ import annotations

import json
import random
import tracemalloc
from collections.abc import Callable
from typing import Any

import msgspec
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from broker_auth.callout.request import RequestReader, WireError
from broker_auth.operate.unsigned_tokens import UnsignedTokenVerifier
from broker_auth.policy.decide import decide
from broker_auth.policy.decision import Admit, Decision, Deny
from broker_auth.policy.model import Policy
from broker_auth.policy.outcomes import ADMITTED, outcomes
from broker_auth.policy.request import AuthorizationRequest
from broker_auth.tokens import verify
from broker_auth.tokens.verify import Rejected
from tests.builders.clock import DAY, HOUR, NOW
from tests.builders.peers import foreign_chain
from tests.builders.policies import PASSWORD, SYSTEM_PASSWORD, issuer_policy, x509_policy
from tests.builders.requests import SERVER, client, fleet, node, provisioner, request, server, system
from tests.builders.tokens import (
    CREATOR,
    FOREIGN,
    HOLDER,
    NONCE,
    ORG,
    Key,
    b64,
    client_claims,
    creator_claims,
    issued,
    ksuid,
    nonce_signature,
    org_issuer,
    provisioning_claims,
    rsa_key,
    server_claims,
    sign,
    sign_parts,
)
from tests.callout.test_request import read
from tests.policy.grants import NODE

POLICIES = (x509_policy(), issuer_policy())
VALID_TOKENS = (
    node().connect_opts.auth_token,
    sign(client_claims(permissions={"org_admin": True}), ORG),
    sign(server_claims(), ORG),
    sign(issued(client_claims()), CREATOR),
    sign(creator_claims(), ORG),
)

# --- (a) tokens

ALPHABET = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
SCALARS = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20)
ANYTHING = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4)
)
CLAIM_NAMES = sorted(
    {*client_claims(), *server_claims(), *provisioning_claims(), "permissions", "tcs", "issexp", "sub"}
)
ANY_CLAIMS = st.dictionaries(st.sampled_from(CLAIM_NAMES) | st.text(max_size=8), ANYTHING, max_size=8)


def assert_possible(decision: Decision, policy: Policy) -> None:
    """Check that metrics have a counter for the decision from the start."""
    code = decision.code if isinstance(decision, Deny) else ADMITTED
    assert (decision.rule, code) in outcomes(policy.serves)


def unaccepted(token: str) -> None:
    for policy in POLICIES:
        assert isinstance(policy.tokens.examine(token), Rejected)
        assert UnsignedTokenVerifier(policy.tokens.keys).examine(token) is not None


@given(st.text(max_size=400) | st.text(alphabet="eyJ.-_Aa0=+/{}\"'\\\ud800 \n", max_size=200))
@example("\ud800.\udfff.\ud800")
@example("a" * 20_000)
def test_arbitrary_text_is_rejected(text: str) -> None:
    unaccepted(text)


@given(st.binary(max_size=60), st.binary(max_size=200), st.binary(min_size=1, max_size=80))
def test_arbitrary_three_parts_are_rejected(header: bytes, claims: bytes, signature: bytes) -> None:
    unaccepted(f"{b64(header)}.{b64(claims)}.{b64(signature)}")
    unaccepted(sign_parts('{"alg":"EdDSA"}', claims, FOREIGN.signature))


@given(st.sampled_from([client_claims(), server_claims(), provisioning_claims(), issued(client_claims())]), ANY_CLAIMS)
def test_arbitrary_claims_by_untrusted_keys_are_rejected(claims: dict[str, Any], changes: dict[str, Any]) -> None:
    text = json.dumps(claims | changes)
    unaccepted(sign_parts('{"alg":"EdDSA"}', text, FOREIGN.signature))
    unaccepted(sign_parts('{"alg":"RS256"}', text, rsa_key("foreign").signature))


@given(st.sampled_from([client_claims(), server_claims()]), ANY_CLAIMS)
def test_arbitrary_claims_by_an_organization_do_not_raise(claims: dict[str, Any], changes: dict[str, Any]) -> None:
    """An issuer that signs nonsense must not stop the service."""
    token = sign_parts('{"alg":"EdDSA"}', json.dumps(claims | changes), ORG.signature)
    for policy in POLICIES:
        for asked in (request(auth_token=token, nonce=NONCE, sig=nonce_signature()), fleet(auth_token=token)):
            assert_possible(decide(asked, policy, NOW), policy)


@given(st.sampled_from(VALID_TOKENS), st.sampled_from(VALID_TOKENS), st.data())
def test_mutated_tokens_are_rejected(token: str, other: str, data: st.DataObject) -> None:
    start = data.draw(st.integers(0, len(token) - 1))
    end = data.draw(st.integers(start, min(start + 8, len(token))))
    chosen = data.draw(st.sampled_from(["cut", "flip", "splice", "write"]))
    mutated = {
        "cut": lambda: token[:start],
        "flip": lambda: token[:start] + chr(ord(token[start]) ^ 1 << data.draw(st.integers(0, 6))) + token[start + 1 :],
        "splice": lambda: token[:start] + other[start:],
        "write": lambda: token[:start] + data.draw(st.text(max_size=8)) + token[end:],
    }[chosen]()
    if mutated.strip(" \t\r\n\v\f") not in VALID_TOKENS:
        unaccepted(mutated)


# --- (b) tokens of a hostile chain issuer

AGE = 366 * DAY
MADE = st.integers(NOW - 3 * AGE, NOW + 2 * DAY) | st.sampled_from([NOW - AGE, NOW - AGE + 1, NOW, NOW + 1])
FAR = st.sampled_from([NOW + 1, NOW + HOUR, NOW + 10 * 365 * DAY, 253_402_300_799, 1e999, -1, None, "9"])
ISSUED_CHANGES = st.fixed_dictionaries({}, optional={"exp": FAR, "issexp": FAR, "nbf": FAR, "tcs": st.text(max_size=8)})


def creator_at(made: int) -> dict[str, Any]:
    return creator_claims(jti=ksuid(made, b"fedcba9876543210"), iat=made, nbf=made, exp=NOW + 10 * 365 * DAY)


def decided(token: str, key: Key = HOLDER) -> Admit | Deny:
    """Return the decision on a whole request, as nats-server would send it."""
    asked = request(auth_token=token, nonce=NONCE, sig=nonce_signature(key))
    return decide(read(RequestReader(None), SERVER.wire(asked)), POLICIES[1], NOW)


def bounded(decision: Admit | Deny, made: int) -> None:
    if isinstance(decision, Admit):
        assert NOW - AGE < made <= NOW
        assert decision.chain_issuer is not None
        assert decision.chain_issuer.issued == made
        assert decision.expires is not None
        assert decision.expires <= made + AGE


@given(MADE, st.sampled_from([client_claims, server_claims]), ISSUED_CHANGES, ANY_CLAIMS)
@example(NOW - AGE, client_claims, {"exp": NOW + 10 * 365 * DAY, "issexp": NOW + 10 * 365 * DAY}, {})
@example(NOW - AGE + 1, client_claims, {}, {"permissions": {"org_admin": True}})
def test_tokens_of_a_chain_issuer_end_with_its_age(
    made: int, build: Callable[..., dict[str, Any]], changes: dict[str, Any], more: dict[str, Any]
) -> None:
    """For any claims in a token whose signatures, also that of the chain, are valid."""
    claims = issued(build(), creator_token=creator_at(made)) | more | changes
    bounded(decided(sign(json.dumps(claims), CREATOR)), made)


@given(MADE, MADE, st.sampled_from(["iss", "jti", "both"]))
def test_chain_issuer_cannot_change_its_age(made: int, pretended: int, where: str) -> None:
    """The id of a younger issuer in ``iss``, or another ``jti`` in its own token, breaks the chain."""
    younger = ksuid(pretended, b"fedcba9876543210")
    claims = issued(client_claims(), creator_token=creator_at(made))
    if where in ("iss", "both"):
        claims |= {"iss": f"C-{younger}.{CREATOR.hex}"}
    if where in ("jti", "both"):
        claims |= {"jti": younger, "iat": pretended}
    decision = decided(sign(claims, CREATOR))
    if pretended != made or where != "iss":
        assert isinstance(decision, Deny)
    bounded(decision, made)


@given(MADE, ISSUED_CHANGES)
def test_token_of_a_chain_issuer_ends_with_its_age(made: int, changes: dict[str, Any]) -> None:
    bounded(decided(sign(json.dumps(creator_at(made) | changes), ORG), CREATOR), made)


@given(st.text(max_size=40) | st.text(alphabet=ALPHABET, min_size=27, max_size=27))
@example("z" * 27)
@example("0" * 27)
def test_creator_id_must_be_a_ksuid(creators_id: str) -> None:
    """Signed by the organization, so that the result depends only on the id."""
    parent = org_issuer(client_claims(jti=creators_id, public_key=CREATOR.hex))
    decision = decided(sign(issued(client_claims(), creator_token=parent), CREATOR))
    if isinstance(decision, Admit):
        assert len(creators_id) == 27
        assert set(creators_id) <= set(ALPHABET)


# --- (c) requests

PEERLESS = (
    node(),
    client(),
    client(ORG, {"permissions": {"org_admin": True, "system_user": True, "provisioner": True}}),
    server(),
    provisioner(chains=()),
    system(chains=()),
    request(),
)
FOREIGNERS = tuple(
    msgspec.structs.replace(asked, client_tls=fleet(chains=(foreign_chain(),)).client_tls) for asked in PEERLESS
)
OPTION_VALUES = st.text(max_size=40) | st.sampled_from(
    [*VALID_TOKENS, PASSWORD, SYSTEM_PASSWORD, "provisioner", "admin", nonce_signature(), nonce_signature(FOREIGN), ""]
)
ANY_OPTIONS = st.dictionaries(
    st.sampled_from(["jwt", "nkey", "sig", "auth_token", "user", "pass", "name", "lang"]), OPTION_VALUES, max_size=8
)


def credentials(asked: AuthorizationRequest, policy: Policy) -> set[str]:
    """Return the credentials that this request proves, derived from the tests' keys, not by the code under test."""
    options, proven = asked.connect_opts, set()
    token = options.auth_token.strip(" \t\r\n\v\f")
    signed = options.sig == nonce_signature() and asked.client_info.nonce == NONCE
    created = options.sig == nonce_signature(CREATOR) and asked.client_info.nonce == NONCE
    if token == VALID_TOKENS[0]:
        proven.add("provisioning token")
    if policy.issuer_mode:
        known = {*VALID_TOKENS[1:4], *(one.connect_opts.auth_token for one in PEERLESS[1:4])}
        if (token in known and signed) or (token == VALID_TOKENS[4] and created):
            proven.add("token and nonce")
    return proven


@given(st.sampled_from([*PEERLESS, *FOREIGNERS]), ANY_OPTIONS, st.sampled_from(POLICIES))
def test_without_mtls_admission_requires_a_token(
    asked: AuthorizationRequest, options: dict[str, Any], policy: Policy
) -> None:
    """For any CONNECT options, passwords included: without a verified peer or a valid token, it is denied."""
    changed = msgspec.to_builtins(asked)
    changed["connect_opts"] |= options
    mutated = msgspec.convert(changed, AuthorizationRequest)
    decision = decide(mutated, policy, NOW)
    assert_possible(decision, policy)
    if isinstance(decision, Deny):
        return
    proven = credentials(mutated, policy)
    if decision.account == "provisioning":
        # without mTLS nobody is the provisioner here (require_mtls), so an admitted connection is a waiting node
        assert "provisioning token" in proven
        assert set(decision.permissions.pub.allow) == NODE.publish
    else:
        assert "token and nonce" in proven
    if decision.account == "system":
        assert (mutated.connect_opts.user, mutated.connect_opts.password) == ("admin", SYSTEM_PASSWORD)


@given(ANY_OPTIONS, st.sampled_from(POLICIES))
def test_fleet_member_gets_nothing_more_by_its_connect_options(options: dict[str, Any], policy: Policy) -> None:
    changed = msgspec.to_builtins(fleet())
    changed["connect_opts"] |= options
    mutated = msgspec.convert(changed, AuthorizationRequest)
    decision = decide(mutated, policy, NOW)
    assert_possible(decision, policy)
    if isinstance(decision, Deny):
        return
    sent = mutated.connect_opts
    if decision.account == "provisioning":
        raise AssertionError("its certificate may not be the provisioner's, and it needs no provisioning token")
    if decision.account == "system":
        assert (sent.user, sent.password) == ("admin", SYSTEM_PASSWORD)
    elif not sent.auth_token:
        assert decision == decide(fleet(), policy, NOW)


WORDS = st.sampled_from(["Client", "Leafnode", "nats", "websocket", "mqtt", "", NONCE, "provisioner", "192.0.2.1"])
SHAPED = st.fixed_dictionaries(
    {
        "server_id": st.fixed_dictionaries({"id": st.just(SERVER.id)}),
        "user_nkey": st.text(max_size=10),
        "client_info": st.dictionaries(st.sampled_from(["host", "kind", "type", "nonce", "name"]), WORDS | ANYTHING),
        "connect_opts": ANY_OPTIONS | ANYTHING,
    },
    optional={
        "client_tls": ANYTHING
        | st.fixed_dictionaries(
            {"verified_chains": st.lists(st.lists(st.text(max_size=30), max_size=3), max_size=3) | ANYTHING}
        ),
        "type": ANYTHING,
        "version": ANYTHING,
    },
)


@given(SHAPED, st.sampled_from(POLICIES))
def test_request_like_input_is_decided_or_refused(shaped: dict[str, Any], policy: Policy) -> None:
    try:
        asked = msgspec.convert(shaped, AuthorizationRequest)
    except msgspec.ValidationError:
        return
    decision = decide(asked, policy, NOW)
    if isinstance(decision, Admit):
        assert credentials(asked, policy)


@given(SHAPED, ANYTHING)
def test_reader_raises_only_its_own_errors(shaped: dict[str, Any], extra: Any) -> None:
    reader = RequestReader(None)
    claims = {"iss": SERVER.id, "aud": "nats-authorization-request", "exp": NOW + 2, "nats": shaped, "x": extra}
    for body in (json.dumps(claims).encode(), json.dumps(extra).encode()):
        try:
            asked = read(reader, SERVER.sign(body))
        except WireError:
            continue
        assert isinstance(decide(asked, POLICIES[0], NOW), Admit | Deny)
    assert read(reader, SERVER.wire(node())) == SERVER.asks(node())


# --- (d) ten thousand messages


def noise(chosen: random.Random, valid: bytes) -> bytes:
    """Return a random message, or a valid one mutated."""
    made = bytearray(valid)
    match chosen.randrange(6):
        case 0:
            return chosen.randbytes(chosen.randrange(600))
        case 1:
            made[chosen.randrange(len(made))] ^= 1 << chosen.randrange(8)
        case 2:
            del made[chosen.randrange(len(made)) :]
        case 3:
            start = chosen.randrange(len(made))
            made[start : start + chosen.randrange(1, 64)] = chosen.randbytes(chosen.randrange(8))
        case 4:
            return bytes(made).replace(b".", chosen.choice([b"", b"..", b"=", b".x."]), chosen.randrange(1, 3))
        case 5:  # validly signed by the server, with an invalid credential
            name = chosen.randbytes(6).hex()
            token = sign_parts('{"alg":"EdDSA"}', f'{{"purpose":"{name * 8}"}}', lambda _: b"x")
            return SERVER.wire(request(auth_token=token, name=name, user=chosen.choice(["provisioner", name, name])))
    return bytes(made)


@pytest.mark.parametrize("made", [x509_policy, issuer_policy], ids=["x509", "issuer"])
def test_ten_thousand_messages_admit_nobody_and_do_not_grow_memory(
    made: Callable[[], Policy], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(verify, "REJECTED_CACHE", 64)  # small, so that growth beyond it is detected
    chosen = random.Random(11)  # noqa: S311 - reproducible, not secret
    policy, reader = made(), RequestReader(None)
    good = SERVER.wire(node())

    def send(count: int) -> int:
        denied = 0
        for _ in range(count):
            message = noise(chosen, good)
            if message == good:
                continue
            try:
                asked = read(reader, message)
            except WireError:
                continue
            assert isinstance(decide(asked, policy, NOW), Deny)
            denied += 1
        return denied

    denied = send(2_000)
    tracemalloc.start()
    before = tracemalloc.get_traced_memory()[0]
    denied += send(5_000)
    grown = tracemalloc.get_traced_memory()[0] - before
    tracemalloc.stop()
    denied += send(3_000)
    assert denied > 1_000  # the others were not valid requests
    assert grown < 120_000  # bytes; caching every token would take three times that
    assert isinstance(decide(read(reader, good), policy, NOW), Admit)
