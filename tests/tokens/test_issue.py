"""Issued tokens have the claims that choria-io/tokens writes, and verify through every kind of chain."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import dsa, ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)

from broker_auth.errors import InputError
from broker_auth.secret import Secret
from broker_auth.tokens import ksuid
from broker_auth.tokens.claims import Purpose
from broker_auth.tokens.issue import (
    Claims,
    SigningKey,
    client_claims,
    issue_under,
    load_signing_key,
    make_chain_issuer,
    new_seed,
    provisioning_claims,
    server_claims,
    signing_key_from_seed,
)
from broker_auth.tokens.jws import parse
from broker_auth.tokens.keys import ed25519_key, load_verification_key
from broker_auth.tokens.verify import Rejected, TokenVerifier, TrustedKeys, Verified, check_times
from tests.builders.clock import HOUR, NOW
from tests.builders.tokens import CREATOR, FOREIGN, HOLDER, ORG, Key

STANDARD = {"iss": "Choria Tokens Package", "iat": NOW, "nbf": NOW, "exp": NOW + HOUR}


def signing(key: Key) -> SigningKey:
    """Return a builder's key as a signing key."""
    return load_signing_key(key.private_pem, key.name)


def verifier() -> TokenVerifier:
    """Return a verifier that trusts the organization."""
    return TokenVerifier(TrustedKeys(issuers={"choria": ed25519_key(ORG.hex, "choria")}))


def a_provisioning(**changes: Any) -> Claims:
    args: dict[str, Any] = {"now": NOW, "validity": HOUR, "token": Secret("s3cret"), "urls": ["nats://a:4222"]}
    return provisioning_claims(**(args | changes))


def a_server(**changes: Any) -> Claims:
    args: dict[str, Any] = {"now": NOW, "validity": HOUR, "identity": "node1.example.net", "public_key": HOLDER.hex}
    return server_claims(**(args | {"collectives": ["mcollective"]} | changes))


def a_client(**changes: Any) -> Claims:
    args: dict[str, Any] = {"now": NOW, "validity": HOUR, "caller_id": "up=alice", "public_key": HOLDER.hex}
    return client_claims(**(args | changes))


def without_id(claims: Claims) -> Claims:
    """Return the claims without ``jti``, after checking that it is a KSUID of ``iat``."""
    assert ksuid.timestamp(claims["jti"]) == claims["iat"]
    return {name: value for name, value in claims.items() if name != "jti"}


# --- Claims, exactly


def test_minimal_provisioning_token() -> None:
    assert without_id(a_provisioning()) == STANDARD | {
        "purpose": "choria_provisioning",
        "sub": "choria_provisioning",
        "cht": "s3cret",
        "chs": False,
        "chpd": False,
        "chu": "nats://a:4222",
        "extensions": None,
        "ou": "choria",
    }


def test_provisioning_token_with_all_claims() -> None:
    claims = a_provisioning(
        urls=["nats://a:4222", "nats://b:4222"],
        srv_domain="example.net",
        secure=True,
        default=True,
        registration="/etc/registration.json",
        facts="/etc/facts.json",
        username="node",
        password=Secret("hunter2"),
        organization="acme",
        extensions={"site": {"name": "lhr"}},
        protocol_v2=True,
        allow_update=True,
        issuer="somebody",
    )
    assert without_id(claims) == STANDARD | {
        "iss": "somebody",
        "purpose": "choria_provisioning",
        "sub": "choria_provisioning",
        "cht": "s3cret",
        "chs": True,
        "chu": "nats://a:4222,nats://b:4222",
        "chsrv": "example.net",
        "chpd": True,
        "chrd": "/etc/registration.json",
        "chf": "/etc/facts.json",
        "chusr": "node",
        "chpwd": "hunter2",
        "extensions": {"site": {"name": "lhr"}},
        "ou": "acme",
        "v2": True,
        "update": True,
    }


def test_minimal_server_token() -> None:
    assert without_id(a_server()) == STANDARD | {
        "purpose": "choria_server",
        "identity": "node1.example.net",
        "collectives": ["mcollective"],
        "permissions": {},
        "public_key": HOLDER.hex,
        "ou": "choria",
    }


