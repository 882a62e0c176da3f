"""Tokens that we issue: verified by choria-io/tokens."""

from __future__ import annotations

import time
from typing import Any

import pytest

from broker_auth.secret import Secret
from broker_auth.tokens.bounds import make_bounds
from broker_auth.tokens.issue import (
    CLIENT_FLAGS,
    SERVER_FLAGS,
    Claims,
    SigningKey,
    client_claims,
    issue_under,
    load_signing_key,
    make_chain_issuer,
    provisioning_claims,
    server_claims,
)
from tests.builders.clock import DAY, HOUR
from tests.builders.tokens import HOLDER, NONCE, nonce_signature
from tests.interop.golang import Go, GoRefused
from tests.interop.keyfiles import KeyFile, KeyFiles


@pytest.mark.parametrize("signer", ["rsa", "org"])
def test_provisioning(go: Go, keys: KeyFiles, signer: str) -> None:
    key: KeyFile = getattr(keys, signer)
    token = signing(key).sign(
        provisioning_claims(
            now=time.time(),
            validity=HOUR,
            token=Secret("s3cret"),
            urls=["nats://127.0.0.1:4222", "nats://127.0.0.1:4223"],
            srv_domain="example.net",
            secure=True,
            default=True,
            registration="/etc/registration.json",
            facts="/etc/facts.json",
            username="u",
            password=Secret("p"),
            extensions={"site": {"name": "lab"}},
            bounds=make_bounds(["node1.example.net", r"/spare\d+/"], ["192.0.2.0/24"], 3),
            protocol_v2=True,
            allow_update=True,
        )
    )
    claims = go.ask("check", kind="provisioning", token=token, key=str(key.public))
    assert {name: claims[name] for name in ("cht", "chs", "chpd", "chu", "chsrv", "chrd", "chf", "chusr", "chpwd")} == {
        "cht": "s3cret",
        "chs": True,
        "chpd": True,
        "chu": "nats://127.0.0.1:4222,nats://127.0.0.1:4223",
        "chsrv": "example.net",
        "chrd": "/etc/registration.json",
        "chf": "/etc/facts.json",
        "chusr": "u",
        "chpwd": "p",
    }
    bounds = {"names": ["node1.example.net", r"/spare\d+/"], "networks": ["192.0.2.0/24"], "max_nodes": 3}
    assert claims["extensions"] == {"site": {"name": "lab"}, "broker-auth": bounds}
    assert (claims["v2"], claims["update"]) == (True, True)
    look = go.ask("look", token=token)
    assert look == {"purpose": "choria_provisioning", "algorithm": {"rsa": "RS256", "org": "EdDSA"}[signer]}


def test_provisioning_by_a_foreign_key(go: Go, keys: KeyFiles) -> None:
    token = signing(keys.foreign).sign(
        provisioning_claims(now=time.time(), validity=HOUR, token=Secret("x"), urls=["nats://127.0.0.1:4222"])
    )
    with pytest.raises(GoRefused, match="signature is invalid"):
        go.ask("check", kind="provisioning", token=token, key=str(keys.org.public))


@pytest.mark.parametrize("flags", [*((flag,) for flag in SERVER_FLAGS if flag != "governor"), SERVER_FLAGS, ()])
def test_server(go: Go, keys: KeyFiles, flags: tuple[str, ...]) -> None:
    token = signing(keys.org).sign(server(permissions=flags, publish=["acme.registration.>"]))
    claims = go.ask("check", kind="server", token=token, key=str(keys.org.public))
    assert claims["permissions"] == dict.fromkeys(flags, True)
    assert (claims["identity"], claims["collectives"]) == ("node1.example.net", ["mcollective", "eu"])
    assert (claims["pub_subjects"], claims["public_key"]) == (["acme.registration.>"], HOLDER.hex)


