"""Admissions are found in audit files of any shape, the newest record first."""

from __future__ import annotations

import errno
import math
import os
from datetime import UTC, datetime
from pathlib import Path
from typing import Never

import msgspec
import pytest

from broker_auth.audit import admissions
from broker_auth.audit.admissions import Admissions, find_admissions
from broker_auth.audit.reader import MAX_LINE
from broker_auth.audit.record import AuditRecord, encode
from broker_auth.policy.revocations import RevocationKind
from tests.builders.clock import NOW

SESSIONS = [("N1", number) for number in range(1, 5)]
REVOKED = [(RevocationKind.TOKEN_ID, "leaked"), (RevocationKind.SIGNER, "org"), (RevocationKind.CHAIN_ISSUER, "team")]


def line(cid: int, via: str = "other", *, admitted: bool = True, **changes: str) -> bytes:
    record = AuditRecord(
        time=datetime.fromtimestamp(NOW + cid, UTC),
        decision="admit" if admitted else "deny",
        rule="client",
        rule_number=3,
        code="admitted",
        reason='"decision":"admit"',
        server_id="N1",
        cid=cid,
        token_id=via,
        zone="fleet",
    )
    return encode(msgspec.structs.replace(record, **changes))


def search(path: Path, sessions: list[tuple[str, int]] = SESSIONS, deadline: float = math.inf) -> Admissions:
    return find_admissions(path, "fleet", sessions, REVOKED, deadline)


def test_sessions_match_by_what_let_them_in_and_others_are_known(tmp_path: Path) -> None:
    path = tmp_path / "audit.json"
    lines = [line(1, "leaked"), line(2), line(3, signer="org via up=issuer"), line(4, issuer_id="team")]
    path.write_bytes(b"".join(lines))
    result = search(path, [*SESSIONS, ("N2", 1), ("N1", 10)])
    assert result.matches == {("N1", 1): True, ("N1", 2): False, ("N1", 3): True, ("N1", 4): True}
    assert (result.since, result.trouble) == (NOW + 1, "")


@pytest.mark.parametrize("block", [64, 1024, 1024**2])
def test_incomplete_admissions_and_those_of_other_zones_are_skipped(
    block: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(admissions, "_BLOCK", block)
    path = tmp_path / "audit.json"
    path.write_bytes(
        line(1, "leaked")
        + b"\xff\xfe" * 5000
        + b'\n{"event":"decision","decision":"admit"}\n'
        + b'{"event":"decision","decision":"admit","cid":"x"}\n'
        + b'{"event":"decision","decision":"admit","time":"never","server_id":"N1","cid":7}\n'
        + b'{"event":"server_error","cid":0}\n'
        + b"x" * (MAX_LINE + block)
        + b"\n"
        + line(1, admitted=False)
        + line(1, zone="edge")  # a server of the edge that claims to be one of the fleet's
        + line(2)
        + line(3, "leaked")[:-20]  # half written
    )
    result = search(path)
    assert result.matches == {("N1", 1): True, ("N1", 2): False}
    assert result.since == NOW + 1


def test_rotated_files_are_searched_as_far_as_necessary(tmp_path: Path) -> None:
    path = tmp_path / "audit.json"
    path.write_bytes(line(3))
    path.with_name("audit.json.1").write_bytes(line(2) + line(3, "leaked"))
    path.with_name("audit.json.2").write_bytes(line(1, "leaked"))
    assert search(path, SESSIONS[1:3]).matches == {("N1", 3): False, ("N1", 2): False}
    result = search(path)
    assert result.matches == {("N1", 1): True, ("N1", 2): False, ("N1", 3): False}
    assert result.since == NOW + 1


def test_search_says_how_far_it_came_in_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(admissions, "_BLOCK", 64 * 1024)
    path = tmp_path / "audit.json"
    path.write_bytes(line(1, "leaked") + line(2) * 1000 + line(4))
    result = search(path, deadline=0.0)
    assert result.matches == {("N1", 4): False, ("N1", 2): False}
    assert result.since == NOW + 2
    assert "not searched to its beginning in time" in result.trouble


def test_file_that_is_missing_or_unreadable_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "audit.json"
    assert search(path).trouble == f"there is no audit file {path}"
    path.mkdir()  # opening a pipe would wait, and take what somebody else reads
    assert "there is no audit file" in search(path).trouble
    path.rmdir()
    path.write_bytes(line(1))

    def fail(_: object) -> Never:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(admissions, "_blocks", fail)
    assert search(path).trouble == f"audit file {path} cannot be read: Input/output error"
