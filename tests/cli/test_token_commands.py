"""``token provisioning|server|client|keys``: the written files are complete, private and valid."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import Any

import pytest

from broker_auth.cli import token_provisioning
from broker_auth.errors import InputError
from broker_auth.files.writing import write_private
from tests.cli.conftest import PEM_KEYS, PROVISIONING, KeyDirectory
from tests.cli.running import PASSWORD_SECRET, TOKEN_SECRET, run, spawn


def claims_of(token: Path) -> dict[str, Any]:
    """Return the masked claims of a token, whose file must be private and without a line end."""
    assert token.stat().st_mode & 0o777 == 0o600
    assert token.read_text().strip() == token.read_text()
    claims: dict[str, Any] = run("token", "inspect", token, "--json").json["claims"]
    return claims


def raw_claims(token: Path) -> dict[str, Any]:
    """Return the claims of a token, including secrets."""
    import base64

    part = token.read_text().split(".")[1]
    claims: dict[str, Any] = json.loads(base64.urlsafe_b64decode(part + "=" * (-len(part) % 4)))
    return claims


# --- Round trips


@pytest.mark.parametrize("kind", ["provisioning", "server", "client", "chain_issuer"])
def test_issued_token_is_accepted(key_directory: KeyDirectory, kind: str) -> None:
    token = getattr(key_directory, kind)()
    accepted = run("token", "check", token, *key_directory.trust)
    assert (accepted.code, accepted.err) == (0, "")
    assert accepted.out.startswith("accepted: choria_")
    by_key = run("token", "check", token, "--signer", key_directory.path / "org.public", "--json")
    if kind == "chain_issuer":  # trust chains need an organization (docs/policy.md#two-modes)
        assert by_key.code == 0
    assert by_key.json["valid"] is True


@pytest.mark.parametrize("name", PEM_KEYS)
@pytest.mark.parametrize("kind", ["provisioning", "server", "client"])
def test_every_type_of_key_signs_every_kind_of_token(
    key_directory: KeyDirectory, pem_keys: Path, name: str, kind: str
) -> None:
    key, subject = pem_keys / f"{name}.key", key_directory.path / "holder.public"
    options: dict[str, tuple[object, ...]] = {
        "provisioning": (key, *PROVISIONING),
        "server": ("node1.example.net", subject, key),
        "client": ("up=alice", key, "--public-key", subject),
    }
    token = key_directory.token(kind, *options[kind])
    accepted = run("token", "check", token, "--signer", pem_keys / f"{name}.pem", "--json")
    assert accepted.code == 0, accepted.json["reason"]
    assert accepted.json["signer"] == str(pem_keys / f"{name}.pem")
    rejected = run("token", "check", token, "--signer", key_directory.path / "foreign.public")
    assert rejected.code == 1


@pytest.mark.parametrize("kind", ["server", "client"])
def test_chain_verifies_from_end_to_end(key_directory: KeyDirectory, kind: str) -> None:
    issuer, seed, subject = (
        key_directory.chain_issuer(),
        key_directory.path / "aaa.seed",
        key_directory.path / "holder.public",
    )
    under = ("--chain-issuer-token", issuer, "--validity", "9d")
    options: dict[str, tuple[object, ...]] = {
        "server": ("node1.example.net", subject, seed, *under),
        "client": ("up=bob", seed, "--public-key", subject, *under),
    }
    token = key_directory.token(kind, *options[kind])
    checked = run("token", "check", token, *key_directory.trust, "--json").json
    assert checked["valid"] is True
    assert checked["signer"] == f"choria via {claims_of(issuer)['jti']}"
    assert checked["claims"]["exp"] == claims_of(issuer)["exp"], "it outlives its issuer"
    foreign = run("token", "check", token, "--issuer", f"choria={key_directory.path / 'foreign.public'}")
    assert foreign.code == 1
    assert "chain_org_signature" in foreign.error


def test_issuing_requires_the_key_of_the_chain_issuer(key_directory: KeyDirectory) -> None:
    args = ("--public-key", key_directory.path / "holder.public", "--chain-issuer-token", key_directory.chain_issuer())
    out = key_directory.path / "new.jwt"
    assert (
        "not the key of the chain issuer"
        in run("token", "client", out, "up=b", key_directory.path / "foreign.seed", *args).error
    )
    assert not out.exists()


# --- Options


def test_provisioning_by_srv_domain(key_directory: KeyDirectory) -> None:
    token = key_directory.token(
        "provisioning", key_directory.path / "org.seed", "--token", TOKEN_SECRET, "--srv", "example.net"
    )
    claims = raw_claims(token)
    assert claims["chsrv"] == "example.net"
    assert "chu" not in claims


def test_provisioning_options(key_directory: KeyDirectory) -> None:
    secret = key_directory.path / "password"
    secret.write_text(PASSWORD_SECRET + "\n")
    secret.chmod(0o600)
    token = key_directory.token(
        "provisioning",
        key_directory.path / "org.seed",
        *PROVISIONING,
        *("--urls", "nats://b:4222", "--default", "--no-insecure"),
        *("--registration", "/r", "--facts", "/f", "--username", "node", "--password", f"file:{secret}"),
        *("--extensions", '{"location": "lhr"}', "--org", "acme", "--protocol-v2", "--upgrade", "--validity", "1d"),
    )
    claims = raw_claims(token)
    assert claims["exp"] - claims["iat"] == 86_400
    expected = {
        "cht": TOKEN_SECRET,
        "chs": True,
        "chu": "nats://provision.example.net:4222,nats://b:4222",
        "chpd": True,
        "chrd": "/r",
        "chf": "/f",
        "chusr": "node",
        "chpwd": PASSWORD_SECRET,
        "extensions": {"location": "lhr"},
        "ou": "acme",
        "v2": True,
        "update": True,
    }
    assert {name: claims[name] for name in expected} == expected


def test_provisioning_is_insecure_by_default_as_in_choria(key_directory: KeyDirectory) -> None:
    claims = claims_of(key_directory.provisioning())
    assert (claims["chs"], claims["chpd"], claims["ou"]) == (False, False, "choria")
    assert claims["exp"] - claims["iat"] == 365 * 86_400
    assert claims_of(key_directory.provisioning("--update"))["update"] is True


@pytest.mark.parametrize("way", ["environment", "file"])
def test_access_token_can_be_kept_off_the_command_line(key_directory: KeyDirectory, way: str) -> None:
    out, secret = key_directory.path / "p.jwt", key_directory.path / "token.txt"
    secret.write_text(TOKEN_SECRET)
    secret.chmod(0o600)
    args = ("token", "provisioning", out, key_directory.path / "org.seed", "--urls", "nats://a:4222")
    options = ("--token", f"file:{secret}") if way == "file" else ()
    made = run(*args, *options, env={"PROVISIONING_TOKEN": TOKEN_SECRET} if way == "environment" else {})
    assert made.code == 0, made.err
    assert raw_claims(out)["cht"] == TOKEN_SECRET


def test_access_token_is_prompted_for_on_a_terminal(
    key_directory: KeyDirectory, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Terminal:
        class stdin:
            @staticmethod
            def isatty() -> bool:
                return True

    monkeypatch.setattr(token_provisioning, "sys", Terminal)
    out = key_directory.path / "p.jwt"
    made = run(
        "token", "provisioning", out, key_directory.path / "org.seed", "--urls", "u:4222", stdin=f"{TOKEN_SECRET}\n"
    )
    assert made.code == 0
    assert raw_claims(out)["cht"] == TOKEN_SECRET


def test_access_token_is_required_without_a_terminal(key_directory: KeyDirectory) -> None:
    refused = spawn(
        "token", "provisioning", key_directory.path / "p.jwt", key_directory.path / "org.seed", "--urls", "u:4222"
    )
    assert refused.code == 2
    assert "give --token" in refused.error


SERVER_FLAGS = [
    ((), {}),
    (("--submission",), {"submission": True}),
    (("--stream-user",), {"streams": True}),
    (("--stream-user", "--governor"), {"streams": True, "governor": True}),
    (("--service",), {"service_host": True}),
]


@pytest.mark.parametrize(("options", "permissions"), SERVER_FLAGS)
def test_server_flags(key_directory: KeyDirectory, options: tuple[str, ...], permissions: dict[str, bool]) -> None:
    assert claims_of(key_directory.server(*options))["permissions"] == permissions


def test_server_options(key_directory: KeyDirectory) -> None:
    options = ("--collectives", "a", "--collectives", "b", "--org", "acme", "--subjects", "x.>", "--validity", "2h")
    claims = claims_of(key_directory.server(*options))
    assert (claims["collectives"], claims["ou"], claims["pub_subjects"]) == (["a", "b"], "acme", ["x.>"])
    assert claims["exp"] - claims["iat"] == 7200
    plain = claims_of(key_directory.server())
    assert (plain["collectives"], plain["exp"] - plain["iat"]) == (["mcollective"], 365 * 86_400)
    assert plain["public_key"] == (key_directory.path / "holder.public").read_text()


FLEET = {"fleet_management": True}
CLIENT_FLAGS = [
    ((), FLEET),
    (("--no-fleet-management",), {}),
    (("--stream-admin",), FLEET | {"streams_admin": True}),
    (("--stream-user",), FLEET | {"streams_user": True}),
    (("--event-viewer",), FLEET | {"events_viewer": True}),
    (("--elections-user",), FLEET | {"election_user": True}),
    (("--service",), FLEET | {"service": True}),
    (("--system",), FLEET | {"system_user": True}),
    (("--auth-delegation",), FLEET | {"authentication_delegator": True}),
    (("--org-admin",), FLEET | {"org_admin": True}),
    (("--governor",), FLEET | {"governor": True}),
    (("--signed-fleet-management", "--no-fleet-management"), FLEET | {"signed_fleet_management": True}),
    (("--server-provisioner", "--no-fleet-management"), FLEET | {"provisioner": True}),
    (("--issuer", "--signed-fleet-management", "--auth-delegation"), {}),
    (("--issuer", "--stream-user"), {"streams_user": True}),
]


@pytest.mark.parametrize(("options", "permissions"), CLIENT_FLAGS)
def test_client_flags(key_directory: KeyDirectory, options: tuple[str, ...], permissions: dict[str, bool]) -> None:
    assert claims_of(key_directory.client(*options))["permissions"] == permissions


def test_client_options(key_directory: KeyDirectory) -> None:
    policy = key_directory.path / "policy.rego"
    policy.write_text("package choria\n")
    options = ("--agents", "rpcutil", "--agents", "puppet.status", "--org", "acme", "--opa-file", policy)
    claims = claims_of(key_directory.client(*options, "--publish", "p.>", "--subscribe", "s.>", "--validity", "90m"))
    assert claims["exp"] - claims["iat"] == 5400
    expected = {
        "callerid": "up=alice",
        "agents": ["rpcutil", "puppet.status"],
        "ou": "acme",
        "opa_policy": "package choria\n",
        "pub_subjects": ["p.>"],
        "sub_subjects": ["s.>"],
    }
    assert {name: claims[name] for name in expected} == expected
    plain = claims_of(key_directory.client("--opa", "package x"))
    assert (plain["opa_policy"], plain["exp"] - plain["iat"]) == ("package x", 3600)


def test_client_token_without_public_key_causes_a_warning(key_directory: KeyDirectory) -> None:
    made = run("token", "client", key_directory.path / "c.jwt", "up=alice", key_directory.path / "org.seed")
    assert made.code == 0
    assert made.err.startswith("Warning: without --public-key a broker refuses the token")
    assert run("token", "check", key_directory.path / "c.jwt", *key_directory.trust).code == 1


UNUSABLE = [
    ("server", ("node 1",), (), "'identity'"),
    ("server", ("node.*",), (), "'identity'"),
    ("server", ("node",), ("--collectives", "a.b"), "'collectives'"),
    ("server", ("node",), ("--subjects", "a..b"), "'pub_subjects'"),
    ("client", ("up=alice",), ("--publish", "a b"), "'pub_subjects'"),
    ("client", ("up=alice",), ("--subscribe", ">.a"), "'sub_subjects'"),
    ("client", ("up=alice",), ("--org", "a.b", "--stream-user"), "'ou'"),
]


@pytest.mark.parametrize(("kind", "identity", "options", "says"), UNUSABLE)
def test_token_that_brokers_would_refuse_is_not_issued(
    key_directory: KeyDirectory, kind: str, identity: tuple[str], options: tuple[str, ...], says: str
) -> None:
    key = (
        (key_directory.path / "holder.public", key_directory.path / "org.seed")
        if kind == "server"
        else (key_directory.path / "org.seed",)
    )
    refused = run("token", kind, key_directory.path / "new.jwt", *identity, *key, *options)
    assert (refused.code, refused.out) == (1, "")
    assert "would be refused: token claim " + says in refused.err
    assert not (key_directory.path / "new.jwt").exists()


@pytest.mark.parametrize("extensions", ["{", "[]", '"x"', "[" * 5000])
def test_extensions_must_be_a_json_object(key_directory: KeyDirectory, extensions: str) -> None:
    args = ("token", "provisioning", key_directory.path / "p.jwt", key_directory.path / "org.seed", *PROVISIONING)
    refused = run(*args, "--extensions", extensions)
    assert refused.code == 2
    assert "--extensions is not" in refused.error


# --- Files


def test_files_are_overwritten_only_with_force(key_directory: KeyDirectory) -> None:
    token = key_directory.provisioning()
    before = token.read_text()
    again = ("token", "provisioning", token, key_directory.path / "org.seed", *PROVISIONING)
    refused = run(*again)
    assert (refused.code, token.read_text()) == (1, before)
    assert "exists; give another name, or --force to overwrite it" in refused.error
    assert run(*again, "--force").code == 0
    assert token.read_text() != before
    assert token.stat().st_mode & 0o777 == 0o600


def test_file_created_concurrently_is_not_overwritten(tmp_path: Path) -> None:
    file = tmp_path / "a.jwt"
    file.write_text("precious")
    with pytest.raises(InputError, match="exists"):
        write_private(file, b"text", force=False)  # an earlier check did not see the file
    assert file.read_text() == "precious"
    assert os.listdir(tmp_path) == ["a.jwt"]  # noqa: PTH208 - names alone


def test_symbolic_link_is_not_followed(key_directory: KeyDirectory) -> None:
    target, link = key_directory.path / "target", key_directory.path / "link.jwt"
    link.symlink_to(target)
    again = ("token", "provisioning", link, key_directory.path / "org.seed", *PROVISIONING)
    assert run(*again).code == 1
    assert run(*again, "--force").code == 0
    assert not target.exists()
    assert not link.is_symlink()


def test_no_temporary_files_remain(key_directory: KeyDirectory) -> None:
    before = set(key_directory.path.iterdir())
    token = key_directory.provisioning()
    assert set(key_directory.path.iterdir()) - before == {token}


def test_token_can_be_written_to_standard_output(key_directory: KeyDirectory) -> None:
    made = run("token", "server", "-", "node", key_directory.path / "holder.public", key_directory.path / "org.seed")
    assert run("token", "check", "-", *key_directory.trust, stdin=made.out).code == 0


def test_issuing_reports_json(key_directory: KeyDirectory) -> None:
    out = key_directory.path / "p.jwt"
    made = run("token", "provisioning", out, key_directory.path / "org.seed", *PROVISIONING, "--json")
    claims = claims_of(out)
    assert made.json["file"] == str(out)
    assert made.json["purpose"] == "choria_provisioning"
    assert made.json["token_id"] == claims["jti"]
    assert made.json["expires"].endswith("Z")


@pytest.mark.parametrize(("mode", "code", "says"), [(0o600, 0, ""), (0o640, 0, "Warning: "), (0o604, 1, "Error: ")])
def test_signing_keys_must_not_be_accessible_to_every_user(
    key_directory: KeyDirectory, mode: int, code: int, says: str
) -> None:
    seed = key_directory.path / "org.seed"
    seed.chmod(mode)
    made = run("token", "provisioning", key_directory.path / "p.jwt", seed, *PROVISIONING)
    assert (made.code, (key_directory.path / "p.jwt").exists()) == (code, code == 0)
    assert made.err.startswith(says)
    assert ("chmod 600" in made.err) is bool(says)


def test_signing_key_can_be_read_from_standard_input(key_directory: KeyDirectory) -> None:
    seed = (key_directory.path / "org.seed").read_text()
    made = run("token", "provisioning", key_directory.path / "p.jwt", "-", *PROVISIONING, stdin=seed)
    assert (made.code, made.err) == (0, "")
    assert run("token", "check", key_directory.path / "p.jwt", *key_directory.trust).code == 0


def test_secret_files_must_be_private(key_directory: KeyDirectory) -> None:
    secret = key_directory.path / "token.txt"
    secret.write_text(TOKEN_SECRET)
    secret.chmod(0o644)
    args = ("token", "provisioning", key_directory.path / "p.jwt", key_directory.path / "org.seed", "--urls", "u:4222")
    refused = run(*args, "--token", f"file:{secret}")
    assert (refused.code, refused.out) == (1, "")
    assert "has mode 0644" in refused.error


# --- Keys


def test_keys_have_chorias_format(tmp_path: Path) -> None:
    seed, public = tmp_path / "a.seed", tmp_path / "a.public"
    made = run("token", "keys", seed, public)
    assert (made.code, made.err) == (0, "")
    for file in (seed, public):
        assert len(file.read_bytes()) == 64
        assert bytes.fromhex(file.read_text())
        assert file.stat().st_mode & 0o777 == 0o600
    assert seed.read_text() not in made.out
    assert made.out == f"Public key: {public.read_text()}\nSeed: {seed}\n"
    shown = run("token", "keys", seed, "--show-public", "--json")
    assert shown.json == {"public_key": public.read_text(), "seed_file": str(seed)}


@pytest.mark.parametrize("existing", ["a.seed", "a.public"])
def test_keys_are_overwritten_only_with_force(tmp_path: Path, existing: str) -> None:
    (tmp_path / existing).write_text("precious")
    args = ("token", "keys", tmp_path / "a.seed", tmp_path / "a.public")
    refused = run(*args)
    assert (refused.code, os.listdir(tmp_path)) == (1, [existing])  # noqa: PTH208 - names alone
    assert (tmp_path / existing).read_text() == "precious"
    assert run(*args, "--force").code == 0
    assert len((tmp_path / existing).read_text()) == 64


def test_public_key_can_be_shown_only_for_seeds(pem_keys: Path) -> None:
    shown = run("token", "keys", pem_keys / "p256.key", "--show-public")
    assert shown.code == 1
    assert "not an Ed25519 seed" in shown.error


# --- How long chain issuers are accepted


def ends(issuer: Path) -> str:
    """Return the date from which brokers with default settings deny a chain issuer, by the time in its id."""
    made = claims_of(issuer)["iat"] + 366 * 86_400
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(made))


def test_issuing_prints_the_end_of_the_chain_issuer(key_directory: KeyDirectory) -> None:
    new, seed, key = key_directory.path / "new.jwt", key_directory.path / "org.seed", key_directory.path / "aaa.public"
    args = ("--public-key", key, "--issuer", "--validity", "1y")
    made = run("token", "client", new, "aaa=login", seed, *args)
    assert (made.code, made.err) == (0, "")
    assert f"accepted until {ends(new)}" in made.out
    under = ("--public-key", key_directory.path / "holder.public", "--chain-issuer-token", new, "--json")
    issued = run("token", "client", key_directory.path / "b.jwt", "up=b", key_directory.path / "aaa.seed", *under)
    assert issued.json["chain_issuer_ends"] == ends(new)


def test_issuing_warns_about_a_validity_beyond_the_maximum_age(key_directory: KeyDirectory) -> None:
    new, seed, key = key_directory.path / "new.jwt", key_directory.path / "org.seed", key_directory.path / "aaa.public"
    made = run("token", "client", new, "aaa=login", seed, "--public-key", key, "--issuer", "--validity", "5y")
    assert made.code == 0
    assert f"brokers deny it from {ends(new)} on" in made.err


def test_check_and_inspect_print_the_end_of_the_chain_issuer(key_directory: KeyDirectory) -> None:
    issuer = key_directory.chain_issuer()
    checked = run("token", "check", issuer, *key_directory.trust)
    assert f"accepted until {ends(issuer)}" in checked.out
    assert run("token", "check", issuer, *key_directory.trust, "--json").json["chain_issuer"] == {
        "token_id": claims_of(issuer)["jti"],
        "ends": ends(issuer),
    }
    assert f"accepted until {ends(issuer)}" in run("token", "inspect", issuer).out
    assert "Chain issuer" not in run("token", "inspect", key_directory.client()).out
