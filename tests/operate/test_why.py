"""``why`` finds connections by any of their names, and prints remedies."""

from __future__ import annotations

import io
import json
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from broker_auth.audit.reader import read_records, read_stream
from broker_auth.audit.record import Record
from broker_auth.cli import main
from broker_auth.operate.why import find_connections
from broker_auth.operate.why_text import repeated
from broker_auth.operate.why_text import text as lines_of
from tests.audit.records import START, admitted, denied, lines, refused
from tests.settings.builder import Directory


def asked(*records: Record, about: str) -> list[int]:
    """Return the ids of the found connections."""
    histories = find_connections(records, about)
    return [(finding.decision or finding.error or denied()).cid for finding in histories]


@pytest.mark.parametrize(
    "about", ["new1.example.net", "NEW1.example.net", "provisioner", "192.0.2.7", "7", "ab" * 32, f"sha256:{'ab' * 32}"]
)
def test_connection_is_found_by(about: str) -> None:
    other = denied(cid=8, name="other", user="other", host="192.0.2.8")
    assert asked(denied(fingerprint="ab" * 32), other, about=about) == [7]


def test_connection_is_found_by_client_name() -> None:
    assert asked(denied(), admitted(cid=8, client="choria new1"), about="choria new1") == [8]


def test_connection_is_found_by_token_id() -> None:
    assert asked(denied(), admitted(cid=8), about=admitted().token_id) == [8]


def test_connections_are_found_by_chain_issuer_id() -> None:
    below = [admitted(cid=cid, seconds=cid, issuer_id="2cJ4vIL2TBj1nWjNLrmGTAZMXqP") for cid in (1, 2)]
    assert asked(*below, admitted(cid=3), about="2cJ4vIL2TBj1nWjNLrmGTAZMXqP") == [1, 2]


@pytest.mark.parametrize(("days", "warns"), [(31, False), (29, True), (-1, True)])
def test_chain_issuer_that_ends_soon_is_warned_of(days: int, warns: bool) -> None:
    record = admitted(issuer_id="ISSUER", issuer_ends=admitted().time + timedelta(days=days))
    output = text(record, about="ISSUER")
    assert "chain issuer ISSUER" in output
    assert ("are denied from then on; renew it" in output) is warns


@pytest.mark.parametrize(("grace", "shown"), [(0.0, ""), (7 * 86_400.0, "which is after its credential by 7d")])
def test_session_that_outlives_its_credential_is_noted(grace: float, shown: str) -> None:
    output = text(admitted(grace=grace, expires=admitted().time + timedelta(days=9)), about="8")
    assert "until " in output
    assert ("after its credential" in output) is bool(grace)
    assert shown in output


@pytest.mark.parametrize(("name", "noted"), [("root.mcollective", True), ("new1.example.net", False)])
def test_waiting_node_that_is_not_root_is_noted(name: str, noted: bool) -> None:
    assert ("does not run as root" in text(admitted(rule="provisioning", name=name), about=name)) is noted


@pytest.mark.parametrize("about", ["", "new1", "example.net", "192.0.2.70", "77"])
def test_partial_name_finds_nothing(about: str) -> None:
    assert asked(denied(), about=about) == []


def test_connections_are_sorted_by_time() -> None:
    records = [denied(cid=cid, seconds=cid) for cid in (3, 1, 4, 2, 5)]
    assert asked(*records, about="provisioner") == [1, 2, 3, 4, 5]


def test_document_contains_the_last_connections() -> None:
    records = lines(*[denied(cid=cid, seconds=cid) for cid in (3, 1, 4, 2, 5)])
    done = run("provisioner", "--audit", "-", "--json", "--last", "3", stdin=records)
    assert [finding["decision"]["cid"] for finding in json.loads(done.stdout)] == [3, 4, 5]


def test_decision_and_server_error_of_a_connection_are_combined() -> None:
    histories = find_connections([refused(), denied()], "new1.example.net")
    assert len(histories) == 1
    assert histories[0].decision
    assert histories[0].error


def test_connection_ids_are_distinguished_by_server() -> None:
    histories = find_connections([denied(), refused(server_id="N2")], "192.0.2.7")
    assert [(finding.decision is None, finding.error is None) for finding in histories] == [
        (False, True),
        (True, False),
    ]


