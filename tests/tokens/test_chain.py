"""Trust chains: each link broken separately, each with its own reason."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from broker_auth.tokens.claims import Purpose
from broker_auth.tokens.faults import TokenFault
from broker_auth.tokens.verify import Rejected, TokenVerifier, TrustedKeys, Verified
from tests.builders.clock import HOUR, NOW
from tests.builders.tokens import (
    ABSENT,
    CREATOR,
    FOREIGN,
    HOLDER,
    ORG,
    ORGANIZATION,
    Claims,
    Key,
    client_claims,
    creator_claims,
    ed25519_key,
    issued,
    ksuid,
    org_issuer,
    provisioning_claims,
    rsa_key,
    server_claims,
    sign,
)

F = TokenFault
OTHER_ORG = ed25519_key("other organization")
VERIFIER = TokenVerifier(TrustedKeys(issuers={"choria": ORG.verifies, "other": OTHER_ORG.verifies}))
ISSUER = creator_claims()
CHAINED = issued(client_claims())
TCS, OWN = CHAINED["tcs"].split(".")
CREATOR_JTI = ISSUER["jti"]


def issuer(key: Key = ORG, **changes: Any) -> str:
    """Return a chain issuer's token, changed after its ``tcs`` was made."""
    return _signed(ISSUER, changes, key)


def chained(key: Key = CREATOR, **changes: Any) -> str:
    """Return a token issued by a chain issuer, changed after its ``tcs`` was made."""
    return _signed(CHAINED, changes, key)


def _signed(claims: Claims, changes: Claims, key: Key) -> str:
    return sign({name: value for name, value in (claims | changes).items() if value is not ABSENT}, key)


def tcs_by(org: Key, creator: Key, jti: str = "", parent: Claims = ISSUER) -> str:
    """Return a trust chain signature by these two keys."""
    first = org.signature(f"{parent['jti']}.{parent['public_key']}".encode()).hex()
    second = creator.signature(f"{jti or CHAINED['jti']}.{first}".encode()).hex()
    return f"{first}.{second}"


def server_issuer() -> str:
    return sign(org_issuer(server_claims()), ORG)


ACCEPTED: dict[str, tuple[str, str]] = {
    "issuer": (issuer(), "organization"),
    "issuer that is a server": (server_issuer(), "organization"),
    "chained client": (chained(), f"organization via {CREATOR_JTI}"),
    "chained server": (sign(issued(server_claims()), CREATOR), f"organization via {CREATOR_JTI}"),
    "creator's key in capitals": (
        chained(iss=f"C-{CREATOR_JTI}.{CREATOR.hex.upper()}"),
        f"organization via {CREATOR_JTI}",
    ),
    "issuer's signature in capitals": (issuer(tcs=TCS.upper()), "organization"),
    "made at another time than now": (
        _signed(issued(client_claims(jti=ksuid(NOW - HOUR), iat=NOW - HOUR)), {}, CREATOR),
        f"organization via {CREATOR_JTI}",
    ),
    "no chain at all": (sign(client_claims(), ORG), "organization"),
}


@pytest.mark.parametrize(("token", "signer"), ACCEPTED.values(), ids=ACCEPTED)
def test_accepted(token: str, signer: str) -> None:
    examined = VERIFIER.examine(token)
    assert isinstance(examined, Verified), examined
    assert examined.signer == signer


