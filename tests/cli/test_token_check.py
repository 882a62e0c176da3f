"""``token check`` and ``token inspect``: accepted, rejected with the reason, without secrets in output."""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from broker_auth.times import short_duration
from tests.builders.buckets import bucket_keys
from tests.builders.tokens import (
    ABSENT,
    CREATOR,
    FOREIGN,
    HOLDER,
    ORG,
    Claims,
    client_claims,
    creator_claims,
    issued,
    ksuid,
    org_issuer,
    provisioning_claims,
    rsa_key,
    server_claims,
    sign,
    sign_hmac,
)
from tests.cli.running import PASSWORD_SECRET, TOKEN_SECRET, run, spawn

START = int(time.time())
DAY = 86_400
TRUST = ("--issuer", f"choria={ORG.hex}")
TIMES: Claims = {"iat": START, "nbf": START, "exp": START + 10 * DAY}


def a_provisioning(**changes: Any) -> Claims:
    secrets = {"cht": TOKEN_SECRET, "chpwd": PASSWORD_SECRET}
    return provisioning_claims(**(TIMES | secrets | changes))


def a_server(**changes: Any) -> Claims:
    return server_claims(**(TIMES | {"jti": ksuid(START)} | changes))


def a_client(**changes: Any) -> Claims:
    return client_claims(**(TIMES | {"jti": ksuid(START)} | changes))


def check(token: str, *options: object, trust: tuple[str, ...] = TRUST) -> Any:
    """Return the JSON of ``token check``; its exit code must say the same."""
    done = run("token", "check", "-", *trust, *options, "--json", stdin=token)
    soon = done.json["code"] == "min_validity" and "; " not in done.json["reason"]
    assert done.code == (0 if done.json["valid"] else 3 if soon else 1)
    assert done.err == ""
    assert (done.json["reason"] is None) is done.json["valid"]
    return done.json


# --- Accepted


def test_json_document_is_complete(tmp_path: Path) -> None:
    token = tmp_path / "p.jwt"
    claims = a_provisioning(jti="an id", issexp=START + DAY)
    token.write_text(f"\n {sign(claims, ORG)}\r\n\n")
    accepted = run("token", "check", token, *TRUST, "--json")
    assert (accepted.code, accepted.err) == (0, "")
    assert accepted.json == {
        "file": str(token),
        "valid": True,
        "code": "accepted",
        "reason": None,
        "purpose": "choria_provisioning",
        "signer": "choria",
        "claims": claims | {"cht": "*****", "chpwd": "*****"},
        "expires": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(START + DAY)),
        "chain_issuer": None,
        "bounds": None,
    }


@pytest.mark.parametrize("build", [a_provisioning, a_server, a_client])
def test_text_output_shows_claims_without_secrets(build: Callable[..., Claims]) -> None:
    accepted = run("token", "check", "-", *TRUST, stdin=sign(build(), ORG))
    assert (accepted.code, accepted.err) == (0, "")
    first, *others = accepted.out.splitlines()
    assert first.startswith(f"accepted: {build()['purpose']} token signed by choria, expires in 9d 23h")
    assert any(line.strip() == "Organization: choria" for line in others)


def test_untrusted_text_is_escaped_on_the_terminal() -> None:
    accepted = run("token", "check", "-", *TRUST, stdin=sign(a_client(callerid="a\x1b[2J\nb"), ORG))
    assert accepted.code == 0
    assert "\x1b" not in accepted.out
    assert "Caller id: a\\x1b[2J b" in accepted.out


@pytest.mark.parametrize("signer", ["hex", "hex file", "pem file"])
def test_signers_are_accepted_in_every_form(tmp_path: Path, signer: str) -> None:
    file = tmp_path / "signer"
    file.write_bytes(ORG.public_pem if signer == "pem file" else ORG.hex.encode() + b"\n")
    argument = ORG.hex if signer == "hex" else str(file)
    trust = ("--signer", FOREIGN.hex, "--signer", argument)
    for claims in (a_provisioning(), a_server(), a_client()):
        assert check(sign(claims, ORG), trust=trust)["valid"] is True
    assert check(sign(a_client(), HOLDER), trust=trust)["reason"].startswith("token_signature: ")