def text(*records: Record, about: str = "7") -> str:
    groups = repeated(find_connections(records, about))
    return "\n".join(lines_of(groups, START + timedelta(minutes=5)))


def test_denial_is_explained() -> None:
    output = text(denied(), refused())
    assert "DENIED  new1.example.net as user provisioner from 192.0.2.7, connection 7 on fleet-1" in output
    assert "rule 1 (provisioner): provisioner_password: wrong password" in output
    assert "previous_client_password" in output  # the remedy
    assert "nats-server: Auth callout service returned" in output


def test_admission_needs_no_remedy() -> None:
    output = text(admitted(), about="8")
    assert "admitted  new1.example.net" in output
    assert "account provisioning" in output
    assert "what to do" not in output


def test_admission_refused_by_nats_server_is_explained() -> None:
    output = text(admitted(), refused(cid=8, reason=""), about="8")
    assert "answer was late" in output
    assert "no reason, which means" in output


def test_unanswered_connection_is_explained() -> None:
    output = text(refused(reason=""))
    assert output.startswith(
        "2027-01-15 08:00:00 UTC (5 minutes ago)  REFUSED  unnamed as user provisioner from 192.0.2.7"
    )
    assert "no decision is recorded" in output


def test_unknown_code_is_reported() -> None:
    assert "does not know the code" in text(denied(code="token_from_the_future"))


def test_records_are_read_from_a_log_and_other_lines_skipped() -> None:
    journal = (
        b"2027-01-15 08:00:00 INFO 7 broker_auth.callout.connection: broker east: subscribed\n"
        b"2027-01-15 08:00:00 WARNING 7 broker_auth.audit.sinks: " + lines(denied()) + b'{"event":"decision","v":\n'
        b'{"event":"something_new","v":2}\n\xff\xfe{"event":\xff}\n' + lines(refused())
    )
    assert [type(record).__name__ for record in read_stream(io.BytesIO(journal))] == [
        "AuditRecord",
        "ServerErrorRecord",
    ]


def test_rotated_file_is_read_first(tmp_path: Path) -> None:
    (tmp_path / "audit.jsonl.1").write_bytes(lines(denied(cid=1)))
    (tmp_path / "audit.jsonl").write_bytes(lines(denied(cid=2)))
    assert [record.cid for record in read_records(tmp_path / "audit.jsonl")] == [1, 2]


def run(*arguments: str, stdin: bytes = b"") -> Result:
    return CliRunner().invoke(main, ["why", *arguments], input=stdin)


def test_command_reads_the_configured_file(tmp_path: Path) -> None:
    directory = Directory(tmp_path)
    directory.keys = {"plugin.broker_auth.audit.output": "log, file:audit.jsonl"}
    (tmp_path / "audit.jsonl").write_bytes(lines(denied()))
    done = run("new1.example.net", "--config", str(directory.save()))
    assert done.exit_code == 0
    assert "DENIED" in done.stdout


def test_command_prints_one_json_document() -> None:
    done = run("7", "--audit", "-", "--json", stdin=lines(denied(), refused()))
    (finding,) = json.loads(done.stdout)
    assert finding["decision"]["code"] == "provisioner_password"
    assert finding["server_error"]["cid"] == 7
    assert finding["remedy"].startswith("Compare it")


def test_command_reports_no_match() -> None:
    done = run("stranger", "--audit", "-", stdin=lines(denied()))
    assert (done.exit_code, done.stdout) == (1, "")
    assert done.stderr.startswith("Error: no records of 'stranger'")


def test_command_needs_records(tmp_path: Path) -> None:
    directory = Directory(tmp_path)
    directory.keys = {}
    assert run("7").exit_code == 2
    assert "does not name a file" in run("7", "--config", str(directory.save())).stderr
    assert run("7", "--audit", str(tmp_path / "missing")).exit_code == 1


def test_equal_decisions_are_one_entry_with_one_remedy() -> None:
    records = [denied(cid=cid, seconds=cid, server=f"fleet-{cid % 2}") for cid in range(20, 29)]
    output = text(*records, about="provisioner").splitlines()
    assert [line for line in output if "DENIED" in line] == [
        "2027-01-15 08:00:28 UTC (4 minutes ago)  DENIED 9 times  new1.example.net as user provisioner from 192.0.2.7, "
        "connection 28 on fleet-0"
    ]
    assert output[1] == "  since 2027-01-15 08:00:20 UTC, on fleet-0, fleet-1; the last one is shown"
    assert len([line for line in output if line.startswith("  what to do:")]) == 1


