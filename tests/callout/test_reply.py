"""Signed answers: exact claims, verified with the ``nkeys`` package."""

from __future__ import annotations

import base64
import json
from dataclasses import replace
from typing import Any

import msgspec
import nacl.bindings
import nkeys  # type: ignore[import-untyped]
import pytest

from broker_auth.callout.reply import Decided, ReplyWriter
from broker_auth.natsio.nkey import NkeyKind, decode_seed, generate_seed, public_nkey
from broker_auth.natsio.xkey import Sealer
from broker_auth.policy.decide import decide
from broker_auth.policy.decision import Admit, Decision, Deny, DenyCode, Rule
from broker_auth.policy.permissions import Permissions, SubjectPermission, restricted
from broker_auth.policy.request import AuthorizationRequest
from tests.builders.clock import HOUR, NOW
from tests.builders.policies import x509_policy
from tests.builders.requests import SERVER, USER_NKEY, Server, fleet, node
from tests.builders.tokens import ksuid

SEED = generate_seed(NkeyKind.ACCOUNT)
ISSUER = public_nkey(SEED)
SERVICE_SEED = bytes(range(32))
SERVICE = nacl.bindings.crypto_scalarmult_base(SERVICE_SEED)
WRITER = ReplyWriter(decode_seed(SEED, NkeyKind.ACCOUNT), None)
ADMIT = Admit(
    rule=Rule.CLIENT,
    account="choria",
    name="up=alice",
    permissions=restricted(["a"], ["b", "c"]),
    expires=NOW + HOUR,
    reason="client token",
    token_id="the id",
)
ASKED = SERVER.asks(node())


def opened(token: bytes | str, issuer: str = ISSUER) -> dict[str, Any]:
    """Verify the signature of a JWT with the issuer's key; return its claims."""
    text = token.encode() if isinstance(token, str) else token
    signed, _, signature = text.rpartition(b".")
    header, claims = signed.split(b".")
    assert json.loads(_decode(header)) == {"typ": "JWT", "alg": "ed25519-nkey"}
    assert nkeys.from_seed(SEED.encode()).public_key.decode() == issuer
    assert nkeys.from_seed(SEED.encode()).verify(signed, _decode(signature))
    decoded = json.loads(_decode(claims))
    assert isinstance(decoded, dict)
    return decoded


def _decode(part: bytes) -> bytes:
    assert b"=" not in part
    return base64.urlsafe_b64decode(part + b"=" * (-len(part) % 4))


def answer(decided: Decided, now: float, writer: ReplyWriter) -> bytes:
    writer.write([decided], now)
    return decided.answer


def admit(asked: AuthorizationRequest, admitted: Admit, now: float = NOW, writer: ReplyWriter = WRITER) -> bytes:
    """Return the answer to one request that is admitted."""
    return answer(Decided(asked, admitted), now, writer)


def deny(asked: AuthorizationRequest, code: DenyCode, writer: ReplyWriter = WRITER) -> bytes:
    """Return the answer to one request that is denied."""
    return answer(Decided(asked, Deny(rule=Rule.NONE, code=code, detail="for the log only")), NOW, writer)


def user(admitted: Admit, now: float = NOW, asked: AuthorizationRequest = ASKED) -> dict[str, Any]:
    """Return the claims of the user JWT in the answer."""
    return opened(opened(admit(asked, admitted, now))["nats"]["jwt"])


def test_issuer_is_the_account_key() -> None:
    assert WRITER.issuer == ISSUER
    assert ISSUER.startswith("A")


def test_admission_claims() -> None:
    answer = opened(admit(ASKED, ADMIT, NOW + 0.9))
    assert answer.pop("jti")
    jwt = answer["nats"].pop("jwt")
    assert answer == {
        "iat": NOW,
        "iss": ISSUER,
        "aud": SERVER.id,
        "sub": USER_NKEY,
        "nats": {"type": "authorization_response", "version": 2},
    }
    assert opened(jwt) == {
        "iat": NOW,
        "iss": ISSUER,
        "sub": USER_NKEY,
        "aud": "choria",
        "name": "up=alice",
        "exp": NOW + HOUR,
        "nats": {
            "pub": {"allow": ["a"]},
            "sub": {"allow": ["b", "c"]},
            "subs": -1,
            "data": -1,
            "payload": -1,
            "tags": ["rule:client", "token:the id"],
            "type": "user",
            "version": 2,
        },
    }


def test_denial_contains_the_phrase_and_no_user() -> None:
    answer = opened(deny(ASKED, DenyCode.NODE_NAME))
    assert answer.pop("jti")
    assert answer == {
        "iat": NOW,
        "iss": ISSUER,
        "aud": SERVER.id,
        "sub": USER_NKEY,
        "nats": {"type": "authorization_response", "version": 2, "error": "connection name not accepted"},
    }