def test_each_issuer_signs_its_own_organization(tmp_path: Path) -> None:
    file = tmp_path / "acme.public"
    file.write_text(FOREIGN.hex + "\n")
    trust = (*TRUST, "--issuer", f"acme={file}")
    assert check(sign(a_client(ou="acme"), FOREIGN), trust=trust)["signer"] == "acme"
    assert check(sign(a_client(ou="acme"), ORG), trust=trust)["valid"] is False
    assert check(sign(a_client(), ORG), trust=trust)["signer"] == "choria"


# --- Rejected, each with its code

REJECTED: list[tuple[str, Callable[[], str]]] = [
    ("token_not_compact", lambda: ""),
    ("token_not_compact", lambda: "one.two"),
    ("token_not_compact", lambda: "töken"),
    ("token_too_large", lambda: "x" * 17_000),
    ("token_encoding", lambda: "a*.b.c"),
    ("token_signature", lambda: sign(a_client(), FOREIGN)),
    ("token_algorithm", lambda: sign(a_client(), rsa_key("stranger"))),
    ("token_algorithm", lambda: sign(a_client(), ORG, alg="none")),
    ("token_algorithm", lambda: sign_hmac(a_client(), ORG.public_pem)),
    ("token_expired", lambda: sign(a_client(exp=START - 1), ORG)),
    ("token_issuer_expired", lambda: sign(a_client(issexp=START - 1), ORG)),
    ("token_not_yet_valid", lambda: sign(a_client(nbf=START + DAY), ORG)),
    ("token_issued_in_future", lambda: sign(a_client(iat=START + DAY), ORG)),
    ("token_no_expiry", lambda: sign(a_client(exp=ABSENT), ORG)),
    ("token_purpose", lambda: sign(a_client(purpose="x"), ORG)),
    ("token_issuer_missing", lambda: sign(a_client(ou=ABSENT), ORG)),
    ("token_issuer_unknown", lambda: sign(a_client(ou="acme"), ORG)),
    ("token_claim_missing", lambda: sign(a_client(callerid=ABSENT), ORG)),
    ("token_claim_missing", lambda: sign(a_server(collectives=[]), ORG)),
    ("token_public_key", lambda: sign(a_server(public_key="00"), ORG)),
    ("token_claim_type", lambda: sign(a_client(exp="never"), ORG)),
    ("chain_issuer_key", lambda: sign(org_issuer(a_client(), FOREIGN), ORG)),
    ("chain_org_signature", lambda: sign(org_issuer(a_client()) | {"tcs": "00" * 64}, ORG)),
    ("token_bounds", lambda: sign(a_provisioning(extensions={"broker-auth": {"max_nodes": 0}}), ORG)),
    ("token_signature", lambda: sign(issued(a_server(), creator_token=creator_claims()), ORG)),
]


@pytest.mark.parametrize(("code", "make"), REJECTED)
def test_rejection_has_its_code(code: str, make: Callable[[], str]) -> None:
    token = make()
    assert check(token)["reason"].startswith(f"{code}: ")
    for_people = run("token", "check", "-", *TRUST, stdin=token)
    assert (for_people.code, for_people.out) == (1, "")
    assert for_people.error.startswith(f"token rejected: {code}: ")


def test_claims_are_shown_only_if_the_signature_is_valid() -> None:
    expired = check(sign(a_client(exp=START - 1), ORG))
    assert (expired["purpose"], expired["signer"], expired["claims"]["exp"]) == (
        "choria_client_id",
        "choria",
        START - 1,
    )
    foreign = check(sign(a_client(), FOREIGN))
    assert foreign | {"reason": None} == {
        "file": "-",
        "code": "token_signature",
        "valid": False,
        "reason": None,
        "purpose": "choria_client_id",
        "signer": None,
        "claims": None,
        "expires": None,
        "chain_issuer": None,
        "bounds": None,
    }
    assert check("x.y.z")["purpose"] is None


def test_tokens_that_never_expire() -> None:
    token = sign(a_provisioning(exp=ABSENT), ORG)
    refused = check(token)
    assert "plugin.broker_auth.provisioning.allow_non_expiring_tokens" in refused["reason"]
    accepted = check(token, "--allow-non-expiring")
    assert (accepted["valid"], accepted["expires"]) == (True, None)
    assert check(token, "--allow-non-expiring", "--min-validity", "99y")["valid"] is True
    assert check(token, "--allow-non-expiring", "--max-validity", "99y")["reason"].startswith("max_validity: ")
    assert check(sign(a_client(exp=ABSENT), ORG), "--allow-non-expiring")["valid"] is False


