"""Token verification: signers, times, algorithm confusion, caches, Choria's own tokens."""

from __future__ import annotations

import dataclasses
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from broker_auth.operate.unsigned_tokens import UnsignedTokenVerifier
from broker_auth.tokens import verify
from broker_auth.tokens.claims import ClientClaims, ProvisioningClaims, Purpose
from broker_auth.tokens.faults import TokenFault, TokenRejected
from broker_auth.tokens.keys import VerificationKey, load_verification_key
from broker_auth.tokens.verify import Rejected, TokenVerifier, TrustedKeys, Verified, check_times
from tests.builders.clock import HOUR, NOW, YEAR
from tests.builders.tokens import (
    ABSENT,
    CLIENT_SIGNER,
    FOREIGN,
    ORG,
    Claims,
    Key,
    b64,
    client_claims,
    ec_key,
    ed25519_key,
    provisioning_claims,
    rsa_key,
    server_claims,
    sign,
    sign_hmac,
    sign_parts,
)

F = TokenFault
CHORIA = Path(__file__).parent / "choria"
RSA, P256, P384 = rsa_key("client"), ec_key("client"), ec_key("client", 384)
ED = CLIENT_SIGNER
KEYS = {"RSA": RSA, "Ed25519": ED, "P-256": P256, "P-384": P384}
FITTING = {
    "RSA": {"RS256", "RS384", "RS512"},
    "Ed25519": {"EdDSA"},
    "P-256": {"ES256"},
    "P-384": {"ES384"},
}
ACCEPTED = sorted(set().union(*FITTING.values()))
UNKNOWN = ["none", "None", "NONE", "", "HS256", "HS384", "HS512", "PS256", "PS512", "ES512", "ES256K", "Ed25519"]
UNKNOWN += ["rs256", "EDDSA", "RS256 ", "RSA-OAEP"]


def trusting(*keys: Key) -> TokenVerifier:
    return TokenVerifier(TrustedKeys(issuers={}, client=tuple(key.verifies for key in keys)))


def constant(signature: bytes) -> Callable[[bytes], bytes]:
    return lambda _: signature


def fault(token: str, *keys: Key) -> TokenFault:
    examined = trusting(*keys).examine(token)
    assert isinstance(examined, Rejected), examined
    return examined.fault


# --- Algorithms


@pytest.mark.parametrize(("kind", "alg"), [(kind, alg) for kind, algs in FITTING.items() for alg in sorted(algs)])
def test_a_key_verifies_the_algorithms_that_fit_its_type(kind: str, alg: str) -> None:
    examined = trusting(KEYS[kind]).examine(sign(client_claims(), KEYS[kind], alg=alg))
    assert isinstance(examined, Verified)
    assert (examined.algorithm, examined.signer, examined.purpose) == (alg, KEYS[kind].name, Purpose.CLIENT)
    assert isinstance(examined.claims, ClientClaims)
    assert examined.claims.callerid == "up=alice"


@pytest.mark.parametrize(
    ("kind", "alg"), [(kind, alg) for kind in KEYS for alg in [*ACCEPTED, *UNKNOWN] if alg not in FITTING[kind]]
)
def test_key_does_not_verify_other_algorithms(kind: str, alg: str) -> None:
    head = f'{{"alg":"{alg}"}}'
    assert fault(sign_parts(head, client_claims(), KEYS[kind].signature), KEYS[kind]) is F.ALGORITHM
    assert fault(sign_parts(head, client_claims(), lambda _: b"x"), KEYS[kind]) is F.ALGORITHM


@pytest.mark.parametrize("kind", KEYS)
@pytest.mark.parametrize("alg", ["HS256", "HS384", "HS512"])
def test_public_key_is_not_accepted_as_hmac_secret(kind: str, alg: str) -> None:
    pem = KEYS[kind].public_pem
    for secret in (pem, pem.strip(), pem.replace(b"\n", b""), b"", ED.hex.encode(), bytes.fromhex(ED.hex)):
        assert fault(sign_hmac(client_claims(), secret, alg=alg), KEYS[kind]) is F.ALGORITHM
    # nor with the key's own algorithm in the header
    own = KEYS[kind].algorithm
    assert fault(sign_hmac(client_claims(), pem, alg=own), KEYS[kind]) is F.SIGNATURE