@pytest.mark.parametrize(
    "change", [{"host": "192.0.2.8"}, {"code": "provisioner_identity"}, {"name": "other"}, {"broker": "east"}]
)
def test_different_decisions_are_separate_entries(change: dict[str, Any]) -> None:
    assert text(denied(), denied(cid=9, seconds=5, **change), about="provisioner").count("DENIED") == 2


def test_remedy_that_several_entries_need_follows_the_last() -> None:
    output = text(denied(), denied(cid=9, seconds=5, host="192.0.2.8"), about="provisioner").splitlines()
    first, second = [number for number, line in enumerate(output) if "DENIED" in line]
    assert "  why, and what to do: see below" in output[first:second]
    assert [line[:7] for line in output[second:]].count("  what ") == 1


def test_last_counts_entries() -> None:
    many = [denied(cid=cid, seconds=cid) for cid in range(20, 40)]
    others = [denied(cid=cid, seconds=cid, host=f"192.0.2.{cid}") for cid in range(1, 5)]
    done = run("provisioner", "--audit", "-", "--last", "2", stdin=lines(*others, *many))
    assert [" 192.0.2.4," in line for line in done.stdout.splitlines() if "DENIED" in line] == [True, False]
    assert "DENIED 20 times" in done.stdout


@pytest.mark.parametrize("name", ["broker-auth-cli", "broker-auth-doctor-12ab"])
def test_connections_of_commands_are_marked(name: str) -> None:
    assert "this is a broker-auth command" in text(denied(name=name))
    assert "this is a broker-auth command" in text(admitted(cid=7, client=name))
    assert "this is a broker-auth command" not in text(denied())


def test_tests_of_the_doctor_are_one_entry() -> None:
    records = [denied(cid=cid, name=f"broker-auth-doctor-{cid}") for cid in range(3)]
    assert text(*records, about="provisioner").count("DENIED") == 1


def test_file_without_records_is_named(tmp_path: Path) -> None:
    file = tmp_path / "ca.pem"
    file.write_text("-----BEGIN CERTIFICATE-----\n")
    done = run("7", "--audit", str(file))
    assert done.exit_code == 1
    assert f"{file} contains no audit record" in done.stderr


def test_stopped_service_is_why_nothing_is_recorded(tmp_path: Path) -> None:
    directory = Directory(tmp_path)
    directory.keys = {"plugin.broker_auth.audit.output": "file:audit.jsonl", "plugin.broker_auth.pid_file": "serve.pid"}
    (tmp_path / "audit.jsonl").write_bytes(lines(denied()))
    config = str(directory.save())
    unknown, known = run("stranger", "-c", config), run("7", "-c", config)
    assert "no records of 'stranger': no service runs with the pid file" in unknown.stderr
    assert known.exit_code == 0
    assert known.stderr.startswith("Note: no service runs with the pid file")


def test_control_characters_are_not_printed() -> None:
    done = run("7", "--audit", "-", stdin=lines(denied(name="evil\x1b[2J\nfake: admitted")))
    assert "\x1b" not in done.stdout
    assert not [line for line in done.stdout.splitlines() if line.startswith("fake")]


SHOWN: dict[str, Any] = {
    "fingerprint": "cd" * 32,
    "certificate_names": ("Jo Doe", "jo@example.net", "node1.example.net", "node1.example.net"),
    "certificate_problem": "it expired on 2026-01-01 00:00:00 UTC",
}


@pytest.mark.parametrize("about", ["Jo Doe", "JO@example.net", "node1.example.net", "cd" * 32, f"sha256:{'cd' * 32}"])
def test_refused_certificate_is_found_by_its_names_and_fingerprint(about: str) -> None:
    assert asked(denied(**SHOWN), denied(cid=8), about=about) == [7]


def test_refused_certificate_is_shown_with_the_reason_and_each_name_once() -> None:
    output = text(denied(**SHOWN))
    assert "the certificate: it expired on 2026-01-01" in output
    assert f"certificate sha256:{'cd' * 32}, of Jo Doe, jo@example.net, node1.example.net, TLS" in output