# --- As a monitoring check

EXPECTED: list[tuple[tuple[str, ...], Callable[[], Claims], str | None]] = [
    (("--min-validity", "9d"), a_client, None),
    (("--min-validity", "11d"), a_client, "min_validity: it expires in 9d 23h, less than 11d"),
    (("--validity-min", "11d"), a_client, "min_validity: "),
    (
        ("--min-validity", "2d"),
        lambda: a_client(issexp=START + DAY + DAY // 2),
        "min_validity: it expires in 1d 11h, less than 2d",
    ),
    (("--max-validity", "11d"), a_client, None),
    (("--max-validity", "9d"), a_client, "max_validity: it expires in 9d 23h, more than 9d"),
    (("--purpose", "client"), a_client, None),
    (("--purpose", "server"), a_client, "purpose: it is a choria_client_id token, not a choria_server one"),
    (("--purpose", "server"), a_server, None),
    (("--purpose", "provisioning"), a_provisioning, None),
    (("--purpose", "provisioning"), a_server, "purpose: "),
    (("--identity", "up=alice"), a_client, None),
    (("--identity", "up=bob"), a_client, "identity: it is 'up=alice', not 'up=bob'"),
    (("--identity", "node1.example.net"), a_server, None),
    (("--identity", "node2.example.net"), a_server, "identity: "),
    (("--identity", "node1.example.net"), a_provisioning, "identity: "),
    (("--chain-issuer",), lambda: org_issuer(a_client()), None),
    (("--chain-issuer",), a_client, "chain_issuer: it may not issue others"),
    (("--no-chain-issuer",), lambda: org_issuer(a_client()), "chain_issuer: it may issue others"),
    (("--no-chain-issuer",), a_client, None),
]


@pytest.mark.parametrize(("options", "build", "reason"), EXPECTED)
def test_expectations(options: tuple[str, ...], build: Callable[[], Claims], reason: str | None) -> None:
    checked = check(sign(build(), ORG), *options)
    assert checked["valid"] is (reason is None)
    assert (checked["reason"] or "").startswith(reason or "")
    assert checked["claims"] is not None


def test_every_unmet_expectation_is_reported() -> None:
    reason = check(sign(a_client(), ORG), "--purpose", "server", "--identity", "x", "--min-validity", "1y")["reason"]
    assert [part.partition(":")[0] for part in reason.split("; ")] == ["purpose", "identity", "min_validity"]


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [(0, "0s"), (59.9, "59s"), (60, "1m"), (3661, "1h 1m"), (DAY, "1d"), (400 * DAY + 5, "1y 35d"), (DAY + 5, "1d 5s")],
)
def test_durations_are_shown_in_two_units(seconds: float, shown: str) -> None:
    assert short_duration(seconds, " ") == shown


# --- By configuration


def configuration(directory: Path, **keys: str) -> Path:
    """Return a configuration that trusts ORG as issuer of ``choria``, with these keys besides."""
    file = directory / "broker.conf"
    lines = {"plugin.security.issuer.names": "choria", "plugin.security.issuer.choria.public": ORG.hex}
    file.write_text("".join(f"{key} = {value}\n" for key, value in (lines | keys).items()))
    file.chmod(0o600)
    return file


def test_configuration_sets_the_trusted_keys(tmp_path: Path) -> None:
    trust = ("--config", str(configuration(tmp_path)))
    assert check(sign(a_server(), ORG), trust=trust)["signer"] == "choria"
    assert check(sign(a_server(), FOREIGN), trust=trust)["valid"] is False


def test_configuration_sets_the_strictness(tmp_path: Path) -> None:
    early, endless = sign(a_client(nbf=int(time.time()) + 50), ORG), sign(a_provisioning(exp=ABSENT), ORG)
    trust = ("--config", str(configuration(tmp_path)))
    assert check(early, trust=trust)["reason"].startswith("token_not_yet_valid")
    assert check(endless, trust=trust)["reason"].startswith("token_no_expiry")
    lenient = {
        "plugin.broker_auth.token_leeway": "60s",
        "plugin.broker_auth.provisioning.allow_non_expiring_tokens": "true",
    }
    configuration(tmp_path, **lenient)
    assert check(early, trust=trust)["valid"] is True
    assert check(endless, trust=trust)["valid"] is True


