"""The accepted format of tokens: strict, bounded, and the result is always Verified or Rejected."""

from __future__ import annotations

import json
import time

import pytest

from broker_auth.tokens.claims import Purpose
from broker_auth.tokens.faults import TokenFault
from broker_auth.tokens.jws import MAX_DEPTH, MAX_TOKEN_BYTES
from broker_auth.tokens.verify import Rejected, TokenVerifier, TrustedKeys, Verified
from tests.builders.tokens import CLIENT_SIGNER, b64, client_claims, sign, sign_parts, unb64

F = TokenFault
HEAD = '{"alg":"EdDSA"}'


def examine(token: str) -> Verified | Rejected:
    return TokenVerifier(TrustedKeys(issuers={}, client=(CLIENT_SIGNER.verifies,))).examine(token)


def signed(claims: str | bytes, header: str | bytes = HEAD) -> str:
    """Return a token of this text with a valid signature, so that only the text can be wrong."""
    return sign_parts(header, claims, CLIENT_SIGNER.signature)


def with_claim(text: str) -> str:
    """Return a valid token whose JSON claims end in this text."""
    return signed(json.dumps(client_claims())[:-1] + "," + text + "}")


def nested(levels: int) -> str:
    """Return a valid token whose deepest value is nested in ``levels`` objects and arrays."""
    return with_claim('"x":' + "[" * (levels - 1) + "]" * (levels - 1))