REJECTED: dict[str, tuple[str, TokenFault]] = {
    "issuer signed by another": (issuer(FOREIGN), F.SIGNATURE),
    "issuer signed by itself": (issuer(CREATOR), F.SIGNATURE),
    "issuer signed with RSA": (issuer(rsa_key("client")), F.ALGORITHM),
    "issuer names another key": (issuer(iss=f"I-{FOREIGN.hex}"), F.CHAIN_ISSUER_KEY),
    "issuer names the other organization's key": (issuer(iss=f"I-{OTHER_ORG.hex}"), F.CHAIN_ISSUER_KEY),
    "issuer names no key": (issuer(iss="I-"), F.CHAIN_ISSUER_KEY),
    "issuer with another organization": (issuer(ou="other"), F.CHAIN_ISSUER_KEY),
    "issuer's tcs by another": (
        issuer(tcs=FOREIGN.signature(f"{CREATOR_JTI}.{CREATOR.hex}".encode()).hex()),
        F.CHAIN_ORG_SIGNATURE,
    ),
    "issuer's tcs for another id": (issuer(jti=ksuid()), F.CHAIN_ORG_SIGNATURE),
    "issuer's tcs for another key": (issuer(public_key=FOREIGN.hex), F.CHAIN_ORG_SIGNATURE),
    "issuer's tcs in two parts": (issuer(tcs=CHAINED["tcs"]), F.CHAIN_SIGNATURE_FORMAT),
    "issuer's tcs cut": (issuer(tcs=TCS[:-2]), F.CHAIN_SIGNATURE_FORMAT),
    "issuer's tcs not hex": (issuer(tcs="g" * 128), F.CHAIN_SIGNATURE_FORMAT),
    "signed by the organization": (chained(ORG), F.SIGNATURE),
    "signed by another": (chained(FOREIGN), F.SIGNATURE),
    "signed by its subject": (chained(HOLDER), F.SIGNATURE),
    "signed with RSA": (chained(rsa_key("client")), F.ALGORITHM),
    "another creator": (chained(FOREIGN, iss=f"C-{CREATOR_JTI}.{FOREIGN.hex}"), F.CHAIN_ORG_SIGNATURE),
    "another creator's id": (chained(iss=f"C-{ksuid()}.{CREATOR.hex}"), F.CHAIN_ORG_SIGNATURE),
    "self-made chain": (
        chained(FOREIGN, iss=f"C-{CREATOR_JTI}.{FOREIGN.hex}", tcs=tcs_by(FOREIGN, FOREIGN)),
        F.CHAIN_ORG_SIGNATURE,
    ),
    "chain of the other organization": (chained(tcs=tcs_by(OTHER_ORG, CREATOR)), F.CHAIN_ORG_SIGNATURE),
    "moved to the other organization": (chained(ou="other"), F.CHAIN_ORG_SIGNATURE),
    "second part by another": (chained(tcs=tcs_by(ORG, FOREIGN)), F.CHAIN_CREATOR_SIGNATURE),
    "second part by the organization": (chained(tcs=tcs_by(ORG, ORG)), F.CHAIN_CREATOR_SIGNATURE),
    "second part for another id": (chained(tcs=tcs_by(ORG, CREATOR, "x")), F.CHAIN_CREATOR_SIGNATURE),
    "second part for another id, of a real token": (
        chained(jti=ksuid(payload=b"x" * 16)),
        F.CHAIN_CREATOR_SIGNATURE,
    ),
    "second part is the first": (chained(tcs=f"{TCS}.{TCS}"), F.CHAIN_CREATOR_SIGNATURE),
    # the second part signs the text of the first
    "parts in capitals": (chained(tcs=CHAINED["tcs"].upper()), F.CHAIN_CREATOR_SIGNATURE),
    "parts exchanged": (chained(tcs=f"{OWN}.{TCS}"), F.CHAIN_ORG_SIGNATURE),
    "one part": (chained(tcs=TCS), F.CHAIN_SIGNATURE_FORMAT),
    "second part empty": (chained(tcs=f"{TCS}."), F.CHAIN_SIGNATURE_FORMAT),
    "first part empty": (chained(tcs=f".{OWN}"), F.CHAIN_SIGNATURE_FORMAT),
    "three parts": (chained(tcs=f"{TCS}.{OWN}.{OWN}"), F.CHAIN_SIGNATURE_FORMAT),
    "second part not hex": (chained(tcs=f"{TCS}.{'x' * 128}"), F.CHAIN_SIGNATURE_FORMAT),
    "issuer without id": (chained(iss=f"C-.{CREATOR.hex}"), F.CHAIN_ISSUER),
    "issuer without key": (chained(iss=f"C-{CREATOR_JTI}"), F.CHAIN_ISSUER),
    "issuer's key cut": (chained(iss=f"C-{CREATOR_JTI}.{CREATOR.hex[:-2]}"), F.CHAIN_ISSUER),
    "issuer's key not hex": (chained(iss=f"C-{CREATOR_JTI}.{'x' * 64}"), F.CHAIN_ISSUER),
    "chain without chain issuer": (chained(iss="Choria"), F.CHAIN_ISSUER),
    "chain without chain issuer, signed by the organization": (chained(ORG, iss="Choria"), F.CHAIN_ISSUER),
    "chain issuer in another case": (chained(iss=f"c-{CREATOR_JTI}.{CREATOR.hex}"), F.CHAIN_ISSUER),
    "organization missing": (chained(ou=ABSENT), F.ISSUER_MISSING),
    "organization unknown": (chained(ou="unknown"), F.ISSUER_UNKNOWN),
    "creator's id not a KSUID": (
        sign(
            issued(client_claims(), creator_token=org_issuer(client_claims(jti="x", public_key=CREATOR.hex))), CREATOR
        ),
        F.CHAIN_ISSUER_ID,
    ),
    "creator's id too large for a KSUID": (chained(iss=f"C-{'z' * 27}.{CREATOR.hex}"), F.CHAIN_ISSUER_ID),
    "issexp absent": (chained(issexp=ABSENT), F.CHAIN_CLAIM_MISSING),
}
MADE: tuple[tuple[Callable[..., str], str], ...] = ((issuer, "issuer"), (chained, "chained"))
for made, name in MADE:
    REJECTED |= {
        f"{name}: {claim} absent": (made(**{claim: ABSENT}), F.CHAIN_CLAIM_MISSING)
        for claim in ("jti", "iat", "exp", "public_key", "tcs")
    }
    REJECTED |= {
        f"{name}: {claim} empty": (made(**{claim: ""}), F.CHAIN_CLAIM_MISSING) for claim in ("jti", "public_key", "tcs")
    }
    REJECTED |= {
        f"{name}: iat a second later": (made(iat=NOW + 1), F.CHAIN_ID_TIME),
        f"{name}: iat a fraction later": (made(iat=NOW + 0.5), F.CHAIN_ID_TIME),
        f"{name}: iat long before": (made(iat=1), F.CHAIN_ID_TIME),
        f"{name}: id of another time": (made(jti=ksuid(NOW - 1)), F.CHAIN_ID_TIME),
        f"{name}: id no KSUID": (made(jti="x" * 26), F.CHAIN_ID),
        f"{name}: id too large for a KSUID": (made(jti="z" * 27), F.CHAIN_ID),
        f"{name}: id with a foreign character": (made(jti="-" * 27), F.CHAIN_ID),
    }