@pytest.mark.parametrize("kind", KEYS)
def test_missing_signature_is_rejected(kind: str) -> None:
    key, head = KEYS[kind], f'{{"alg":"{KEYS[kind].algorithm}"}}'
    size = len(key.signature(b""))
    for made in (b"\0", b"\0" * size, b"\xff" * size, b"\1" * (size - 1), b"\1" * (size + 1), b"\0" * 2000):
        assert fault(sign_parts(head, client_claims(), constant(made)), key) is F.SIGNATURE


@pytest.mark.parametrize("kind", KEYS)
def test_another_key_of_the_same_type_does_not_verify(kind: str) -> None:
    other = {"RSA": rsa_key("other"), "Ed25519": FOREIGN, "P-256": ec_key("other"), "P-384": ec_key("other", 384)}
    assert fault(sign(client_claims(), other[kind]), KEYS[kind]) is F.SIGNATURE
    assert isinstance(trusting(KEYS[kind], other[kind]).examine(sign(client_claims(), other[kind])), Verified)


def test_ecdsa_signature_in_der_is_rejected() -> None:
    from cryptography.hazmat.primitives import hashes
    from cryptography.hazmat.primitives.asymmetric import ec

    private = P256.private
    assert isinstance(private, ec.EllipticCurvePrivateKey)
    token = sign_parts('{"alg":"ES256"}', client_claims(), lambda text: private.sign(text, ec.ECDSA(hashes.SHA256())))
    assert fault(token, P256) is F.SIGNATURE


def test_malleable_ed25519_signature_is_rejected() -> None:
    order = 2**252 + 27742317777372353535851937790883648493

    def malleable(message: bytes) -> bytes:
        made = ED.signature(message)
        return made[:32] + (int.from_bytes(made[32:], "little") + order).to_bytes(32, "little")

    assert fault(sign_parts('{"alg":"EdDSA"}', client_claims(), malleable), ED) is F.SIGNATURE


def test_keys_that_a_token_names_are_not_used() -> None:
    public = b64(bytes.fromhex(FOREIGN.hex))
    jwk = {"kty": "OKP", "crv": "Ed25519", "x": public, "alg": "EdDSA", "kid": "x"}
    named: dict[str, Any] = {"jwk": jwk, "kid": FOREIGN.hex, "x5c": [public], "jku": "https://127.0.0.1/", "x5u": "x"}
    assert fault(sign(client_claims(), FOREIGN, header=named), ED) is F.SIGNATURE
    assert fault(sign(client_claims(jwk=jwk, cnf={"jwk": jwk}), FOREIGN), ED) is F.SIGNATURE


def test_a_changed_part_does_not_verify() -> None:
    header, claims, signature = sign(client_claims(), ED).split(".")
    other_header = b64(b'{"typ":"JWT","alg":"EdDSA"}')
    other_claims = sign(client_claims(callerid="up=root"), ED).split(".")[1]
    for token in (
        f"{other_header}.{claims}.{signature}",
        f"{header}.{other_claims}.{signature}",
        f"{header}.{claims}.{sign(client_claims(callerid='up=root'), ED).split('.')[2]}",
    ):
        assert fault(token, ED) is F.SIGNATURE


def test_each_kind_of_token_has_its_own_signers() -> None:
    keys = {"provisioning": ed25519_key("p"), "client": ed25519_key("c"), "server": ed25519_key("s")}
    trusted: dict[str, Any] = {name: (key.verifies,) for name, key in keys.items()}
    verifier = TokenVerifier(TrustedKeys(issuers={}, **trusted))
    made = {"provisioning": provisioning_claims(), "client": client_claims(), "server": server_claims()}
    for kind, claims in made.items():
        for signer, key in keys.items():
            assert isinstance(verifier.examine(sign(claims, key)), Verified if kind == signer else Rejected)


REQUIRED: dict[str, tuple[Claims, TokenFault]] = {
    "client without callerid": (client_claims(callerid=ABSENT), F.CLAIM_MISSING),
    "client without key": (client_claims(public_key=ABSENT), F.CLAIM_MISSING),
    "client with an invalid key": (client_claims(public_key="x" * 64), F.PUBLIC_KEY),
    "server without identity": (server_claims(identity=""), F.CLAIM_MISSING),
    "server without key": (server_claims(public_key=""), F.CLAIM_MISSING),
    "server with an invalid key": (server_claims(public_key="0" * 65), F.PUBLIC_KEY),
    "server without collectives": (server_claims(collectives=[]), F.CLAIM_MISSING),
}


