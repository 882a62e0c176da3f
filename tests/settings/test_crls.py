"""CRLs in a configuration: unusable ones are problems, expired ones warnings; edges do not read them."""

from __future__ import annotations

import pytest

from broker_auth.settings.load import check
from broker_auth.settings.policy import build_policy
from tests.builders.crls import crl, pem
from tests.builders.peers import authority
from tests.settings.builder import NOW, Directory, P

KEY, EXPIRED = f"{P}client_crl", f"{P}client_crl_expired"
SECONDS = NOW.timestamp()
CURRENT = crl(authority(), 5, this_update=SECONDS - 60, next_update=SECONDS + 60)
OTHER = crl(authority("foreign CA"), 5)


@pytest.fixture
def fleet(directory: Directory) -> Directory:
    """Return a configuration whose CA publishes CRLs."""
    directory.write("ca.pem", authority().certificate_pem)
    directory.write("fleet.crl", CURRENT)
    directory.set({KEY: "fleet.crl"})
    return directory


def test_crls_of_all_files_are_part_of_the_policy(fleet: Directory) -> None:
    fleet.write("more.crl", pem(crl(authority(), 6, 7, next_update=SECONDS + 60)))
    fleet.set({KEY: "fleet.crl, more.crl, fleet.crl", EXPIRED: "deny"})
    report = fleet.check()
    assert (report.problems, report.warnings) == ((), ())
    assert report.settings is not None
    crls = build_policy(report.settings).revocations.crls
    assert [(one.file, len(one.serials)) for one in crls.crls] == [
        (str(fleet.path / "fleet.crl"), 1),
        (str(fleet.path / "more.crl"), 2),
    ]
    assert crls.deny_expired


PROBLEMS: dict[str, tuple[bytes | None, str]] = {
    "missing": (None, "does not exist"),
    "cut": (CURRENT[:-1], "cannot be read"),
    "another CA's": (OTHER, "was issued by 'CN=foreign CA', which is not a CA in client_ca"),
    "too large": (b"\x30" * (16 * 1024 * 1024 + 1), "is larger than 16777216 bytes"),
}
WARNINGS: dict[str, tuple[bytes, str]] = {
    "expired": (crl(authority(), next_update=SECONDS - 1), "the CRL of 'CN=fleet CA' expired on "),
    "from the future": (crl(authority(), this_update=SECONDS + 9, next_update=None), "is from the future"),
    "without an end": (crl(authority(), this_update=SECONDS, next_update=None), "so it never expires"),
}


@pytest.mark.parametrize("what", PROBLEMS)
def test_file_that_cannot_be_used_is_a_problem_at_its_line(fleet: Directory, what: str) -> None:
    data, message = PROBLEMS[what]
    (fleet.path / "fleet.crl").unlink()
    if data is not None:
        fleet.write("fleet.crl", data)
    (problem,) = fleet.check().problems
    assert (problem.key, problem.line) == (KEY, fleet.line(KEY))
    assert f"{fleet.path}/fleet.crl " in problem.what
    assert message in problem.what
    assert fleet.check(serving=False).problems == ()


@pytest.mark.parametrize("what", WARNINGS)
def test_doubtful_date_is_a_warning(fleet: Directory, what: str) -> None:
    data, message = WARNINGS[what]
    fleet.write("fleet.crl", data)
    report = fleet.check()
    assert report.problems == ()
    (warning,) = report.warnings
    assert message in warning.what
    assert warning.key == KEY


def test_crls_of_many_files_are_limited_together(fleet: Directory) -> None:
    for number in range(3):
        fleet.write(f"{number}.crl", pem(*[crl(authority(), next_update=SECONDS + 60)] * 30))
    fleet.set({KEY: "0.crl, 1.crl, 2.crl"})
    (problem,) = fleet.check().problems
    assert "2.crl makes more than 64 CRLs" in problem.what


def test_keys_need_one_another(fleet: Directory) -> None:
    fleet.set({f"{P}client_ca": None})
    (problem,) = fleet.check().problems
    assert f"has no effect without {P}client_ca" in problem.what
    fleet.set({f"{P}client_ca": "ca.pem", KEY: None, EXPIRED: "deny"})
    (warning,) = fleet.check().warnings
    assert f"has no effect without {KEY}" in warning.what


def test_ca_that_cannot_be_read_is_reported_too(fleet: Directory) -> None:
    (fleet.path / "ca.pem").unlink()
    assert {problem.key for problem in fleet.check().problems} >= {KEY, f"{P}client_ca"}


def test_edge_reads_no_crl(fleet: Directory) -> None:
    (fleet.path / "fleet.crl").unlink()
    fleet.set(
        {
            f"{P}brokers": "default, edge",
            f"{P}broker.default.role": "fleet",
            f"{P}broker.edge.urls": "tls://127.0.0.1:4223",
            f"{P}broker.edge.role": "edge",
            **{f"{P}zone.edge.{name}_seed_file": f"{file}.seed" for name, file in SEEDS.items()},
        }
    )
    report = check(fleet.save(), {}, zone="edge", now=NOW)
    assert report.problems == ()
    assert report.settings is not None
    assert report.settings.client_crl == ()


SEEDS = {"nkey": "user", "issuer": "account", "xkey": "curve"}