def test_token_for_a_number_of_nodes_needs_a_bucket(tmp_path: Path) -> None:
    token = sign(a_provisioning(extensions={"broker-auth": {"max_nodes": 2}}), ORG)
    trust = ("--config", str(configuration(tmp_path)))
    assert check(token)["code"] == check(sign(a_provisioning(), ORG), trust=trust)["code"] == "accepted"
    refused = check(token, trust=trust)
    assert refused["reason"].startswith("nodes_not_counted: it is for 2 nodes, which no host counts")
    configuration(tmp_path, **bucket_keys(tmp_path))
    assert check(token, trust=trust)["code"] == "accepted"


def test_invalid_configuration_is_an_error_not_a_rejection(tmp_path: Path) -> None:
    broken = configuration(tmp_path, **{"plugin.broker_auth.token_leeway": "61s", "plugin.broker_auth.wrokers": "1"})
    refused = run("token", "check", "-", "--config", broken, "--json", stdin=sign(a_client(), ORG))
    assert (refused.code, list(refused.json)) == (1, ["errors"])
    lines = refused.err.splitlines()
    assert len(lines) == 2
    assert all(line.startswith(f"Error: {broken}:") for line in lines)


# --- As a process


def test_command_works_as_a_process() -> None:
    token = sign(a_client(), ORG).encode()
    accepted = spawn("token", "check", "-", *TRUST, stdin=token + b"\n")
    assert (accepted.code, accepted.err) == (0, "")
    rejected = spawn("token", "check", "-", *TRUST, "--min-validity", "30d", stdin=token)
    assert (rejected.code, rejected.out) == (3, "")
    assert rejected.error.startswith("token rejected: min_validity: ")
    assert spawn("token", "check", "-", *TRUST, stdin=b"\xff\x00" * 9).code == 1
    assert spawn("token", "check", "-", *TRUST, stdin=b"x" * 70_000).error.startswith("standard input holds more")


# --- Inspect


def test_inspect_states_that_nothing_is_verified() -> None:
    shown = run("token", "inspect", "-", stdin=sign(a_provisioning(), FOREIGN))
    assert (shown.code, shown.err) == (0, "")
    first, *others = shown.out.splitlines()
    assert first.startswith("NOT VERIFIED")
    assert "Access token: *****" in shown.out
    assert "Broker password: *****" in shown.out
    assert [line for line in others if "rejected" in line] == []


def test_inspect_prints_json() -> None:
    claims = a_provisioning()
    shown = run("token", "inspect", "-", "--json", stdin=sign(claims, FOREIGN))
    assert shown.json == {
        "verified": False,
        "algorithm": "EdDSA",
        "purpose": "choria_provisioning",
        "claims": claims | {"cht": "*****", "chpwd": "*****"},
        "expires": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(claims["exp"])),
        "fault": None,
        "bounds": None,
    }


def test_token_without_signature_can_be_inspected() -> None:
    cut = sign(a_client(), ORG).rpartition(".")[0] + "."
    assert run("token", "inspect", "-", "--json", stdin=cut).json["claims"] == a_client()


@pytest.mark.parametrize(
    ("claims", "fault"),
    [
        (a_client(purpose="odd"), "token_purpose"),
        (a_client(exp="never"), "token_claim_type"),
    ],
)
def test_problem_of_the_claims_is_shown(claims: Claims, fault: str) -> None:
    token = sign(claims, ORG)
    assert run("token", "inspect", "-", "--json", stdin=token).json["fault"].startswith(fault)
    assert f"It would be rejected: {fault}" in run("token", "inspect", "-", stdin=token).out


def test_infinite_numbers_are_shown_as_valid_json() -> None:
    token = sign('{"purpose": "choria_client_id", "x": [1e999, {"y": -1e999}], "exp": 1e999, "iat": -5}', ORG)
    shown = run("token", "inspect", "-", "--json", stdin=token)
    assert shown.json["claims"]["x"] == ["inf", {"y": "-inf"}]
    assert run("token", "inspect", "-", stdin=token).code == 0


def test_text_that_is_not_a_token_cannot_be_inspected() -> None:
    refused = run("token", "inspect", "-", stdin="hello")
    assert (refused.code, refused.out) == (1, "")
    assert refused.error.startswith("not a token: token_not_compact")