@pytest.mark.parametrize(("claims", "expected"), REQUIRED.values(), ids=REQUIRED)
def test_required_claims_of_each_kind_of_token(claims: Claims, expected: TokenFault) -> None:
    """The standalone check has neither nonce nor account, so the token itself is rejected."""
    verifier = TokenVerifier(TrustedKeys(issuers={"choria": ORG.verifies}))
    examined = verifier.examine(sign(claims, ORG))
    assert isinstance(examined, Rejected)
    assert examined.fault is expected


def test_a_rejected_token_names_its_id() -> None:
    examined = trusting(ED).examine(sign(client_claims(jti="the id"), FOREIGN))
    assert isinstance(examined, Rejected)
    assert examined.token_id == "the id"
    assert trusting(ED).examine(sign(client_claims(jti="x" * 500), FOREIGN)) == Rejected(
        fault=F.SIGNATURE,
        detail="token is not signed by client signer",
        purpose=Purpose.CLIENT,
        token_id="x" * 64,
    )


# --- Caches


class Counted:
    """A key that counts its uses."""

    def __init__(self, key: Key) -> None:
        self.count = 0
        real = key.verifies

        def check(message: bytes, signature: bytes) -> bool:
            self.count += 1
            return real.checks["EdDSA"](message, signature)

        self.key: VerificationKey = dataclasses.replace(real, checks={"EdDSA": check})


def test_a_token_is_verified_once() -> None:
    counted = Counted(ED)
    verifier = TokenVerifier(TrustedKeys(issuers={}, client=(counted.key,)))
    good, bad = sign(client_claims(), ED), sign(client_claims(), FOREIGN)
    for _ in range(3):
        assert isinstance(verifier.examine(good), Verified)
        assert isinstance(verifier.examine(bad), Rejected)
    assert counted.count == 2


def test_caches_are_bounded_and_bad_tokens_do_not_evict_good_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(verify, "ACCEPTED_CACHE", 4)
    monkeypatch.setattr(verify, "REJECTED_CACHE", 4)
    counted = Counted(ED)
    verifier = TokenVerifier(TrustedKeys(issuers={}, client=(counted.key,)))
    good = sign(client_claims(), ED)
    verifier.examine(good)
    for number in range(20):
        assert isinstance(verifier.examine(f"{number}.x.y"), Rejected)
        assert isinstance(verifier.examine(sign(client_claims(callerid=f"up={number}"), FOREIGN)), Rejected)
    before = counted.count
    assert isinstance(verifier.examine(good), Verified)
    assert counted.count == before
    for number in range(20):
        assert isinstance(verifier.examine(sign(client_claims(callerid=f"up={number}"), ED)), Verified)
    assert len(verifier._accepted) == len(verifier._rejected) == 4


def test_white_space_around_a_token_makes_no_other_token() -> None:
    counted = Counted(ED)
    verifier = TokenVerifier(TrustedKeys(issuers={}, client=(counted.key,)))
    for number in range(20):
        assert isinstance(verifier.examine(" " * number + sign(client_claims(), ED) + "\n" * number), Verified)
        assert isinstance(verifier.examine("\t" * number + sign(client_claims(), FOREIGN)), Rejected)
    assert (counted.count, len(verifier._accepted), len(verifier._rejected)) == (2, 1, 1)
    assert verifier.recall(f"{sign(client_claims(), ED)}\v") is not None


def test_rejected_token_stays_rejected() -> None:
    verifier = trusting(ED)
    good = sign(client_claims(), ED)
    bad = good[:-4] + ("AAAA" if good[-4:] != "AAAA" else "BBBB")
    assert isinstance(verifier.examine(bad), Rejected)
    assert isinstance(verifier.examine(good), Verified)
    for _ in range(3):
        assert isinstance(verifier.examine(bad), Rejected)
        assert isinstance(verifier.examine(good), Verified)


def test_unsigned_verifier_does_not_change_the_services_verifier() -> None:
    verifier = trusting(ED)
    token = sign(client_claims(), FOREIGN)
    unsigned = token.rpartition(".")[0] + "."
    explaining = UnsignedTokenVerifier(verifier.keys)
    assert isinstance(explaining.examine(unsigned), Verified)
    assert verifier.examine(unsigned) == Rejected(
        fault=F.NOT_COMPACT, detail="token does not have three non-empty parts"
    )
    assert isinstance(verifier.examine(token), Rejected)
    redacted = explaining.examine(sign(client_claims(callerid=ABSENT), ED))
    assert isinstance(redacted, Rejected)
    assert redacted.fault is F.CLAIM_MISSING


# --- Times


