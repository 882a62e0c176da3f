"""``explain``: makes the same decision as the service, from every stored form of a request, and shows each rule."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from broker_auth.audit.record import make_record
from broker_auth.policy.decide import decide
from broker_auth.policy.decision import Admit
from broker_auth.policy.request import AuthorizationRequest
from broker_auth.settings.load import load
from broker_auth.settings.policy import build_policy
from tests.builders import requests
from tests.builders.buckets import bucket_keys
from tests.builders.clock import HOUR, NOW
from tests.builders.peers import PROVISIONER_NAME, authority, foreign_chain
from tests.builders.policies import PASSWORD, SYSTEM_PASSWORD, SYSTEM_USER, changed
from tests.builders.tokens import (
    CLIENT_SIGNER,
    FOREIGN,
    ORG,
    SERVER_SIGNER,
    provisioning_claims,
    provisioning_signer,
    sign,
)
from tests.cli.running import Run, run

AT = ("--at", str(NOW))


@pytest.fixture
def config(tmp_path: Path) -> Path:
    """Return a configuration in x509 mode with everything enabled."""
    files = {
        "ca.pem": authority().pair.certificate_pem,
        "signer.pem": provisioning_signer().public_pem,
        "password": PASSWORD.encode(),
        "system.password": SYSTEM_PASSWORD.encode(),
    }
    keys = {
        "plugin.choria.network.provisioning.signer_cert": "signer.pem",
        "plugin.choria.network.provisioning.client_password": "file:password",
        "plugin.choria.network.system.user": SYSTEM_USER,
        "plugin.choria.network.system.password": "file:system.password",
        "plugin.choria.network.client_signer_cert": CLIENT_SIGNER.hex,
        "plugin.choria.network.server_signer_cert": SERVER_SIGNER.hex,
        "plugin.broker_auth.client_ca": "ca.pem",
        "plugin.broker_auth.provisioner.identities": PROVISIONER_NAME,
    }
    files["broker.conf"] = "".join(f"{key} = {value}\n" for key, value in keys.items()).encode()
    for name, data in files.items():
        (tmp_path / name).write_bytes(data)
        (tmp_path / name).chmod(0o600)
    return tmp_path / "broker.conf"


def explain(config: Path, stored: object, *options: object) -> Run:
    """Explain ``stored`` as JSON (bytes: unchanged)."""
    data = stored if isinstance(stored, bytes) else msgspec.json.encode(stored)
    done = run("explain", "-", "--config", config, *options, stdin=data)
    for secret in (PASSWORD, SYSTEM_PASSWORD):
        assert secret not in done.out + done.err
    return done


def explained(config: Path, stored: object, *options: object) -> Any:
    """Return the JSON of ``explain``; its exit code must say the same."""
    done = explain(config, stored, "--json", *(options or AT))
    assert done.err == ""
    assert done.code == (0 if done.json["decision"] == "admit" else 1)
    return done.json


NO_CLIENT_CERTIFICATE = requests.request(name="x")
EXPIRED = sign(provisioning_claims(exp=NOW - 5), provisioning_signer())

CASES: list[tuple[str, AuthorizationRequest, str, int]] = [
    ("fleet", requests.fleet(), "admitted", 4),
    ("provisioner", requests.provisioner(), "admitted", 1),
    ("provisioner, wrong password", requests.provisioner(password="guess"), "provisioner_password", 1),
    ("system user", requests.system(), "admitted", 2),
    ("node", requests.node(), "admitted", 3),
    ("node, expired", requests.node(EXPIRED), "token_expired", 3),
    ("client", requests.client(CLIENT_SIGNER), "admitted", 3),
    ("client, unsigned nonce", requests.client(CLIENT_SIGNER, sig=""), "nonce_unsigned", 3),
    ("server", requests.server(SERVER_SIGNER), "admitted", 3),
    ("server, foreign", requests.server(FOREIGN), "token_signature", 3),
    ("nothing", NO_CLIENT_CERTIFICATE, "no_credential", 5),
    ("foreign CA", requests.fleet(chains=(foreign_chain(),)), "no_credential", 5),
    ("leaf node", requests.fleet(kind="Leafnode"), "connection_kind", 0),
    ("no TLS", requests.request(tls=None), "no_tls", 0),
]
CASE = pytest.mark.parametrize(
    ("request_", "code", "rule"), [case[1:] for case in CASES], ids=[case[0] for case in CASES]
)


@CASE
def test_explain_decides_like_the_service(config: Path, request_: AuthorizationRequest, code: str, rule: int) -> None:
    decision = decide(request_, build_policy(load(config, {}, serving=False)), NOW)
    shown = explained(config, request_)
    assert (shown["code"], shown["rule_number"]) == (code, rule)
    assert (shown["rule"], shown["token_id"]) == (decision.rule.value, decision.token_id or None)
    assert (shown["not_repeated"], shown["recorded"]) == ([], None)
    if isinstance(decision, Admit):
        assert (shown["decision"], shown["account"], shown["name"]) == ("admit", decision.account, decision.name)
        assert shown["reason"] == decision.reason
        granted = msgspec.convert(shown["permissions"], type(decision.permissions))
        assert granted == decision.permissions
    else:
        assert shown["decision"] == "deny"
        assert (shown["account"], shown["name"], shown["permissions"], shown["expires"]) == (None, None, None, None)
        assert shown["reason"] == f"{code}: {decision.detail}"


@CASE
def test_every_rule_is_listed_in_order(config: Path, request_: AuthorizationRequest, code: str, rule: int) -> None:
    steps = explained(config, request_)["rules"]
    assert [step["number"] for step in steps] == [0, 1, 2, 3, 4, 5]
    decided = "admitted it" if code == "admitted" else "denied it"
    before = ["passed", *["not its own"] * 4][:rule]
    assert [step["outcome"] for step in steps] == [*before, decided, *["not reached"] * (5 - rule)]
    assert all(bool(step["why"]) is (step["outcome"] != "not reached") for step in steps)
    lines = explain(config, request_, *AT).out.splitlines()
    assert [line.strip().partition(",")[0] for line in lines if line.startswith("  rule ")] == [
        f"rule {n}" for n in range(6)
    ]


def test_json_document_is_complete(config: Path) -> None:
    claims = provisioning_claims(jti="an id", exp=NOW + HOUR)
    shown = explained(config, requests.node(sign(claims, provisioning_signer())))
    assert {name: shown[name] for name in ("decision", "rule", "rule_number", "reason", "account", "name")} == {
        "decision": "admit",
        "rule": "provisioning",
        "rule_number": 3,
        "reason": "provisioning token",
        "account": "provisioning",
        "name": requests.NODE_NAME,
    }
    assert (shown["at"], shown["expires"]) == ("2027-01-15T08:00:00Z", "2027-01-15T09:00:00Z")
    assert shown["grace_seconds"] == 0
    assert shown["token_id"] == "an id"
    assert shown["permissions"]["sub"]["allow"][-1] == f"provisioning.node.{requests.NODE_NAME}"
    assert shown["permissions"]["pub"]["deny"] == []


def test_text_output(config: Path) -> None:
    shown = explain(config, requests.node(), *AT)
    assert shown.out.startswith("admit: provisioning token\ndecided for 2027-01-15T08:00:00Z\n")
    assert "  rule 0, connection: passed: nats client over TLS, not verified" in shown.out
    assert "may publish:\n  choria.lifecycle.event." in shown.out
    assert "everything in the account" in explain(config, requests.provisioner(), *AT).out


def test_unknown_ca_is_distinguished_from_a_missing_certificate(config: Path) -> None:
    foreign = explained(config, requests.fleet(chains=(foreign_chain(),)))["rules"][4]["why"]
    none = explained(config, NO_CLIENT_CERTIFICATE)["rules"][4]["why"]
    assert "does not lead to client_ca" in foreign
    assert "presented no certificate" in none


def test_decision_depends_on_the_given_time(config: Path) -> None:
    request = requests.node()
    assert explained(config, request, "--at", "2027-01-15T08:00:00Z")["decision"] == "admit"
    assert explained(config, request, "--at", "2027-01-15T10:30:00+01:30")["code"] == "token_expired"
    assert explained(config, request, "--at", str(NOW - 1))["code"] == "token_not_yet_valid"


def test_default_time_is_now(config: Path) -> None:
    now = int(time.time())
    claims = provisioning_claims(iat=now, nbf=now, exp=now + HOUR)
    assert explained(config, requests.node(sign(claims, provisioning_signer())), "--json")["decision"] == "admit"


# --- Stored forms


def record(config: Path, request: AuthorizationRequest, now: float = NOW) -> Any:
    """Return the audit record of a request, with the redacted request in it."""
    decision = decide(request, build_policy(load(config, {}, serving=False)), now)
    return make_record(request, decision, now, 100, with_request=True)


def test_claims_and_their_nats_object_give_the_same_result(config: Path) -> None:
    request = requests.SERVER.asks(requests.node())
    assert explained(config, requests.SERVER.claims(request)) == explained(config, request)


def test_request_can_be_read_from_a_file(config: Path) -> None:
    file = config.parent / "request.json"
    file.write_bytes(msgspec.json.encode(requests.fleet()))
    shown = run("explain", file, "--config", config, "--json", *AT)
    assert shown.json == explained(config, requests.fleet())


REDACTED: list[tuple[AuthorizationRequest, list[str]]] = [
    (requests.fleet(), []),
    (requests.provisioner(), ["password"]),
    (requests.system(), ["password"]),
    (requests.node(), []),
    (requests.client(CLIENT_SIGNER), []),
]


@pytest.mark.parametrize(("request_", "skipped"), REDACTED)
def test_record_is_decided_for_its_time_and_lists_skipped_checks(
    config: Path, request_: AuthorizationRequest, skipped: list[str]
) -> None:
    shown = explained(config, record(config, request_), "--json")
    assert (shown["decision"], shown["at"]) == ("admit", "2027-01-15T08:00:00Z")
    assert shown["not_repeated"] == skipped
    assert shown["recorded"] == {"decision": "admit", "code": "admitted"}
    text = explain(config, record(config, request_)).out
    assert ("skipped, because" in text) is bool(skipped)
    assert all(check in text for check in skipped)
    assert "otherwise" not in text


def test_decision_with_skipped_checks_can_differ_from_the_recorded_one(config: Path) -> None:
    kept = record(config, requests.provisioner(password="guess"))
    assert explained(config, kept, "--json")["recorded"] == {"decision": "deny", "code": "provisioner_password"}
    assert "the recorded decision was different: 'deny', 'provisioner_password'" in explain(config, kept).out


def test_recorded_number_of_nodes_is_compared_with_the_limit(config: Path) -> None:
    policy = changed(build_policy(load(config, {}, serving=False)), gauge=requests.gauge(3))
    kept = make_record(requests.node(), decide(requests.node(), policy, NOW), NOW, 100, with_request=True)
    shown = explained(config, kept, "--json")
    assert (shown["code"], shown["recorded"]["code"], shown["not_repeated"]) == ("admitted", "provisioning_full", [])
    with config.open("a") as file:
        file.write("plugin.broker_auth.provisioning.limits.max_connections = 3\n")
    assert explained(config, kept, "--json")["code"] == "provisioning_full"


def test_number_of_nodes_is_skipped_without_evidence(config: Path) -> None:
    policy = changed(build_policy(load(config, {}, serving=False)), gauge=requests.gauge(3))
    kept = make_record(requests.node(), decide(requests.node(), policy, NOW), NOW, 100, with_request=True)
    shown = explained(config, msgspec.structs.replace(kept, evidence=None), "--json")
    assert (shown["code"], shown["recorded"]["code"]) == ("admitted", "provisioning_full")
    assert shown["not_repeated"] == ["token signature", "number of connections"]


def test_count_is_not_known_for_a_request_that_was_written_by_hand(config: Path) -> None:
    """It counts as counted, which the output says."""
    token = sign(provisioning_claims(extensions={"broker-auth": {"max_nodes": 2}}), provisioning_signer())
    shown = explained(config, requests.node(token))
    assert (shown["code"], shown["not_repeated"]) == ("nodes_not_counted", [])  # there is no bucket
    with config.open("a") as file:
        file.writelines(f"{key} = {value}\n" for key, value in bucket_keys(config.parent).items())
    shown = explained(config, requests.node(token))
    assert (shown["code"], shown["not_repeated"]) == ("admitted", ["number of nodes"])


def test_recorded_signer_that_is_not_configured_is_denied(config: Path) -> None:
    kept = record(config, requests.client(CLIENT_SIGNER))
    text = config.read_text().replace(CLIENT_SIGNER.hex, FOREIGN.hex)
    config.write_text(text)
    assert explained(config, kept, "--json")["code"] == "token_signature"


def test_other_checks_are_performed(config: Path) -> None:
    shown = explained(config, record(config, requests.node(EXPIRED)), "--json")
    assert (shown["code"], shown["not_repeated"]) == ("token_expired", [])
    later = explained(config, record(config, requests.client(CLIENT_SIGNER)), "--at", str(NOW + 2 * HOUR))
    assert later["code"] == "token_expired"


def test_truncated_token_without_redaction_is_rejected(config: Path) -> None:
    cut = requests.node(requests.node().connect_opts.auth_token.rpartition(".")[0] + ".")
    assert explained(config, cut)["code"] == "token_not_compact"


def test_issuer_mode(tmp_path: Path) -> None:
    config = tmp_path / "issuer.conf"
    config.write_text(f"plugin.security.issuer.names = choria\nplugin.security.issuer.choria.public = {ORG.hex}\n")
    assert explained(config, requests.server())["decision"] == "admit"
    assert explained(config, requests.fleet())["code"] == "pub_sub_disabled"


# --- Invalid input


def kept(**fields: object) -> dict[str, object]:
    """Return an audit record with these fields."""
    return {"request": msgspec.to_builtins(requests.fleet()), "redacted": [], "decision": "admit"} | fields


NOT_REQUESTS: list[tuple[object, str]] = [
    (b"", "not one JSON document"),
    (b"{", "not one JSON document"),
    (b"{}\n{}", "not one JSON document"),
    (b"[" * 100_000, "not one JSON document"),
    (b"[]", "not a JSON object"),
    (b"{}", "not an authorization request"),
    (b'{"event":"server_error","time":"2027-01-15T08:00:00Z","server":"a"}', "report of a refused connection"),
    (b'{"nats": {}}', "not an authorization request"),
    (b" " * 1_100_000, "more than"),
    (kept(request=None), "does not contain its request"),
    (kept(request={}), "not an authorization request"),
    (kept(redacted=["everything"]), "unknown redaction, 'everything'"),
    (kept(redacted="pass"), "audit record cannot be read"),
    (kept(time="yesterday"), "audit record cannot be read"),
    (kept(time="2027-01-15T08:00:00"), "no time zone"),
    (kept(time=1e300), "time is not a valid time"),
    (kept(time=-1), "time is not a valid time"),
]


@pytest.mark.parametrize(("stored", "says"), NOT_REQUESTS, ids=lambda value: str(value)[:30])
def test_input_that_is_not_a_request_is_refused(config: Path, stored: object, says: str) -> None:
    refused = explain(config, stored, "--json")
    assert (refused.code, refused.json) == (1, {"errors": [refused.error]})
    assert says in refused.error


@pytest.mark.parametrize("change", [lambda opts: opts | {"user": 1}, lambda opts: opts | {"pass": [PASSWORD]}])
def test_wrong_types_are_refused_without_quoting_values(config: Path, change: Callable[[Any], Any]) -> None:
    request = msgspec.to_builtins(requests.fleet())
    refused = explain(config, request | {"connect_opts": change(request["connect_opts"])})
    assert (refused.code, refused.out) == (1, "")
    assert "$.connect_opts." in refused.error


def test_record_is_decided_by_the_rules_of_its_zone(config: Path) -> None:
    """An edge denies a request that the fleet admits, and an unknown zone is an error."""
    config.write_text(
        config.read_text()
        + "plugin.broker_auth.brokers = default, edge\nplugin.broker_auth.broker.edge.role = edge\n"
        + "plugin.broker_auth.broker.default.role = fleet\n"
    )
    request = msgspec.to_builtins(requests.fleet())
    assert explained(config, request)["code"] == "admitted"
    assert explained(config, request, *AT, "--zone", "edge")["code"] == "edge_verified_tls"
    record = {
        "event": "decision",
        "v": 1,
        "time": NOW,
        "decision": "deny",
        "code": "x",
        "zone": "edge",
        "request": request,
    }
    record = {"event": "decision", "v": 1, "time": NOW, "decision": "deny", "code": "x", "request": request}
    record["zone"] = "edge"
    assert explained(config, record)["code"] == "edge_verified_tls"
    assert explained(config, record, *AT, "--zone", "fleet")["code"] == "admitted"
    done = explain(config, {**record, "zone": "gone"})
    assert (done.code, "has no zone 'gone'; name one of edge, fleet" in done.err) == (1, True)


def test_fleet_that_asks_nobody_is_not_explained(config: Path) -> None:
    text = config.read_text().replace("plugin.broker_auth.provisioner.identities", "# identities")
    config.write_text(
        text
        + "plugin.broker_auth.fleet.auth = static\nplugin.broker_auth.brokers = fleet, edge\n"
        + "plugin.broker_auth.broker.fleet.role = fleet\nplugin.broker_auth.broker.edge.role = edge\n"
    )
    request = msgspec.to_builtins(requests.fleet())
    done = explain(config, request, *AT)
    assert (done.code, "asks no service; name one of edge by --zone" in done.err) == (1, True)


def test_grace_is_shown(config: Path) -> None:
    with config.open("a") as file:
        file.write("plugin.broker_auth.session_grace = 1h\n")
    shown = explained(config, requests.fleet())
    lines = explain(config, requests.fleet(), *AT).out
    assert shown["grace_seconds"] == 3600
    assert f"expires: {shown['expires']}, 1h after its credential" in lines