def old_issuer(days: int) -> Claims:
    made = START - days * DAY
    return creator_claims(jti=ksuid(made, b"fedcba9876543210"), iat=made, nbf=made, exp=START + 3650 * DAY)


def test_token_of_an_old_chain_issuer_is_rejected(tmp_path: Path) -> None:
    token = sign(issued(a_client(), creator_token=old_issuer(367)), CREATOR)
    assert check(token)["reason"].startswith("chain_issuer_too_old: ")
    longer = configuration(tmp_path, **{"plugin.broker_auth.chain_issuer_max_age": "2y"})
    assert check(token, trust=("--config", str(longer)))["valid"] is True


def test_token_expires_with_its_chain_issuer() -> None:
    token = sign(issued(a_client(), creator_token=old_issuer(364)), CREATOR)
    expires = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(START + 2 * DAY))
    assert check(token)["expires"] == expires
    assert check(token, "--min-validity", "3d")["reason"].startswith("min_validity: ")


def test_inspect_exits_with_1_for_an_expired_token() -> None:
    expired = sign(a_client(exp=START - 1), FOREIGN)
    assert run("token", "inspect", "-", stdin=expired).code == 1
    assert run("token", "inspect", "-", "--json", stdin=expired).code == 1
    assert run("token", "inspect", "-", stdin=sign(a_client(), FOREIGN)).code == 0


# --- Permissions and queries


@pytest.mark.parametrize(
    ("claims", "option", "subject", "code"),
    [
        (a_server(collectives=["acme"]), "--may-publish", "acme.reply.x", "accepted"),
        (a_server(), "--may-publish", "other.reply.x", "may_publish"),
        (a_server(collectives=["acme"]), "--may-subscribe", "acme.broadcast.agent.rpcutil", "accepted"),
        (a_server(), "--may-subscribe", ">", "may_subscribe"),
        (a_client(permissions={"org_admin": True}), "--may-publish", "any.thing", "accepted"),
        (a_client(permissions={}), "--may-publish", "any.thing", "may_publish"),
        (a_provisioning(), "--may-subscribe", "provisioning.node.a.example.net", "accepted"),
        (a_provisioning(), "--may-subscribe", "provisioning.node.>", "accepted"),
        (a_provisioning(), "--may-subscribe", "choria.node.x", "may_subscribe"),
        (a_server(identity="a b"), "--may-publish", "choria.reply.x", "token_claim_subject"),
    ],
)
def test_subjects_are_checked_by_the_policy(claims: Claims, option: str, subject: str, code: str) -> None:
    assert check(sign(claims, ORG), option, subject)["code"] == code


def test_invalid_subject_is_wrong_usage() -> None:
    done = run("token", "check", "-", *TRUST, "--may-publish", "a..b", stdin=sign(a_client(), ORG))
    assert done.code == 2
    assert "'a..b' is not a subject" in done.err


@pytest.mark.parametrize(
    ("query", "code"),
    [
        ("callerid == 'up=alice'", "accepted"),
        ("permissions.org_admin", "query"),
        ("permissions.org_admin == null", "accepted"),
        ("length(missing)", "query"),
    ],
)
def test_query_must_be_true(query: str, code: str) -> None:
    assert check(sign(a_client(callerid="up=alice", permissions={}), ORG), "--query", query)["code"] == code


def test_invalid_query_is_wrong_usage() -> None:
    done = run("token", "check", "-", *TRUST, "--query", "a ==", stdin=sign(a_client(), ORG))
    assert done.code == 2
    assert "is not a JMESPath expression" in done.err


# --- Several files, and the formats of monitoring systems


@pytest.fixture
def three(tmp_path: Path) -> list[Path]:
    """Return an accepted token, a token that expires soon, and a rejected token."""
    files = [tmp_path / f"{name}.jwt" for name in ("good", "soon", "bad")]
    files[0].write_text(sign(a_server(), ORG))
    files[1].write_text(sign(a_server(exp=START + DAY), ORG))
    files[2].write_text(sign(a_server(), FOREIGN))
    return files


