"""``replay``: what is certain, what is not known, and what is kept of many requests."""

from __future__ import annotations

import io
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import msgspec
import pytest

from broker_auth.audit.record import AuditRecord, encode, make_record
from broker_auth.audit.redact import MAX_CHAIN_CHARACTERS
from broker_auth.operate.replay import summary as summaries
from broker_auth.operate.replay.effect import Effect, Former, ReplayDifference
from broker_auth.operate.replay.judge import Judge
from broker_auth.operate.replay.records import file_decisions, stream_decisions
from broker_auth.operate.replay.run import Replay
from broker_auth.operate.replay.summary import Summary
from broker_auth.policy.counting import Counted
from broker_auth.policy.decide import decide
from broker_auth.policy.decision import Evidence
from broker_auth.policy.model import Policy
from broker_auth.policy.request import AuthorizationRequest
from broker_auth.settings.load import load
from broker_auth.settings.policy import build_policy
from tests.builders import requests
from tests.builders.buckets import bucket_keys
from tests.builders.clock import DAY, HOUR, NOW
from tests.builders.peers import PROVISIONER_NAME, authority, client
from tests.builders.policies import PASSWORD, SYSTEM_PASSWORD, SYSTEM_USER, changed
from tests.builders.tokens import (
    CLIENT_SIGNER,
    FOREIGN,
    HOLDER,
    SERVER_SIGNER,
    client_claims,
    provisioning_claims,
    provisioning_signer,
    rsa_key,
    sign,
)
from tests.cli.running import Run, run

P: Final = "plugin.choria.network."
B: Final = "plugin.broker_auth."
KEYS: Final[dict[str, str | None]] = {
    f"{P}provisioning.signer_cert": "signer.pem, signer-2.pem",
    f"{P}provisioning.client_password": "file:password",
    f"{P}system.user": SYSTEM_USER,
    f"{P}system.password": "file:system.password",
    f"{P}client_signer_cert": CLIENT_SIGNER.hex,
    f"{P}server_signer_cert": SERVER_SIGNER.hex,
    f"{B}client_ca": "ca.pem",
    f"{B}provisioner.identities": PROVISIONER_NAME,
}
NEXT: Final = "the next password"