def padded(size: int) -> str:
    """Return a valid token of exactly ``size`` bytes."""
    for spaces in range(3):  # in the header, because base64 of the claims alone does not reach every size
        header = HEAD + " " * spaces
        claims = json.dumps(client_claims())
        claims += " " * ((size - len(signed(claims, header))) * 3 // 4 - 2)
        for _ in range(4):
            claims += " "
            if len(token := signed(claims, header)) == size:
                return token
    raise AssertionError("no token of this size")


def replaced(part: int, text: str) -> str:
    parts = sign(client_claims(), CLIENT_SIGNER).split(".")
    parts[part] = text
    return ".".join(parts)


VALID = sign(client_claims(), CLIENT_SIGNER)
HEADER, CLAIMS, SIGNATURE = VALID.split(".")
HUGE = "9" * 400  # beyond the range of floats

ACCEPTED = {
    "as signed": VALID,
    "surrounded by white space": f" \t\r\n{VALID}\n",
    "exactly 16 KiB": padded(MAX_TOKEN_BYTES),
    "exactly 16 KiB and a newline": padded(MAX_TOKEN_BYTES) + "\n",
    "16 deep": nested(MAX_DEPTH),
    "many brackets, not deep": with_claim('"x":' + json.dumps([[]] * 40)),
    "brackets in a string": with_claim('"x":' + json.dumps("[{" * 40 + '\\"' + "[" * 40)),
    "an unknown claim": with_claim('"x":1e300'),
    "null claims": with_claim('"nbf ":null,"issexp":null,"tcs":null,"pub_subjects":null'),
    "null permissions": sign(client_claims(permissions={"org_admin": None}), CLIENT_SIGNER),
    "float times": sign(client_claims(exp=1_800_000_100.5), CLIENT_SIGNER),
    "keys named by the header": sign(
        client_claims(), CLIENT_SIGNER, header={"jwk": {"kty": "oct"}, "kid": "../x", "x5c": ["!"], "jku": 1, "x5u": 2}
    ),
}


@pytest.mark.parametrize("token", ACCEPTED.values(), ids=ACCEPTED)
def test_accepted(token: str) -> None:
    assert isinstance(examine(token), Verified)


REJECTED: dict[str, tuple[str, TokenFault]] = {
    "one byte over 16 KiB": (padded(MAX_TOKEN_BYTES + 1), F.TOO_LARGE),
    "much over 16 KiB": ("x" * 10**6, F.TOO_LARGE),
    "white space over all bounds": (VALID + " " * 20_000, F.TOO_LARGE),
    "17 deep": (nested(MAX_DEPTH + 1), F.TOO_DEEP),
    "17 deep in the header": (signed("{}", '{"alg":"EdDSA","x":' + "[" * 16 + "]" * 16 + "}"), F.TOO_DEEP),
    "unclosed brackets": (signed("[" * 11_000), F.TOO_DEEP),
    "empty": ("", F.NOT_COMPACT),
    "two parts": (f"{HEADER}.{CLAIMS}", F.NOT_COMPACT),
    "four parts": (f"{VALID}.{SIGNATURE}", F.NOT_COMPACT),
    "no header": (f".{CLAIMS}.{SIGNATURE}", F.NOT_COMPACT),
    "no claims": (f"{HEADER}..{SIGNATURE}", F.NOT_COMPACT),
    "no signature": (f"{HEADER}.{CLAIMS}.", F.NOT_COMPACT),
    "Unicode white space around": (f"\u2003{VALID}", F.ENCODING),
    "white space within": (f"{HEADER}.{CLAIMS[:8]}\n{CLAIMS[8:]}.{SIGNATURE}", F.ENCODING),
    "padding": (replaced(0, b64(b'{"alg":"EdDSA" }') + "=="), F.ENCODING),
    "padded signature": (f"{VALID}==", F.ENCODING),
    "base64, not base64url": (replaced(2, "+/" + SIGNATURE[2:]), F.ENCODING),
    "impossible length": (replaced(2, SIGNATURE[:-1]), F.ENCODING),
    "not canonical": (VALID[:-1] + chr(ord(VALID[-1]) + 1), F.ENCODING),
    "foreign characters": (replaced(2, "é" + SIGNATURE[1:]), F.ENCODING),
    "lone surrogate in the text": (replaced(2, "\ud800" + SIGNATURE[1:]), F.ENCODING),
    "crit": (sign(client_claims(), CLIENT_SIGNER, header={"crit": ["exp"], "exp": 1}), F.CRITICAL_HEADER),
    "empty crit": (sign(client_claims(), CLIENT_SIGNER, header={"crit": []}), F.CRITICAL_HEADER),
    "null crit": (sign(client_claims(), CLIENT_SIGNER, header={"crit": None}), F.CRITICAL_HEADER),
    "no alg": (signed("{}", '{"typ":"JWT"}'), F.HEADER),
    "alg a list": (signed("{}", '{"alg":["EdDSA"]}'), F.HEADER),
    "header an array": (signed("{}", '["alg"]'), F.NOT_JSON),
    "claims an array": (signed("[]"), F.NOT_JSON),
    "claims a string": (signed('"x"'), F.NOT_JSON),
    "not JSON": (signed("{x}"), F.NOT_JSON),
    "trailing text": (signed("{} {}"), F.NOT_JSON),
    "BOM": (signed(b"\xef\xbb\xbf{}"), F.NOT_JSON),
    "UTF-16": (signed("{}".encode("utf-16")), F.NOT_JSON),
    "not UTF-8": (signed(b'{"x":"\xff"}'), F.NOT_JSON),
    "encoded surrogate": (signed(b'{"x":"\xed\xa0\x80"}'), F.NOT_JSON),
    "lone surrogate": (with_claim(r'"x":"\ud800"'), F.NOT_JSON),
    "lone surrogate in a name": (with_claim(r'"\udfff":1'), F.NOT_JSON),
    "NaN": (with_claim('"x":NaN'), F.NOT_JSON),
    "Infinity": (with_claim('"x":-Infinity'), F.NOT_JSON),
    "integer beyond Python's": (with_claim('"x":' + "9" * 5000), F.NOT_JSON),
    "duplicate claim": (with_claim('"callerid":"up=root"'), F.DUPLICATE_CLAIM),
    "duplicate spelled differently": (with_claim(r'"caller\u0069d":"up=root"'), F.DUPLICATE_CLAIM),
    "duplicate below": (with_claim('"x":[{"y":{"z":1,"z":1}}]'), F.DUPLICATE_CLAIM),
    "duplicate in the header": (signed("{}", '{"alg":"EdDSA","alg":"none"}'), F.DUPLICATE_CLAIM),
    "no purpose": (signed("{}"), F.PURPOSE),
    "unknown purpose": (signed('{"purpose":"choria_admin"}'), F.PURPOSE),
    "purpose a list": (signed('{"purpose":["choria_client_id"]}'), F.PURPOSE),
    "purpose a huge integer": (signed('{"purpose":' + "9" * 4000 + "}"), F.PURPOSE),
    "purpose in another case": (signed('{"purpose":"Choria_Client_ID"}'), F.PURPOSE),
    "sub names a client": (signed('{"sub":"choria_client_id"}'), F.PURPOSE),
}
TIMES = ("exp", "nbf", "iat", "issexp")
NO_TIMES = ("true", "false", '"1900000000"', "[]", "{}", "1e999", "-1e999", HUGE, f"-{HUGE}", "253402300800")
for claim in TIMES:
    for value in NO_TIMES:
        claims_text = json.dumps(client_claims(**{claim: "@"})).replace('"@"', value)
        REJECTED[f"{claim} {value[:12]}{len(value)}"] = (signed(claims_text), F.CLAIM_TYPE)
WRONG_TYPES: dict[str, object] = {
    "callerid": 1,
    "ou": ["choria"],
    "jti": 5,
    "public_key": {},
    "permissions": [],
    "pub_subjects": "x",
    "sub_subjects": [None],
    "iss": True,
    "tcs": 0,
}
for claim, wrong in WRONG_TYPES.items():
    REJECTED[f"{claim} of a wrong type"] = (sign(client_claims(**{claim: wrong}), CLIENT_SIGNER), F.CLAIM_TYPE)
NO_FLAGS: tuple[object, ...] = (1, "true", [])
for flag in NO_FLAGS:
    token = sign(client_claims(permissions={"org_admin": flag}), CLIENT_SIGNER)
    REJECTED[f"permission {flag!r}"] = (token, F.CLAIM_TYPE)


@pytest.mark.parametrize(("token", "fault"), REJECTED.values(), ids=REJECTED)
def test_invalid_request_is_rejected(token: str, fault: TokenFault) -> None:
    examined = examine(token)
    assert isinstance(examined, Rejected)
    assert examined.fault is fault
    assert len(examined.detail) < 2000  # it is cached and logged


@pytest.mark.parametrize("purpose", [None, ""])
def test_sub_names_a_provisioning_token_only_where_purpose_does_not(purpose: object) -> None:
    token = sign({"purpose": purpose, "sub": "choria_provisioning"}, CLIENT_SIGNER)
    assert examine(token).purpose is Purpose.PROVISIONING
    claims = client_claims(sub="choria_provisioning")
    assert examine(sign(claims, CLIENT_SIGNER)).purpose is Purpose.CLIENT


@pytest.mark.parametrize(
    "claims",
    ["{" * 17 + '"' + '\\"' * 5900, "{" * 17 + '"' * 11_900, "[" * 16 + '["' + "\\\\" * 5900, "{" * 17 + "\\" * 11_000],
    ids=["escaped quotes", "quotes", "backslashes", "backslashes outside"],
)
def test_parsing_cost_is_bounded_by_the_size(claims: str) -> None:
    token = signed(claims)
    began = time.process_time()
    assert isinstance(examine(token), Rejected)
    assert time.process_time() - began < 0.1  # linear time is about a millisecond, quadratic half a second


def test_rejected_texts_verify_without_their_fault() -> None:
    parts = with_claim('"x":1').split(".")
    assert json.loads(unb64(parts[1]))["x"] == 1
    assert isinstance(examine(".".join(parts)), Verified)
