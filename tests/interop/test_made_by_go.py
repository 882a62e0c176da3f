"""Tokens made by choria-io/tokens: verified here, by the library and on the command line."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from broker_auth.policy import permissions
from broker_auth.tokens import ksuid
from broker_auth.tokens.claims import ClientClaims, ServerClaims
from broker_auth.tokens.faults import TokenFault, TokenRejected
from broker_auth.tokens.issue import CLIENT_FLAGS, SERVER_FLAGS
from broker_auth.tokens.keys import VerificationKey
from broker_auth.tokens.nonce import verify_nonce
from broker_auth.tokens.verify import Rejected, TokenVerifier, TrustedKeys, Verified, check_times
from tests.builders.clock import DAY, HOUR
from tests.builders.tokens import NONCE, ORG, ORGANIZATION
from tests.interop.golang import Go, GoRefused
from tests.interop.keyfiles import KeyFile, KeyFiles

OPA = 'package io.choria.aaasvc\n\nallow { input.agent == "rpcutil" }\n'


@pytest.mark.parametrize("signer", ["rsa", "org"])
def test_provisioning(go: Go, keys: KeyFiles, signer: str) -> None:
    key: KeyFile = getattr(keys, signer)
    token = make_provisioning(go, key)
    verified = accepted(token, signers(key.key.verifies))
    assert verified.algorithm == {"rsa": "RS256", "org": "EdDSA"}[signer]
    assert verified.claims.jti
    assert verified.claims.ou == ORGANIZATION


def test_provisioning_by_issuer(go: Go, keys: KeyFiles) -> None:
    accepted(make_provisioning(go, keys.org), issuer())
    assert fault(make_provisioning(go, keys.foreign), issuer()) == TokenFault.SIGNATURE


def test_server_token_with_all_claims(go: Go, keys: KeyFiles) -> None:
    token = make_server(go, keys, permissions=dict.fromkeys(SERVER_FLAGS, True), publish=["acme.registration.>"])
    claims = accepted(token, issuer()).claims
    assert isinstance(claims, ServerClaims)
    assert (claims.identity, claims.collectives) == ("node1.example.net", ("mcollective", "eu"))
    assert all(getattr(claims.permissions, flag) for flag in SERVER_FLAGS)
    assert claims.pub_subjects == ("acme.registration.>",)


@pytest.mark.parametrize("flag", SERVER_FLAGS)
def test_server_permission(go: Go, keys: KeyFiles, flag: str) -> None:
    claims = accepted(make_server(go, keys, permissions={flag: True}), issuer()).claims
    assert isinstance(claims, ServerClaims)
    assert [name for name in SERVER_FLAGS if getattr(claims.permissions, name)] == [flag]


@pytest.mark.parametrize("flag", CLIENT_FLAGS)
def test_client_permission(go: Go, keys: KeyFiles, flag: str) -> None:
    claims = accepted(make_client(go, keys, permissions={flag: True}), issuer()).claims
    assert isinstance(claims, ClientClaims)
    assert [name for name in CLIENT_FLAGS if getattr(claims.permissions, name)] == [flag]


def test_client_token_with_all_claims(go: Go, keys: KeyFiles) -> None:
    more: dict[str, Any] = {"agents": ["rpcutil.*"], "properties": {"group": "ops"}, "opa": OPA}
    token = make_client(go, keys, publish=["a.>"], subscribe=["b.*"], **more)
    claims = accepted(token, issuer()).claims
    assert isinstance(claims, ClientClaims)
    assert (claims.callerid, claims.pub_subjects, claims.sub_subjects) == ("up=alice", ("a.>",), ("b.*",))
    assert claims.public_key == keys.subject.hex


def test_chain_issuer(go: Go, keys: KeyFiles) -> None:
    verified = accepted(make_issuer(go, keys), issuer())
    assert verified.claims.iss == f"I-{keys.org.hex}"
    assert verified.signer == ORG.name


@pytest.mark.parametrize("kind", ["client", "server"])
def test_issued_by_a_chain_issuer(go: Go, keys: KeyFiles, kind: str) -> None:
    parent = accepted(make_issuer(go, keys), issuer()).claims
    make = {"client": make_client, "server": make_server}[kind]
    token = make(go, keys, signing_key=keys.creator, issued_by=make_issuer(go, keys))
    verified = accepted(token, issuer())
    assert verified.claims.iss.startswith("C-")
    assert verified.claims.iss.endswith(keys.creator.hex)
    assert verified.claims.issexp is not None
    assert parent.exp is not None
    assert abs(verified.claims.issexp - parent.exp) < HOUR


def test_issued_by_chain_issuer_that_the_organization_did_not_sign(go: Go, keys: KeyFiles) -> None:
    foreign = make_client(go, keys, signing_key=keys.foreign, public_key=keys.creator.hex, chain_issuer=True)
    token = make_client(go, keys, signing_key=keys.creator, issued_by=foreign)
    assert fault(token, issuer()) == TokenFault.CHAIN_ORG_SIGNATURE


def test_expired(go: Go, keys: KeyFiles) -> None:
    verified = accepted(make_client(go, keys, seconds=HOUR), issuer())
    assert verified.claims.exp is not None
    with pytest.raises(TokenRejected, match="token_expired"):
        check_times(verified, verified.claims.exp)


def test_ids_contain_their_time(go: Go, keys: KeyFiles) -> None:
    claims = accepted(make_client(go, keys), issuer()).claims
    assert ksuid.timestamp(claims.jti) == claims.iat == go.ask("ksuid", id=claims.jti)
    ours = ksuid.new(int(time.time()))
    assert go.ask("ksuid", id=ours) == ksuid.timestamp(ours)
    largest = "aWgEPTl1tmebfsQzFP4bxwgy80V"  # 20 bytes of 0xff, the format's last id
    assert go.ask("ksuid", id=largest) == ksuid.timestamp(largest)
    with pytest.raises(GoRefused):
        go.ask("ksuid", id=largest[:-1] + "W")
    assert ksuid.timestamp(largest[:-1] + "W") is None


@pytest.mark.parametrize("make", ["client", "server"])
def test_credentials_of_go_client(go: Go, keys: KeyFiles, make: str) -> None:
    token = {"client": make_client, "server": make_server}[make](go, keys)
    seed = str(keys.subject.private)
    offered = go.ask("connect", token=token, collective="mcollective", seed=seed, nonce=NONCE)
    claims = accepted(offered["token"], issuer()).claims
    verify_nonce(claims, NONCE, offered["signature"])
    with pytest.raises(TokenRejected, match="nonce_signature"):
        verify_nonce(claims, NONCE + "x", offered["signature"])
    if isinstance(claims, ClientClaims):  # it may receive replies to its requests
        assert offered["inbox"].replace("mcollective", "*") + ".>" in permissions.client(claims).sub.allow
    else:
        assert isinstance(claims, ServerClaims)
        assert offered["inbox"] + ".>" in permissions.server(claims).sub.allow


@pytest.mark.parametrize("kind", ["provisioning", "server", "client", "chain issuer", "issued"])
def test_on_the_command_line(go: Go, keys: KeyFiles, kind: str, tmp_path: Path) -> None:
    made = {
        "provisioning": lambda: make_provisioning(go, keys.org),
        "server": lambda: make_server(go, keys),
        "client": lambda: make_client(go, keys),
        "chain issuer": lambda: make_issuer(go, keys),
        "issued": lambda: make_client(go, keys, signing_key=keys.creator, issued_by=make_issuer(go, keys)),
    }
    file = tmp_path / "token.jwt"
    file.write_text(made[kind]() + "\n", encoding="ascii")
    assert check(file, keys.org).returncode == 0
    refused = check(file, keys.foreign)
    assert refused.returncode == 1
    assert "token rejected" in refused.stderr


def check(file: Path, key: KeyFile) -> subprocess.CompletedProcess[str]:
    """Run ``broker-auth token check`` with one issuer."""
    command = [
        sys.executable,
        "-m",
        "broker_auth",
        "token",
        "check",
        str(file),
        "--issuer",
        f"{ORGANIZATION}={key.hex}",
    ]
    return subprocess.run(command, check=False, capture_output=True, text=True, timeout=60)


# --- Making them


def make_provisioning(go: Go, key: KeyFile) -> str:
    everything = {
        "secret": "s3cret",
        "secure": True,
        "default": True,
        "user": "u",
        "password": "p",
        "urls": ["nats://127.0.0.1:4222", "nats://127.0.0.1:4223"],
        "registration": "/etc/registration.json",
        "facts": "/etc/facts.json",
        "extensions": {"site": {"name": "lab"}},
        "protocol_v2": True,
        "allow_update": True,
    }
    return _make(go, kind="provisioning", signing_key=str(key.private), **everything)


def make_server(go: Go, keys: KeyFiles, signing_key: KeyFile | None = None, **more: Any) -> str:
    args = {"identity": "node1.example.net", "collectives": ["mcollective", "eu"], "public_key": keys.subject.hex}
    return _make(go, kind="server", signing_key=str((signing_key or keys.org).private), **(args | more))


def make_client(go: Go, keys: KeyFiles, signing_key: KeyFile | None = None, **more: Any) -> str:
    args = {"identity": "up=alice", "public_key": keys.subject.hex}
    return _make(go, kind="client", signing_key=str((signing_key or keys.org).private), **(args | more))


def make_issuer(go: Go, keys: KeyFiles) -> str:
    return make_client(go, keys, identity="aaa=login", public_key=keys.creator.hex, chain_issuer=True, seconds=DAY)


def _make(go: Go, **request: Any) -> str:
    token = go.ask("make", **({"seconds": HOUR} | request))
    assert isinstance(token, str)
    return token


# --- Verifying them


def issuer() -> TrustedKeys:
    """Trust in the organization."""
    return TrustedKeys(issuers={ORGANIZATION: ORG.verifies})


def signers(key: VerificationKey) -> TrustedKeys:
    """Trust in a signer of provisioning tokens."""
    return TrustedKeys(issuers={}, provisioning=(key,))


def accepted(token: str, trusted: TrustedKeys) -> Verified:
    """Verify the token at the current time and return it."""
    examined = TokenVerifier(trusted).examine(token)
    assert isinstance(examined, Verified), examined
    check_times(examined, time.time())
    return examined


def fault(token: str, trusted: TrustedKeys) -> TokenFault:
    """Return why the token is rejected."""
    examined = TokenVerifier(trusted).examine(token)
    assert isinstance(examined, Rejected)
    return examined.fault