@pytest.mark.parametrize("flags", [*((flag,) for flag in CLIENT_FLAGS), CLIENT_FLAGS, ()])
def test_client(go: Go, keys: KeyFiles, flags: tuple[str, ...]) -> None:
    made = client(
        permissions=flags,
        agents=["rpcutil.*"],
        publish=["a.>"],
        subscribe=["b.*"],
        opa_policy="package x",
        properties={"group": "ops"},
    )
    claims = go.ask("check", kind="client", token=signing(keys.org).sign(made), key=str(keys.org.public))
    assert claims["permissions"] == dict.fromkeys(flags, True)
    assert (claims["pub_subjects"], claims["sub_subjects"]) == (["a.>"], ["b.*"])
    assert (claims["opa_policy"], claims["user_properties"]) == ("package x", {"group": "ops"})
    assert (claims["callerid"], claims["agents"], claims["ou"]) == ("up=alice", ["rpcutil.*"], "choria")


def test_chain_issuer(go: Go, keys: KeyFiles) -> None:
    token = chain_issuer(keys)
    go.ask("check", kind="client", token=token, key=str(keys.org.public))
    assert go.ask("chain", token=token, org=keys.org.hex) == {
        "signed": True,
        "signer": keys.org.hex,
        "may_issue": True,
        "is_expired": False,
    }
    with pytest.raises(GoRefused, match="public keys do not match"):
        go.ask("chain", token=token, org=keys.foreign.hex)


@pytest.mark.parametrize("kind", ["client", "server"])
def test_issued_by_a_chain_issuer(go: Go, keys: KeyFiles, kind: str) -> None:
    claims = issue_under({"client": client, "server": server}[kind](), chain_issuer(keys), signing(keys.creator))
    token = signing(keys.creator).sign(claims)
    assert go.ask("check", kind=kind, token=token, key=str(keys.org.public))["issexp"] == claims["issexp"]
    with pytest.raises(GoRefused, match="not signed by org issuer"):
        go.ask("check", kind=kind, token=token, key=str(keys.foreign.public))


def test_issued_here_with_chain_issuer_made_by_go(go: Go, keys: KeyFiles) -> None:
    theirs = go.ask(
        "make",
        kind="client",
        signing_key=str(keys.org.private),
        identity="aaa=login",
        public_key=keys.creator.hex,
        seconds=DAY,
        chain_issuer=True,
    )
    token = signing(keys.creator).sign(issue_under(client(), theirs, signing(keys.creator)))
    go.ask("check", kind="client", token=token, key=str(keys.org.public))


def test_go_client_connects_with_token(go: Go, keys: KeyFiles) -> None:
    token = signing(keys.org).sign(client())
    seed = str(keys.subject.private)
    offered = go.ask("connect", token=token, collective="mcollective", seed=seed, nonce=NONCE)
    assert offered["token"] == token
    assert offered["signature"] == nonce_signature()  # Ed25519 signs deterministically
    assert go.ask("verify_nonce", public_key=HOLDER.hex, nonce=NONCE, signature=nonce_signature())


def signing(key: KeyFile) -> SigningKey:
    return load_signing_key(key.private.read_bytes(), key.key.name)


def server(**more: Any) -> Claims:
    args: dict[str, Any] = {
        "now": time.time(),
        "validity": HOUR,
        "identity": "node1.example.net",
        "public_key": HOLDER.hex,
        "collectives": ["mcollective", "eu"],
    }
    return server_claims(**(args | more))


def client(**more: Any) -> Claims:
    args: dict[str, Any] = {
        "now": time.time(),
        "validity": HOUR,
        "caller_id": "up=alice",
        "public_key": HOLDER.hex,
    }
    return client_claims(**(args | more))


def chain_issuer(keys: KeyFiles) -> str:
    org = signing(keys.org)
    claims = client(caller_id="aaa=login", public_key=keys.creator.hex, validity=DAY)
    return org.sign(make_chain_issuer(claims, org))