def test_server_token_with_all_claims() -> None:
    granted = ["streams", "submission", "service_host", "governor"]
    claims = a_server(collectives=["a", "b"], organization="acme", permissions=granted, publish=["x.>"])
    assert without_id(claims) == STANDARD | {
        "purpose": "choria_server",
        "identity": "node1.example.net",
        "collectives": ["a", "b"],
        "permissions": {"submission": True, "streams": True, "governor": True, "service_host": True},
        "public_key": HOLDER.hex,
        "ou": "acme",
        "pub_subjects": ["x.>"],
    }


def test_minimal_client_token() -> None:
    assert without_id(a_client(public_key="")) == STANDARD | {
        "purpose": "choria_client_id",
        "callerid": "up=alice",
        "permissions": {},
        "ou": "choria",
    }


def test_client_token_with_all_claims() -> None:
    claims = a_client(
        agents=["rpcutil", "puppet.status"],
        organization="acme",
        permissions=["org_admin", "provisioner"],
        publish=["p.>"],
        subscribe=["s.>"],
        opa_policy="package x",
        properties={"group": "admins"},
    )
    assert without_id(claims) == STANDARD | {
        "purpose": "choria_client_id",
        "callerid": "up=alice",
        "public_key": HOLDER.hex,
        "permissions": {"org_admin": True, "provisioner": True},
        "agents": ["rpcutil", "puppet.status"],
        "ou": "acme",
        "opa_policy": "package x",
        "pub_subjects": ["p.>"],
        "sub_subjects": ["s.>"],
        "user_properties": {"group": "admins"},
    }


def test_token_ids_are_unique() -> None:
    assert a_client()["jti"] != a_client()["jti"]


def test_times_are_whole_seconds() -> None:
    claims = a_client(now=NOW + 0.9, validity=1.9)
    assert (claims["iat"], claims["nbf"], claims["exp"]) == (NOW, NOW, NOW + 1)


@pytest.mark.parametrize(
    ("urls", "claim"),
    [
        (["edge.example.net:4222"], "nats://edge.example.net:4222"),
        (["tls://192.0.2.7:4222", "wss://[2001:db8::7]:443"], "tls://192.0.2.7:4222,wss://[2001:db8::7]:443"),
        (["nats://a:4222, b:4223"], "nats://a:4222,nats://b:4223"),
    ],
)
def test_urls_have_the_scheme_that_choria_assumes(urls: list[str], claim: str) -> None:
    assert a_provisioning(urls=urls)["chu"] == claim


def test_public_keys_are_lower_case_as_in_go() -> None:
    assert a_server(public_key=HOLDER.hex.upper())["public_key"] == HOLDER.hex


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: a_provisioning(token=Secret("")), "access token"),
        (lambda: a_provisioning(urls=[]), "URLs or an SRV domain"),
        (lambda: a_provisioning(urls=["nats://edge.example.net"]), "is not the URL of a broker"),
        (lambda: a_provisioning(urls=["http://edge.example.net:80"]), "is not the URL of a broker"),
        (lambda: a_provisioning(urls=["nats://edge.example.net:99999"]), "is not the URL of a broker"),
        (lambda: a_provisioning(urls=["nats://edge 1:4222"]), "is not the URL of a broker"),
        (lambda: a_provisioning(urls=["nats://a:4222", ""]), "is not the URL of a broker"),
        (lambda: a_provisioning(validity=0), "at least one second"),
        (lambda: a_provisioning(validity=9e11), "9999"),
        (lambda: a_server(identity=""), "identity"),
        (lambda: a_server(collectives=[]), "collective"),
        (lambda: a_server(collectives=[""]), "collective"),
        (lambda: a_server(public_key=""), "64 hex"),
        (lambda: a_server(public_key="0" * 63), "64 hex"),
        (lambda: a_server(permissions=["governor"]), "streams"),
        (lambda: a_server(permissions=["org_admin"]), "unknown permission 'org_admin'"),
        (lambda: a_client(caller_id=""), "caller id"),
        (lambda: a_client(public_key="x" * 64), "64 hex"),
        (lambda: a_client(permissions=["submission"]), "unknown permission 'submission'"),
    ],
)
def test_unusable_claims_are_refused(make: Callable[[], Claims], says: str) -> None:
    with pytest.raises(InputError, match=says):
        make()