@pytest.mark.parametrize(("token", "fault"), REJECTED.values(), ids=REJECTED)
def test_invalid_request_is_rejected(token: str, fault: TokenFault) -> None:
    examined = VERIFIER.examine(token)
    assert isinstance(examined, Rejected), examined
    assert examined.fault is fault
    assert examined.purpose is Purpose.CLIENT


def second_creator() -> tuple[Claims, Key]:
    """Return a token issued by :data:`CREATOR` that issues another: one link too many."""
    return issued(client_claims(jti=ksuid(payload=b"second" * 2 + b"1234"), callerid="up=second")), HOLDER


def below_second() -> Claims:
    parent, key = second_creator()
    return issued(client_claims(), key, parent)


@pytest.mark.parametrize(
    "claims",
    [below_second, lambda: issued(client_claims(), HOLDER, issued(client_claims()))],
    ids=["parent's tcs", "another"],
)
def test_a_chained_token_cannot_issue_others(claims: Callable[[], Claims]) -> None:
    examined = VERIFIER.examine(sign(claims(), HOLDER))
    assert isinstance(examined, Rejected)
    assert examined.fault is F.CHAIN_ORG_SIGNATURE


def test_ordinary_token_cannot_issue_others() -> None:
    parent = client_claims() | {"tcs": HOLDER.signature(f"{ksuid()}.{HOLDER.hex}".encode()).hex()}
    examined = VERIFIER.examine(sign(issued(client_claims(), HOLDER, parent), HOLDER))
    assert isinstance(examined, Rejected)
    assert examined.fault is F.CHAIN_ORG_SIGNATURE