@pytest.mark.parametrize(
    ("picked", "code", "nagios", "state"),
    [
        ([0], 0, 0, "OK"),
        ([1], 3, 1, "WARNING"),
        ([2], 1, 2, "CRITICAL"),
        ([0, 1], 3, 1, "WARNING"),
        ([1, 2, 0], 1, 2, "CRITICAL"),
    ],
)
def test_worst_of_several_files_is_the_exit_code(
    three: list[Path], picked: list[int], code: int, nagios: int, state: str
) -> None:
    files = [three[number] for number in picked]
    options = (*files, *TRUST, "--min-validity", "2d")
    assert run("token", "check", *options).code == code
    document = run("token", "check", *options, "--json")
    assert document.code == code
    documents = document.json if len(files) > 1 else [document.json]
    assert [item["file"] for item in documents] == [str(file) for file in files]
    plugin = run("token", "check", *options, "--format", "nagios")
    assert (plugin.code, plugin.out.split(" - ")[0], len(plugin.out.splitlines())) == (nagios, f"TOKEN {state}", 1)


def test_nagios_line_has_the_seconds_left(three: list[Path]) -> None:
    text, _, performance = run("token", "check", *three[:2], *TRUST, "--format", "nagios").out.partition(" | ")
    assert text.startswith(f"TOKEN OK - {three[0]} expires in 9d 23h; {three[1]} expires in ")
    labels = [item.partition("=")[0] for item in performance.split()]
    assert labels == [f"'{three[0]}'", f"'{three[1]}'"]


def test_missing_file_is_unknown_to_nagios_and_rejected_elsewhere(three: list[Path], tmp_path: Path) -> None:
    options = (three[0], tmp_path / "missing.jwt", *TRUST)
    assert run("token", "check", *options, "--format", "nagios").code == 3
    document = run("token", "check", *options, "--json")
    assert document.code == 1
    assert [item["code"] for item in document.json] == ["accepted", "unreadable"]


def test_prometheus_text(three: list[Path]) -> None:
    done = run("token", "check", *three, *TRUST, "--min-validity", "2d", "--format", "prometheus")
    assert done.code == 1
    families = {family.name: family for family in text_string_to_metric_families(done.out)}
    values = {
        name: {Path(sample.labels["file"]).stem: sample.value for sample in family.samples}
        for name, family in families.items()
    }
    assert values == {
        "broker_auth_token_valid": {"good": 1, "soon": 0, "bad": 0},
        "broker_auth_token_expires_soon": {"good": 0, "soon": 1, "bad": 0},
        "broker_auth_token_expiry_timestamp_seconds": {"good": START + 10 * DAY, "soon": START + DAY},
    }


def test_file_name_cannot_break_a_line(tmp_path: Path) -> None:
    file = tmp_path / 'a"\nb.jwt'
    file.write_text(sign(a_server(), ORG))
    done = run("token", "check", file, *TRUST, "--format", "prometheus")
    assert len(list(text_string_to_metric_families(done.out))) == 3


@pytest.mark.parametrize(
    "name", ["k\u00fc\\x.jwt", "a\tb.jwt", "e\x1b[2J.jwt", "b\udcff.jwt"], ids=["umlaut", "tab", "escape", "bytes"]
)
def test_label_has_only_the_escapes_of_the_prometheus_format(tmp_path: Path, name: str) -> None:
    file = tmp_path / name
    file.write_text(sign(a_server(), ORG))
    labels = re.findall(r'file="((?:[^"\\]|\\.)*)"', run("token", "check", file, *TRUST, "--format", "prometheus").out)
    assert len(labels) == 3
    assert not [label for label in labels if re.search(r'\\[^\\"n]', label.replace("\\\\", ""))]


def test_file_that_is_named_twice_is_checked_once(three: list[Path]) -> None:
    done = run("token", "check", three[0], three[0], *TRUST, "--format", "prometheus")
    assert [len(family.samples) for family in text_string_to_metric_families(done.out)] == [1, 1, 1]


def test_unreadable_file_does_not_hide_the_results_of_others(three: list[Path], tmp_path: Path) -> None:
    done = run("token", "check", tmp_path / "missing.jwt", three[0], *TRUST)
    assert done.code == 1
    assert "missing.jwt does not exist" in done.err
    assert done.out.startswith(f"{three[0]}: accepted")


@pytest.mark.parametrize("trust", [("--config", "missing|.conf"), ("--signer", "missing")])
def test_check_that_cannot_be_made_is_unknown_to_nagios(three: list[Path], trust: tuple[str, str]) -> None:
    done = run("token", "check", three[0], *trust, "--format", "nagios")
    assert (done.code, done.err) == (3, "")
    assert done.out.startswith("TOKEN UNKNOWN - ")
    assert "|" not in done.out