@pytest.mark.parametrize(
    ("extensions", "says"),
    [
        ({"x": "y" * 17_000}, "larger than"),
        ({"x": [[[[[[[[[[[[[[[[[]]]]]]]]]]]]]]]]]}, "nests deeper"),
    ],
)
def test_token_that_verification_cannot_parse_is_not_signed(extensions: dict[str, Any], says: str) -> None:
    with pytest.raises(InputError, match=says):
        signing(ORG).sign(a_provisioning(extensions=extensions))


# --- Signing keys


RSA = rsa.generate_private_key(public_exponent=65537, key_size=2048)
SEED = ed25519.Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
P256, P384 = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP384R1())
PKCS8, LEGACY = PrivateFormat.PKCS8, PrivateFormat.TraditionalOpenSSL
Private = rsa.RSAPrivateKey | ed25519.Ed25519PrivateKey | ec.EllipticCurvePrivateKey


def pem(key: Any, form: PrivateFormat = PKCS8) -> bytes:
    """Return the private key as PEM, not encrypted."""
    written: bytes = key.private_bytes(Encoding.PEM, form, NoEncryption())
    return written


@pytest.mark.parametrize(
    ("data", "key", "algorithm"),
    [
        (pem(RSA, LEGACY), RSA, "RS256"),
        (pem(RSA), RSA, "RS256"),
        (pem(P256, LEGACY), P256, "ES256"),
        (pem(P384), P384, "ES384"),
        (pem(SEED), SEED, "EdDSA"),
        (bytes(range(32)).hex().encode(), SEED, "EdDSA"),
        (bytes(range(32)).hex().upper().encode() + b"\n", SEED, "EdDSA"),
    ],
    ids=["rsa-pkcs1", "rsa-pkcs8", "p256-sec1", "p384-pkcs8", "ed25519-pkcs8", "seed", "seed-upper-newline"],
)
def test_every_format_of_key_signs_tokens_that_its_public_key_verifies(
    data: bytes, key: Private, algorithm: str
) -> None:
    token = load_signing_key(data, "key").sign(a_provisioning())
    public = key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    trusted = load_verification_key(public, "signer")
    examined = TokenVerifier(TrustedKeys(issuers={}, provisioning=[trusted])).examine(token)
    assert isinstance(examined, Verified), examined
    assert (examined.algorithm, examined.signer) == (algorithm, "signer")
    assert parse(token).claims["cht"] == "s3cret"


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (b"", "neither"),
        (b"00" * 31, "neither"),
        (b"zz" * 32, "neither"),
        (b"\xff" * 64, "neither"),
        (b"-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n", "cannot be read"),
        (HOLDER.public_pem, "public key"),
        (RSA.private_bytes(Encoding.PEM, PKCS8, BestAvailableEncryption(b"pw")), "encrypted"),
        (pem(rsa.generate_private_key(public_exponent=65537, key_size=1024)), "2048"),  # noqa: S505 - refused
        (pem(ec.generate_private_key(ec.SECP521R1())), "unsupported"),
        (pem(dsa.generate_private_key(1024)), "unsupported"),  # noqa: S505 - refused
    ],
    ids=["empty", "short", "no-hex", "binary", "garbled", "public", "encrypted", "small-rsa", "p521", "dsa"],
)
def test_other_files_are_refused_as_signing_keys(data: bytes, says: str) -> None:
    with pytest.raises(InputError, match=says) as caught:
        load_signing_key(data, "key.pem")
    assert str(caught.value).startswith("key.pem: ")
    assert "\n" not in str(caught.value)
    assert len(data) == 0 or data.decode("latin1") not in str(caught.value)


def test_keys_do_not_show_their_secrets() -> None:
    seed = new_seed()
    key = signing_key_from_seed(seed, "me")
    assert seed.reveal() not in repr(key) + str(key) + repr(seed)
    assert str(key.public_hex) in repr(key)
    assert "Private" not in repr(key)
    assert len(seed.reveal()) == 64
    assert seed != new_seed()