def test_broken_chain_is_cached_as_rejected() -> None:
    bad, good = chained(tcs=tcs_by(ORG, FOREIGN)), chained()
    verifier = TokenVerifier(TrustedKeys(issuers={"choria": ORG.verifies}))
    for token, expected in ((bad, Rejected), (good, Verified), (bad, Rejected), (good, Verified)):
        assert isinstance(verifier.examine(token), expected)


# --- Without issuer mode

CHAIN_CLAIMS: dict[str, dict[str, Any]] = {
    "tcs": {"tcs": "x"},
    "tcs, I-": {"tcs": "x", "iss": f"I-{ORG.hex}"},
    "tcs, C-": {"tcs": "x", "iss": "C-x.y"},
    "tcs, C-, issexp": {"tcs": "x", "iss": "C-x.y", "issexp": NOW + HOUR},
    "C-": {"iss": "C-x.y"},
    "I-": {"iss": f"I-{ORG.hex}"},
}
REFUSED: dict[tuple[str, str], set[str]] = {
    ("provisioning", "Ed25519"): {"tcs", "tcs, I-", "tcs, C-"},
    ("provisioning", "RSA"): {"tcs", "tcs, I-", "tcs, C-"},
    ("server", "Ed25519"): {"tcs", "tcs, I-", "tcs, C-", "tcs, C-, issexp", "C-"},
    ("server", "RSA"): {"tcs", "tcs, I-", "tcs, C-"},
    ("client", "Ed25519"): {"tcs, C-", "tcs, C-, issexp", "C-"},
    ("client", "RSA"): {"tcs, C-"},
}
"""Chain claims for which Choria 0.30.2 refuses a token, by kind of token and of key."""


@pytest.mark.parametrize(("kind", "algorithm"), REFUSED)
@pytest.mark.parametrize("claims", CHAIN_CLAIMS)
def test_chain_claims_are_checked_without_issuer_mode(kind: str, algorithm: str, claims: str) -> None:
    key = ORG if algorithm == "Ed25519" else rsa_key("signer")
    make = {"provisioning": provisioning_claims, "server": server_claims, "client": client_claims}[kind]
    keys = TrustedKeys(issuers={}, **{kind: (key.verifies,)})  # type: ignore[arg-type]
    examined = TokenVerifier(keys).examine(sign(make(**CHAIN_CLAIMS[claims]), key))
    if claims not in REFUSED[kind, algorithm]:
        assert isinstance(examined, Verified)
        assert examined.chain_issuer is None
    else:
        assert isinstance(examined, Rejected)
        assert examined.fault in (F.CHAIN_ISSUER, F.CHAIN_CLAIM_MISSING)


@pytest.mark.parametrize("claims", ["tcs", "tcs, I-", "tcs, C-"])
def test_chain_claims_are_checked_in_provisioning_tokens_of_an_issuer(claims: str) -> None:
    verifier = TokenVerifier(TrustedKeys(issuers={ORGANIZATION: ORG.verifies}))
    examined = verifier.examine(sign(provisioning_claims(ou=ORGANIZATION, **CHAIN_CLAIMS[claims]), ORG))
    assert isinstance(examined, Rejected)
    assert examined.fault in (F.CHAIN_ISSUER, F.CHAIN_CLAIM_MISSING)
