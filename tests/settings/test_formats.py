"""The file format and durations by themselves, and input nobody meant to write."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from broker_auth.errors import InputError
from broker_auth.settings.choria_file import parse
from broker_auth.settings.keys.durations import parse_duration
from broker_auth.settings.keys.table import KEYS
from broker_auth.settings.load import check
from broker_auth.settings.problems import ConfigurationReport, Findings
from broker_auth.settings.source import MAX_GUESSES
from tests.settings.builder import CHORIA, HEX_KEY, ISSUER_MODE, Directory


def parsed(data: bytes) -> tuple[list[tuple[str, str | None, int | None]], list[tuple[int | None, str | None]]]:
    findings = Findings(file="f")
    entries = [(entry.key, entry.value, entry.line) for entry in parse(data, findings)]
    return entries, [(problem.line, problem.key) for problem in findings.report(None).problems]


def test_comments_blank_lines_order_marks_and_line_ends() -> None:
    data = b"\xef\xbb\xbfa = 1\r\n\r\n# b = 2\r\n  # c = 3\n  d=x = y # z \nd = 2"
    assert parsed(data) == ([("a", "1", 1), ("d", "x = y # z", 5), ("d", "2", 6)], [])


def test_only_line_feeds_count_lines() -> None:
    assert parsed("a = 1\u2028\rx\nb = 2".encode()) == ([("a", "1\u2028\rx", 1), ("b", "2", 2)], [])


def test_lines_that_cannot_be_read_are_reported_and_skipped() -> None:
    data = b"a = \xff\nno separator\n= nothing\n\xff = 1\nb = 2"
    assert parsed(data) == ([("a", None, 1), ("b", "2", 5)], [(1, "a"), (4, None)])


def test_lines_that_choria_skips_are_skipped_with_a_warning(directory: Directory) -> None:
    path = directory.save()
    directory.write("broker.conf", path.read_text() + "no separator\n= nothing\n")
    report = check(path, {})
    assert report.ok
    assert ["is ignored, as Choria does" in str(warning) for warning in report.warnings] == [True, True]


def test_empty_value_of_a_choria_key_is_ignored_with_a_warning(directory: Directory) -> None:
    directory.set({f"{CHORIA}client_hosts": ""})
    report = directory.check()
    assert report.settings is not None
    assert report.settings.client_hosts == ()
    (warning,) = report.warnings
    assert "has no value, and is ignored" in str(warning)


def test_last_of_two_choria_keys_counts_with_a_warning(directory: Directory) -> None:
    directory.set({f"{CHORIA}client_hosts": "192.0.2.1"})
    path = directory.save()
    directory.write("broker.conf", path.read_text() + f"{CHORIA}client_hosts = 192.0.2.2\n")
    report = check(path, {})
    assert report.settings is not None
    assert [str(network) for network in report.settings.client_hosts] == ["192.0.2.2/32"]
    (warning,) = report.warnings
    assert "is set twice, in lines" in str(warning)


def test_issuer_names_hold_dots(directory: Directory) -> None:
    directory.set(
        ISSUER_MODE
        | {
            "plugin.security.issuer.choria.public": None,
            "plugin.security.issuer.names": "acme.example",
            "plugin.security.issuer.acme.example.public": HEX_KEY,
        }
    )
    report = directory.check()
    assert report.settings is not None, report.problems
    assert [(issuer.name, issuer.hex) for issuer in report.settings.issuers] == [("acme.example", HEX_KEY)]


def test_tilde_is_the_home_directory(directory: Directory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(directory.path))
    directory.set({f"{CHORIA}provisioning.signer_cert": "~/signer.pem"})
    report = directory.check()
    assert report.settings is not None, report.problems
    assert report.settings.provisioning.signers[0].path == directory.path / "signer.pem"


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("30s", 30.0),
        ("1h30m", 5400.0),
        ("500ms", 0.5),
        ("1.5h", 5400.0),
        ("7d", 604_800.0),
        ("2w", 1_209_600.0),
        ("1M", 2_592_000.0),
        ("1y", 31_536_000.0),
        ("1y2w3d", 31_536_000.0 + 1_209_600.0 + 259_200.0),
        (" 90 ", 90.0),
        ("0", 0.0),
        ("1m500ms", 60.5),
    ],
)
def test_durations(text: str, seconds: float) -> None:
    assert parse_duration(text) == pytest.approx(seconds)


@pytest.mark.parametrize(
    "text", ["", " ", "s", "-1s", "+1s", "1.s", ".5s", "1x", "1 h", "1h ago", "٣s", "1e3s", "101y", "1" * 65]
)
def test_not_durations(text: str) -> None:
    with pytest.raises(InputError) as caught:
        parse_duration(text)
    assert "write" in str(caught.value)


def checked(directory: Path, data: bytes, environ: dict[str, str] | None = None) -> ConfigurationReport:
    path = directory / "broker.conf"
    path.write_bytes(data)
    report = check(path, environ or {})
    for found in (*report.problems, *report.warnings):
        assert str(found).isprintable()
    return report


HOSTILE = settings(suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture])
WRITTEN = st.sampled_from([key.of("default") for key in KEYS]) | st.text(max_size=40)
VALUES = (
    st.text(max_size=60)
    | st.sampled_from(["file:", "file:x", "/", "//", "/(/", "/[[/", ".", "..", "0", "-1", "true", "default", "1y" * 40])
    | st.from_regex(r"(tls|nats|ws)://[^\n]{0,20}", fullmatch=True)
)


@HOSTILE
@given(data=st.binary(max_size=400))
def test_any_bytes_are_a_report(tmp_path: Path, data: bytes) -> None:
    assert checked(tmp_path, data).problems  # nothing so short is a configuration that can serve


@HOSTILE
@given(lines=st.lists(st.tuples(WRITTEN, VALUES), max_size=12))
def test_any_values_are_a_report(tmp_path: Path, lines: list[tuple[str, str]]) -> None:
    data = "\n".join(f"{key} = {value}" for key, value in lines).encode("utf-8", "surrogatepass")
    assert checked(tmp_path, data).problems


@HOSTILE
@given(environ=st.dictionaries(st.text(max_size=20).map("BROKER_AUTH_{}".format) | st.text(max_size=9), VALUES))
def test_any_environment_is_a_report(tmp_path: Path, environ: dict[str, str]) -> None:
    assert checked(tmp_path, b"", environ).problems


def test_a_file_of_nothing_but_mistakes_is_read_in_bounded_time(tmp_path: Path) -> None:
    lines = [f"plugin.broker_auth.mistake_number_{number} = x" for number in range(5000)]
    report = checked(tmp_path, "\n".join(lines).encode())
    assert sum(problem.line is not None for problem in report.problems) == 5000
    assert 0 < sum("did you mean" in problem.remedy for problem in report.problems) <= MAX_GUESSES