# --- Trust chains (docs/policy.md#the-chain-of-trust)


def creator_token(**changes: Any) -> str:
    """Return a chain issuer's token."""
    args: dict[str, Any] = {"public_key": CREATOR.hex, "caller_id": "aaa=login"} | changes
    return signing(ORG).sign(make_chain_issuer(a_client(**args), signing(ORG)))


@pytest.mark.parametrize("build", [a_server, a_client])
def test_a_chain_verifies_from_end_to_end(build: Callable[..., Claims]) -> None:
    issuer = creator_token()
    creator = verifier().examine(issuer)
    assert isinstance(creator, Verified)
    assert creator.claims.iss == f"I-{ORG.hex}"
    token = signing(CREATOR).sign(issue_under(build(), issuer, signing(CREATOR)))
    issued = verifier().examine(token)
    assert isinstance(issued, Verified), issued
    assert issued.signer == f"choria via {creator.claims.jti}"
    assert issued.claims.iss == f"C-{creator.claims.jti}.{CREATOR.hex}"
    assert issued.claims.issexp == NOW + HOUR
    check_times(issued, NOW)


@pytest.mark.parametrize(
    ("validity", "expires"), [(HOUR // 2, NOW + HOUR // 2), (HOUR, NOW + HOUR), (9 * HOUR, NOW + HOUR)]
)
def test_a_token_expires_no_later_than_its_issuer(validity: int, expires: int) -> None:
    claims = issue_under(a_server(validity=validity), creator_token(), signing(CREATOR))
    assert (claims["exp"], claims["issexp"]) == (expires, NOW + HOUR)


def test_chain_signed_by_another_key_does_not_verify() -> None:
    token = signing(FOREIGN).sign(issue_under(a_server(), creator_token(), signing(CREATOR)))
    assert isinstance(verifier().examine(token), Rejected)


def _plain() -> str:
    return signing(ORG).sign(a_client(public_key=CREATOR.hex))


def _without_ksuid() -> str:
    claims = a_client(public_key=CREATOR.hex) | {"jti": "an id"}
    return signing(ORG).sign(make_chain_issuer(claims, signing(ORG)))


def _forged() -> str:
    """Return a token that claims to be a chain issuer's, with a chain signature by another key."""
    claims = make_chain_issuer(a_client(public_key=CREATOR.hex), signing(FOREIGN))
    return signing(FOREIGN).sign(claims | {"iss": f"I-{ORG.hex}"})


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: make_chain_issuer(a_client(public_key=""), signing(ORG)), "public key"),
        (lambda: make_chain_issuer(a_client(), load_signing_key(pem(RSA), "rsa.key")), "Ed25519"),
        (lambda: issue_under(a_client(public_key=""), creator_token(), signing(CREATOR)), "public key"),
        (lambda: issue_under(a_server(), creator_token(), signing(FOREIGN)), "not the key"),
        (lambda: issue_under(a_server(), creator_token(), load_signing_key(pem(RSA), "rsa.key")), "not the key"),
        (lambda: issue_under(a_server(now=NOW + HOUR), creator_token(), signing(CREATOR)), "expired"),
        (lambda: issue_under(a_server(), _plain(), signing(CREATOR)), "not a chain issuer's"),
        (lambda: issue_under(a_server(), _without_ksuid(), signing(CREATOR)), "not a chain issuer's"),
        (lambda: issue_under(a_server(), _forged(), signing(CREATOR)), "chain signature of the chain issuer's token"),
        (lambda: issue_under(a_server(), "a.b.c", signing(CREATOR)), "cannot be read"),
    ],
)
def test_broken_chains_are_not_issued(make: Callable[[], Claims], says: str) -> None:
    with pytest.raises(InputError, match=says):
        make()


def test_purposes_match_those_of_verification() -> None:
    made = {a_provisioning()["purpose"], a_server()["purpose"], a_client()["purpose"]}
    assert made == {str(purpose) for purpose in Purpose}