class Office:
    """A directory with configurations, and records of requests that one of them decided."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        files = {
            "ca.pem": authority().pair.certificate_pem,
            "signer.pem": provisioning_signer().public_pem,
            "signer-2.pem": rsa_key("second").public_pem,
            "password": PASSWORD.encode(),
            "password-2": NEXT.encode(),
            "system.password": SYSTEM_PASSWORD.encode(),
        }
        for name, data in files.items():
            self.write(name, data)
        self.config = self.configure("broker.conf")

    def write(self, name: str, data: bytes) -> Path:
        path = self.directory / name
        path.write_bytes(data)
        path.chmod(0o600)
        return path

    def configure(self, name: str, **changes: str | None) -> Path:
        """Write a configuration; ``signer`` stands for the key that ends with it, None leaves it out."""
        known = {key.rpartition(".")[2]: key for key in [*KEYS, *EXTRA]}
        keys = KEYS | {known[short]: value for short, value in changes.items()}
        text = "".join(f"{key} = {value}\n" for key, value in keys.items() if value is not None)
        return self.write(name, text.encode())

    def record(self, request: AuthorizationRequest, now: float = NOW, config: Path | None = None) -> AuditRecord:
        policy = build_policy(load(config or self.config, {}, serving=False))
        return make_record(request, decide(request, policy, now), now, 100, with_request=True, zone="fleet")

    def audit(self, *records: AuditRecord) -> Path:
        return self.write("audit.jsonl", b"".join(map(encode, records)))

    def replay(self, config: Path, *records: AuditRecord, options: Sequence[object] = ()) -> Run:
        return run("replay", self.audit(*records), "--config", config, "--json", *options)


EXTRA: Final = (
    f"{B}provisioning.previous_client_password",
    f"{B}provisioning.limits.max_connections",
    f"{P}deny_server_connections",
)


@pytest.fixture
def office(tmp_path: Path) -> Office:
    return Office(tmp_path)


def matches(done: Run) -> list[tuple[str, str, str | None, list[str]]]:
    """Return effect, former decision, code and checks of each group."""
    return [
        (group["effect"], group["before"]["decision"], group["code"], group["checks"]) for group in done.json["groups"]
    ]


# --- What is certain and what is not


def test_known_signer_that_stays_is_fine(office: Office) -> None:
    config = office.configure("new.conf", signer_cert="signer.pem")
    done = office.replay(config, office.record(requests.node()))
    assert (done.code, matches(done), done.json["skipped"]) == (0, [], {})


def test_known_signer_that_goes_denies(office: Office) -> None:
    config = office.configure("new.conf", signer_cert="signer-2.pem")
    done = office.replay(config, office.record(requests.node()))
    assert (done.code, matches(done)) == (1, [("newly denied", "admit", "token_signature", [])])


def test_unknown_signer_is_not_known(office: Office) -> None:
    older = msgspec.structs.replace(office.record(requests.node()), evidence=None)
    done = office.replay(office.config, older)
    assert (done.code, matches(done)) == (3, [("not known", "admit", None, ["token signature"])])
    assert done.json["not_known"] == 1


def test_denial_is_certain_though_a_check_was_skipped(office: Office) -> None:
    older = msgspec.structs.replace(office.record(requests.node()), evidence=None)
    config = office.configure("new.conf", client_password=None)
    done = office.replay(config, older)
    assert (done.code, matches(done)) == (1, [("newly denied", "admit", "provisioning_disabled", [])])


def test_bad_signature_stays_denied_or_is_not_known(office: Office) -> None:
    denied = office.record(requests.client(FOREIGN))
    assert denied.code == "token_signature"
    done = office.replay(office.config, denied)
    assert (done.code, matches(done)) == (0, [("not known", "deny", None, ["token signature"])])


def test_bad_signature_stays_denied_if_no_key_is_added(office: Office) -> None:
    denied = office.record(requests.client(FOREIGN))
    assert matches(office.replay(office.config, denied, options=("--against", office.config))) == []
    more = office.configure("more.conf", client_signer_cert=f"{CLIENT_SIGNER.hex}, {FOREIGN.hex}")
    done = office.replay(more, denied, options=("--against", office.config))
    assert (done.code, matches(done)) == (0, [("not known", "deny", None, ["token signature"])])


def test_unknown_signer_is_known_if_every_old_key_stays(office: Office) -> None:
    older = msgspec.structs.replace(office.record(requests.node()), evidence=None)
    assert office.replay(office.config, older, options=("--against", office.config)).code == 0
    less = office.configure("less.conf", signer_cert="signer.pem")
    assert office.replay(less, older, options=("--against", office.config)).code == 3


def test_token_that_was_not_needed_before_is_not_known(office: Office) -> None:
    """The system user was admitted by the certificate; the token beside it was not verified."""
    token = requests.client(CLIENT_SIGNER, claims={"permissions": {"system_user": True}})
    options = token.connect_opts
    nonce = {"auth_token": options.auth_token, "sig": options.sig, "nonce": token.client_info.nonce}
    kept = office.record(requests.system(**nonce))
    assert (kept.decision, kept.evidence) == ("admit", Evidence(password="current"))
    office.write("other.pem", authority("another CA").pair.certificate_pem)
    config = office.configure("new.conf", client_ca="other.pem")
    done = office.replay(config, kept, options=("--against", office.config))
    assert (done.code, matches(done)) == (3, [("not known", "admit", None, ["token signature"])])


PASSWORD_ROTATIONS: Final[dict[str, tuple[dict[str, str | None], int]]] = {
    "same": ({}, 0),
    "overlap": ({"client_password": "file:password-2", "previous_client_password": "file:password"}, 0),
    "replaced": ({"client_password": "file:password-2"}, 1),
}


@pytest.mark.parametrize(("changes", "code"), PASSWORD_ROTATIONS.values(), ids=PASSWORD_ROTATIONS)
def test_password_is_known_by_the_old_configuration(office: Office, changes: dict[str, str | None], code: int) -> None:
    kept = office.record(requests.provisioner())
    config = office.configure("new.conf", **changes)
    assert office.replay(config, kept).code == 3
    done = office.replay(config, kept, options=("--against", office.config))
    assert done.code == code
    assert matches(done) == [("newly denied", "admit", "provisioner_password", [])] * code


def test_previous_password_is_told_from_the_current_one(office: Office) -> None:
    both = office.configure("both.conf", client_password="file:password-2", previous_client_password="file:password")
    late = office.record(requests.provisioner(), config=both)
    early = office.record(requests.provisioner(password=NEXT, name="early"), config=both)
    config = office.configure("new.conf", client_password="file:password-2")
    assert office.replay(config, early, options=("--against", both)).code == 0
    assert office.replay(config, late, options=("--against", both)).code == 1


def test_password_without_evidence_is_known_if_every_old_one_stays(office: Office) -> None:
    older = msgspec.structs.replace(office.record(requests.provisioner()), evidence=None)
    more = office.configure("more.conf", client_password="file:password-2", previous_client_password="file:password")
    assert office.replay(more, older, options=("--against", office.config)).code == 0
    less = office.configure("less.conf", client_password="file:password-2")
    done = office.replay(less, older, options=("--against", office.config))
    assert (done.code, matches(done)) == (3, [("not known", "admit", None, ["password"])])


def test_wrong_password_stays_denied_if_none_is_added(office: Office) -> None:
    guess = office.record(requests.provisioner(password="guess"))
    assert matches(office.replay(office.config, guess, options=("--against", office.config))) == []
    more = office.configure("more.conf", client_password="file:password-2", previous_client_password="file:password")
    done = office.replay(more, guess, options=("--against", office.config))
    assert (done.code, matches(done)) == (0, [("not known", "deny", None, ["password"])])


def test_number_of_connections_is_compared_with_the_new_limit(office: Office) -> None:
    kept = office.record(requests.node())
    kept.evidence = msgspec.structs.replace(kept.evidence, connections=500) if kept.evidence else None
    assert office.replay(office.config, kept).code == 0
    done = office.replay(office.configure("new.conf", max_connections="500"), kept)
    assert matches(done) == [("newly denied", "admit", "provisioning_full", [])]


# --- Tokens for a number of nodes


def of_number(office: Office, counted: Counted | None = Counted.YES, policy: Policy | None = None) -> AuditRecord:
    """Return the record of a node whose token is for two nodes."""
    token = sign(provisioning_claims(extensions={"broker-auth": {"max_nodes": 2}}), provisioning_signer())
    asked, policy = requests.node(token), policy or build_policy(load(office.config, {}, serving=False))
    return make_record(asked, decide(asked, policy, NOW, counted=counted), NOW, 100, with_request=True, zone="fleet")


@pytest.fixture
def counting(office: Office) -> Office:
    """Return an office whose configuration shares revocations, and so the nodes of tokens."""
    for key, value in bucket_keys(office.directory).items():
        with office.config.open("a") as file:
            file.write(f"{key} = {value}\n")
    return office


@pytest.mark.parametrize("counted", Counted)
def test_recorded_count_is_repeated(counting: Office, counted: Counted) -> None:
    kept = of_number(counting, counted)
    codes = {Counted.YES: "admitted", Counted.USED_UP: "token_used_up", Counted.UNKNOWN: "nodes_not_counted"}
    assert kept.code == codes[counted]
    done = counting.replay(counting.config, kept)
    assert (done.code, matches(done), done.json["skipped"]) == (0, [], {})


def test_count_of_another_reason_to_deny_is_not_known(counting: Office) -> None:
    """The account was full, so nobody was asked whether the node is counted."""
    full = changed(build_policy(load(counting.config, {}, serving=False)), gauge=requests.gauge(3))
    kept = of_number(counting, policy=full)
    assert kept.code == "provisioning_full"
    done = counting.replay(counting.config, kept)
    assert (done.code, matches(done)) == (0, [("not known", "deny", None, ["number of nodes"])])


@pytest.mark.parametrize("evidence", [None, Evidence(counted="another word")], ids=["none", "of a later version"])
def test_admission_without_a_count_is_not_known(counting: Office, evidence: Evidence | None) -> None:
    kept = of_number(counting)
    assert kept.evidence
    signed = evidence and msgspec.structs.replace(evidence, signer_key=kept.evidence.signer_key)
    done = counting.replay(counting.config, msgspec.structs.replace(kept, evidence=signed))
    checks = ["number of nodes"] if signed else ["token signature", "number of nodes"]
    assert (done.code, matches(done)) == (3, [("not known", "admit", None, checks)])


def test_configuration_that_counts_nobody_denies(counting: Office) -> None:
    done = counting.replay(counting.configure("new.conf"), of_number(counting))
    assert (done.code, matches(done)) == (1, [("newly denied", "admit", "nodes_not_counted", [])])


# --- Parts that are missing, and changes of every kind


def test_certificates_too_large_to_be_stored_are_not_known(office: Office) -> None:
    kept = office.record(requests.fleet())
    assert kept.request
    tls = requests.fleet(chains=(("x" * (MAX_CHAIN_CHARACTERS + 1),),))
    cut = make_record(
        tls, decide(tls, build_policy(load(office.config, {}, serving=False)), NOW), NOW, 1, with_request=True
    )
    kept.request = cut.request
    done = office.replay(office.config, kept)
    assert (done.code, matches(done)) == (3, [("not known", "admit", None, ["certificates"])])


def test_removed_zone_is_not_known(office: Office) -> None:
    kept = msgspec.structs.replace(office.record(requests.node()), zone="gone")
    done = office.replay(office.config, kept)
    assert (done.code, matches(done)) == (3, [("not known", "admit", None, ["zone"])])


def test_nonce_is_verified_again_unless_it_was_accepted(office: Office) -> None:
    kept = office.record(requests.client(CLIENT_SIGNER))
    assert office.replay(office.config, kept).code == 0
    unsigned = office.record(requests.client(CLIENT_SIGNER, sig="x" * 86))
    assert unsigned.code == "nonce_signature"
    assert matches(office.replay(office.config, unsigned)) == []


def test_newly_admitted(office: Office) -> None:
    denying = office.configure("denying.conf", deny_server_connections="true")
    kept = office.record(requests.server(SERVER_SIGNER), config=denying)
    assert kept.code == "servers_denied"
    done = office.replay(office.config, kept)
    assert (done.code, matches(done)) == (0, [("newly admitted", "deny", "admitted", [])])
    assert done.json["groups"][0]["before"]["code"] == "servers_denied"


def test_old_configuration_counts_where_it_differs_from_the_record(office: Office) -> None:
    kept = office.record(requests.server(SERVER_SIGNER))
    denying = office.configure("denying.conf", deny_server_connections="true")
    assert matches(office.replay(office.config, kept, options=("--against", denying))) == [
        ("newly admitted", "deny", "admitted", [])
    ]
    assert matches(office.replay(denying, kept, options=("--against", denying))) == []


def test_permissions_are_compared_list_by_list(office: Office) -> None:
    kept = office.record(requests.node())
    shared = office.directory / "shared.conf"
    shared.write_text(office.config.read_text() + f"{B}provisioning.isolate_nodes = false\n")
    shared.chmod(0o600)
    assert matches(office.replay(shared, kept)) == []
    (group,) = office.replay(shared, kept, options=("--against", office.config)).json["groups"]
    assert group["effect"] == "granted other subjects"
    assert group["permissions"]["sub"]["allow"] == {
        "added": ["provisioning.node.>"],
        "removed": ["provisioning.node.NAME"],
    }
    assert group["permissions"]["pub"]["allow"] == {"added": [], "removed": []}


def test_every_record_has_its_time_unless_one_is_given(office: Office) -> None:
    kept = office.record(requests.client(CLIENT_SIGNER))
    assert office.replay(office.config, kept).code == 0
    done = office.replay(office.config, kept, options=("--at", NOW + 2 * HOUR))
    assert (done.code, matches(done)[0][2], done.json["at"]) == (1, "token_expired", "2027-01-15T10:00:00Z")
    assert office.replay(office.config, kept, options=("--at", "2027-01-16")).code == 1


# --- What is read


def test_identities_without_a_stored_request_are_not_known(office: Office) -> None:
    seen, unseen = office.record(requests.fleet()), office.record(requests.client(CLIENT_SIGNER))
    bare = [msgspec.structs.replace(record, request=None) for record in (seen, unseen)]
    done = office.replay(office.config, bare[0], seen, *bare)
    assert (done.code, done.json["unseen"], done.json["without_request"]) == (3, ["up=alice"], 3)


def test_records_without_requests_are_an_error(office: Office) -> None:
    done = office.replay(office.config, msgspec.structs.replace(office.record(requests.fleet()), request=None))
    assert done.code == 1
    assert "no decision is stored with its request; set plugin.broker_auth.audit.requests" in done.error


def test_no_records_are_an_error(office: Office) -> None:
    assert "holds no decisions of that time" in office.replay(office.config).error


def test_older_records_are_left_out(office: Office) -> None:
    old, new = office.record(requests.node()), office.record(requests.fleet(), NOW + DAY)
    config = office.configure("new.conf", client_password=None)
    path = office.audit(old, new)
    os.utime(path, (NOW + DAY, NOW + DAY))
    assert run("replay", path, "--config", config, "--json").code == 1
    done = run("replay", path, "--config", config, "--json", "--since", NOW + HOUR)
    assert (done.code, done.json["decided"]) == (0, 1)


def test_records_come_from_a_log_on_standard_input(office: Office) -> None:
    log = b"2027-01-15 WARNING broker_auth.audit: " + encode(office.record(requests.node()))
    done = run("replay", "-", "--config", office.config, "--json", stdin=log)
    assert (done.code, done.json["decided"]) == (0, 1)


def test_rotated_files_are_read_once(office: Office) -> None:
    path = office.audit(office.record(requests.fleet()))
    (office.directory / "audit.jsonl.1").write_bytes(encode(office.record(requests.node())))
    done = run("replay", path, f"{path}.1", "--config", office.config, "--json")
    assert done.json["decided"] == 2


def test_file_of_the_configuration_is_the_default(office: Office) -> None:
    office.audit(office.record(requests.fleet()))
    office.config.write_text(office.config.read_text() + f"{B}audit.output = file:audit.jsonl\n")
    assert run("replay", "--config", office.config, "--json").json["decided"] == 1


def test_progress_is_reported(office: Office) -> None:
    path = office.audit(*[office.record(requests.fleet())] * 3)
    reports: list[tuple[int, int, int]] = []
    assert len(list(file_decisions([path], progress=lambda *report: reports.append(report)))) == 3
    assert reports == [(3, path.stat().st_size, path.stat().st_size)]


@pytest.mark.parametrize(
    "data",
    [b"", b"{}", b'{"event":"decision"', b'{"event":"decision","request":{"a":1}}', b"\xff\x00\n{\n", b"[" * 9999],
)
def test_strange_lines_are_skipped(data: bytes) -> None:
    assert list(stream_decisions(io.BytesIO(data))) == []


# --- Bounded memory


def denial(code: str = "token_expired", account: str | None = None) -> ReplayDifference:
    return ReplayDifference(
        effect=Effect.DENIED, rule="client", code=code, former=Former(admitted=True, account=account)
    )


def test_identities_are_bounded_and_the_cut_is_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(summaries, "MAX_IDENTITIES", 3)
    summary = Summary()
    for number in range(5):
        summary.add(denial(), f"node{number}", NOW + number, "why")
    summary.add(denial(), "node0", NOW, "why")
    (group,) = summary.groups()
    assert (group.count, group.cut, sorted(group.identities)) == (6, 2, ["node0", "node1", "node2"])
    assert group.last == NOW + 4
    assert group.identities["node0"].count == 2
    assert not summary.complete
    for number in range(5):
        summary.saw(f"other{number}", judged=False)
    assert len(summary.unseen) == 3


def test_groups_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(summaries, "MAX_GROUPS", 3)
    summary = Summary()
    for number in range(9):
        summary.add(denial(account=f"account{number}"), "a", NOW, "why")
    assert len(summary.groups()) == 4
    assert sum(group.count for group in summary.groups()) == 9


def test_groups_that_matter_come_first() -> None:
    summary = Summary()
    for effect in reversed(Effect):
        summary.add(msgspec.structs.replace(denial(), effect=effect), "a", NOW, "")
    for name in ("b", "c"):
        summary.add(denial("nonce_signature"), name, NOW, "")
    order = [(group.difference.effect, group.difference.code) for group in summary.groups()]
    assert order[:2] == [(Effect.DENIED, "nonce_signature"), (Effect.DENIED, "token_expired")]
    assert [effect for effect, _ in order[1:]] == list(Effect)


def test_unforeseen_failure_concerns_one_request(office: Office, monkeypatch: pytest.MonkeyPatch) -> None:
    judge = Judge(load(office.config, {}, serving=False))
    replay = Replay(judge)
    broken = office.record(requests.fleet())
    monkeypatch.setattr("broker_auth.operate.replay.judge.decide_stored", _raise)
    replay.records([broken])
    assert [group.difference.checks for group in replay.summary.groups()] == [("internal_error",)]


def _raise(*_: object, **__: object) -> None:
    raise RuntimeError("planted")


# --- Tokens and certificates in files


def test_credentials_in_files(counting: Office) -> None:
    office = counting
    tokens, certificates = office.directory / "tokens", office.directory / "certificates"
    for directory in (tokens, certificates):
        directory.mkdir()
    (tokens / "good.jwt").write_text(sign(client_claims(), CLIENT_SIGNER) + "\n")
    (tokens / "foreign.jwt").write_text(sign(client_claims(), FOREIGN))
    (tokens / "node.jwt").write_text(requests.node().connect_opts.auth_token)
    bounds = {"broker-auth": {"names": ["new1.example.net"], "networks": ["192.0.2.0/24"]}}
    bounded = sign(provisioning_claims(extensions=bounds), provisioning_signer())
    (tokens / "device.jwt").write_text(bounded)  # which name and address a node would have is not in the file
    numbered = sign(provisioning_claims(extensions={"broker-auth": {"max_nodes": 2}}), provisioning_signer())
    (tokens / "batch.jwt").write_text(numbered)  # nor whether it would be counted
    (tokens / "README").write_text("no token")
    (certificates / "node.pem").write_bytes(client().certificate_pem)
    (certificates / "both.pem").write_bytes(client("b").certificate_pem + client("b").key_pem)
    (certificates / "foreign.pem").write_bytes(client("node1.example.net", ca="another CA").certificate_pem)
    (certificates / "ca.pem").write_bytes(authority().pair.certificate_pem)
    done = run(
        *("replay", "--tokens", tokens, "--certificates", certificates, "--config", office.config),
        *("--at", NOW, "--json"),
    )
    named = {group["code"]: [identity["name"] for identity in group["identities"]] for group in done.json["groups"]}
    assert named == {
        "token_signature": [str(tokens / "foreign.jwt")],
        "no_credential": [str(certificates / "foreign.pem")],
    }
    assert (done.code, done.json["decided"], done.json["undecidable"]) == (1, 8, 2)
    assert done.json["skipped"] == {"nonce": 1, "node's name and address": 2, "number of nodes": 1}


def test_missing_directory_is_named(office: Office) -> None:
    done = run("replay", "--tokens", office.directory / "none", "--config", office.config)
    assert "none cannot be read: No such file or directory; give a directory" in done.error


def test_unknown_zone_is_named(office: Office) -> None:
    done = run("replay", "--tokens", office.directory, "--zone", "gone", "--config", office.config)
    assert "has no zone 'gone'; correct --zone" in done.error


def test_secrets_are_never_shown(office: Office) -> None:
    records = [office.record(requests.provisioner()), office.record(requests.system())]
    config = office.configure("new.conf", client_password="file:password-2")
    path = office.audit(*records)
    for options in ((), ("--json",)):
        done = run("replay", path, "--config", config, "--against", office.config, *options)
        assert done.code == 1
        for secret in (PASSWORD, SYSTEM_PASSWORD, NEXT, HOLDER.hex * 2):
            assert secret not in done.out + done.err