def test_times_are_checked_on_every_use() -> None:
    token = trusting(ED).examine(sign(client_claims(), ED))
    assert isinstance(token, Verified)
    check_times(token, NOW)
    check_times(token, NOW + HOUR - 0.001)
    for now, expected in ((NOW + HOUR, F.EXPIRED), (NOW + YEAR, F.EXPIRED), (NOW - 1, F.NOT_YET_VALID)):
        with pytest.raises(TokenRejected) as raised:
            check_times(token, now)
        assert raised.value.fault is expected
    check_times(token, NOW - 1, leeway=1)


# --- Tokens of Choria's own test data


def test_reasons_give_durations_for_people() -> None:
    token = trusting(ED).examine(sign(client_claims(), ED))
    assert isinstance(token, Verified)
    for now, reason in (
        (NOW + HOUR + YEAR, "token expired 1y ago"),
        (NOW - 90, "token is not valid for another 1m 30s"),
    ):
        with pytest.raises(TokenRejected, match=f"{reason}$"):
            check_times(token, now)


def choria(kind: str) -> tuple[str, VerificationKey]:
    name = {"ed25519": "signer.public", "rsa": "signer-public.pem"}[kind]
    key = load_verification_key((CHORIA / kind / name).read_bytes(), name)
    return (CHORIA / kind / "good-provisioning.jwt").read_text(), key


@pytest.mark.parametrize("kind", ["ed25519", "rsa"])
def test_tokens_of_choria_verify(kind: str) -> None:
    token, key = choria(kind)
    examined = TokenVerifier(TrustedKeys(issuers={}, provisioning=(key,))).examine(token)
    assert isinstance(examined, Verified)
    assert examined.purpose is Purpose.PROVISIONING
    assert isinstance(examined.claims, ProvisioningClaims)


@pytest.mark.parametrize("kind", ["ed25519", "rsa"])
def test_tokens_of_choria_do_not_verify_with_another_key(kind: str) -> None:
    token, _ = choria(kind)
    other = FOREIGN if kind == "ed25519" else rsa_key("other")
    examined = TokenVerifier(TrustedKeys(issuers={}, provisioning=(other.verifies,))).examine(token)
    assert isinstance(examined, Rejected)
    assert examined.fault is F.SIGNATURE


def test_chorias_ed25519_token_expires_in_2032() -> None:
    token, key = choria("ed25519")
    examined = TokenVerifier(TrustedKeys(issuers={}, provisioning=(key,))).examine(token)
    assert isinstance(examined, Verified)
    check_times(examined, NOW)
    with pytest.raises(TokenRejected, match="token_expired"):
        check_times(examined, NOW + 6 * YEAR)


def test_chorias_rsa_token_never_expires() -> None:
    token, key = choria("rsa")
    examined = TokenVerifier(TrustedKeys(issuers={}, provisioning=(key,))).examine(token)
    assert isinstance(examined, Verified)
    with pytest.raises(TokenRejected, match=r"token_no_expiry.*allow_non_expiring_tokens"):
        check_times(examined, NOW)
    check_times(examined, NOW, allow_non_expiring=True)


# --- Anything else


def test_mutated_tokens_do_not_verify() -> None:
    chosen = random.Random(7)  # noqa: S311 - reproducible, not secret
    alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_.=+/ \n"
    verifier = trusting(ED, RSA)
    for valid in (sign(client_claims(), ED), sign(client_claims(), RSA)):
        other = sign(client_claims(callerid="up=root"), FOREIGN)
        for _ in range(1500):
            made = list(valid)
            match chosen.randrange(5):
                case 0:
                    made[chosen.randrange(len(made))] = chosen.choice(alphabet)
                case 1:
                    del made[chosen.randrange(len(made)) :]
                case 2:
                    made.insert(chosen.randrange(len(made)), chosen.choice(alphabet))
                case 3:
                    cut = chosen.randrange(len(made))
                    made[cut:] = other[cut:]
                case 4:
                    start = chosen.randrange(len(made))
                    made[start : start + chosen.randrange(40)] = []
            token = "".join(made)
            if token.strip(" \t\r\n\v\f") != valid:
                assert isinstance(verifier.examine(token), Rejected), token


def test_organization_issuers_are_not_signers_in_x509_mode() -> None:
    verifier = TokenVerifier(TrustedKeys(issuers={"choria": ORG.verifies}, client=(ED.verifies,)))
    assert isinstance(verifier.examine(sign(client_claims(), ORG)), Verified)
    assert isinstance(verifier.examine(sign(client_claims(), ED)), Rejected)