@pytest.mark.parametrize(
    ("expires", "exp"), [(NOW + 10, NOW + 10), (NOW + 10.0, NOW + 10), (NOW + 10.999, NOW + 10), (NOW + 0.5, NOW)]
)
def test_session_never_outlives_its_credential(expires: float, exp: int) -> None:
    written = user(msgspec.structs.replace(ADMIT, expires=expires))["exp"]
    assert written == exp
    assert isinstance(written, int)


def test_unlimited_session_has_no_exp() -> None:
    assert "exp" not in user(msgspec.structs.replace(ADMIT, expires=None))


def test_permissions_are_encoded_unchanged() -> None:
    denied = Permissions(SubjectPermission(allow=(">",), deny=("x", "y")), SubjectPermission(deny=(">",)))
    written = user(msgspec.structs.replace(ADMIT, permissions=denied))["nats"]
    assert written["pub"] == {"allow": [">"], "deny": ["x", "y"]}
    assert written["sub"] == {"deny": [">"]}


def test_unrestricted_permissions_are_encoded_empty() -> None:
    admitted = decide(fleet(), x509_policy(), NOW)
    assert isinstance(admitted, Admit)
    written = user(admitted)
    assert written["nats"]["pub"] == written["nats"]["sub"] == {}
    assert written["nats"]["tags"] == ["rule:verified_tls"]


def test_node_is_placed_in_the_provisioning_account() -> None:
    policy = x509_policy()
    policy = replace(policy, accounts=replace(policy.accounts, provisioning="PROV"))
    admitted = decide(node(), policy, NOW)
    assert isinstance(admitted, Admit)
    written = user(admitted)
    assert written["aud"] == "PROV"
    assert written["name"] == "new1.example.net"
    assert written["exp"] == NOW + HOUR
    assert written["nats"]["tags"] == ["rule:provisioning", f"token:{ksuid()}"]
    assert "provisioning.node.new1.example.net" in written["nats"]["sub"]["allow"]


@pytest.mark.parametrize("name", ['a"b', "a\\b", "a\nb", "</script>", "ünï\u2028", "\0"])
def test_unusual_names_are_encoded_unchanged(name: str) -> None:
    assert user(msgspec.structs.replace(ADMIT, name=name))["name"] == name


def test_every_answer_has_a_unique_id() -> None:
    assert len({opened(deny(ASKED, DenyCode.NODE_NAME))["jti"] for _ in range(20)}) == 20


def test_answer_is_for_the_requesting_server() -> None:
    other = Server()
    asked = msgspec.structs.replace(other.asks(node()), user_nkey=public_nkey(generate_seed(NkeyKind.USER)))
    answer = opened(admit(asked, ADMIT, NOW))
    assert (answer["aud"], answer["sub"]) == (other.id, asked.user_nkey)
    assert opened(answer["nats"]["jwt"])["sub"] == asked.user_nkey


def test_answers_keep_the_order_of_requests() -> None:
    """Admissions are signed twice, denials once; signatures must not be mixed up between answers."""
    asked = [msgspec.structs.replace(ASKED, user_nkey=public_nkey(generate_seed(NkeyKind.USER))) for _ in range(5)]
    refused = Deny(rule=Rule.NONE, code=DenyCode.NODE_NAME, detail="")
    decisions: list[Decision] = [
        msgspec.structs.replace(ADMIT, name="first"),
        refused,
        msgspec.structs.replace(ADMIT, name="second"),
        msgspec.structs.replace(ADMIT, name="third"),
        refused,
    ]
    batch = [Decided(request, decision) for request, decision in zip(asked, decisions, strict=True)]
    WRITER.write(batch, NOW)
    answers = [opened(decided.answer) for decided in batch]
    assert [answer["sub"] for answer in answers] == [request.user_nkey for request in asked]
    users = [opened(answer["nats"]["jwt"]) if "jwt" in answer["nats"] else None for answer in answers]
    assert [claims and claims["name"] for claims in users] == ["first", None, "second", "third", None]
    assert [claims and claims["sub"] for claims in users] == [
        answer["sub"] if claims else None for answer, claims in zip(answers, users, strict=True)
    ]


def test_sealed_answer_is_opened_only_by_the_requesting_server() -> None:
    writer = ReplyWriter(decode_seed(SEED, NkeyKind.ACCOUNT), Sealer(SERVICE_SEED))
    asked = SERVER.asks(node(), sealed=True)
    for sealed in (admit(asked, ADMIT, writer=writer), deny(asked, DenyCode.NODE_NAME, writer)):
        answer = opened(SERVER.open(sealed, SERVICE))
        assert answer["aud"] == SERVER.id
        assert b"eyJ" not in sealed
        with pytest.raises(nacl.exceptions.CryptoError):
            Server().open(sealed, SERVICE)
