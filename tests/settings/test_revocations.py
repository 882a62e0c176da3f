"""The file of revocations: complete and usable, or refused; never half read, never forgotten at a start."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker_auth.files.reading import BadValue
from broker_auth.files.writing import write_private
from broker_auth.policy.revocation_records import Restored
from broker_auth.policy.revocations import Revocation, RevocationKind
from broker_auth.settings.load import check
from broker_auth.settings.revocations import RevocationList, decode, encode, read_revocations, version_of
from tests.builders.clock import NOW

PATH = Path("revoked.json")
FULL = (
    Revocation(kind=RevocationKind.TOKEN_ID, value="a", until=NOW + 0.5, reason="Jos\u00e9", by="jo", at=NOW),
    Revocation(kind=RevocationKind.SIGNER, value="signer.pem", before=NOW),
    Revocation(kind=RevocationKind.NETWORK, value="192.0.2.0/24"),
)
DATA = encode(FULL)


def one(**changes: object) -> bytes:
    entry = {"kind": "node", "value": "a"} | changes
    return ('{"version":1,"revocations":[' + repr(entry).replace("'", '"') + "]}").encode()


def test_content_is_read_as_it_was_written() -> None:
    content = decode(DATA, PATH)
    assert content.in_force(NOW) == FULL
    assert content.version == content.index.version == version_of(DATA)
    assert decode(encode(()), PATH).records == {}


def test_file_of_a_version_that_kept_no_restored_is_read() -> None:
    old = b'{"version":1,"revocations":[\n{"kind":"node","value":"a"},\n{"kind":"node","value":"a","at":5.0}\n]}\n'
    assert decode(old, PATH).in_force(NOW) == (Revocation(kind=RevocationKind.NODE, value="a", at=5.0),)
    assert b"restored" not in encode(decode(old, PATH).records.values())


def test_restored_and_ended_revocations_are_kept_and_deny_nothing() -> None:
    restored = Restored(kind=RevocationKind.NODE, value="a", at=1.5, restored=NOW, by="jo")
    over = Revocation(kind=RevocationKind.NODE, value="b", until=1.0)
    content = decode(encode((restored, *FULL, over)), PATH)
    assert content.records[RevocationKind.NODE, "a"] == restored
    assert content.records[RevocationKind.NODE, "b"] == over
    assert content.in_force(NOW) == FULL
    assert content.index.count == len(FULL)


def test_each_revocation_has_a_line_for_people() -> None:
    assert len(DATA.splitlines()) == len(FULL) + 2


@given(st.integers(0, len(DATA.rstrip()) - 1))
def test_file_that_was_cut_is_refused(size: int) -> None:
    with pytest.raises(BadValue, match="not a complete list"):
        decode(DATA[:size], PATH)


def _with_another_byte(at: int, byte: int) -> bytes:
    return DATA[:at] + bytes([byte]) + DATA[at + 1 :]


@given(st.binary(max_size=200) | st.builds(_with_another_byte, st.integers(0, len(DATA)), st.integers(0, 255)))
def test_any_content_is_read_or_refused(data: bytes) -> None:
    try:
        content = decode(data, PATH)
    except BadValue:
        return
    assert isinstance(content, RevocationList)
    assert content.index.count <= len(content.records)


@pytest.mark.parametrize(
    "data",
    [
        b"[]",
        b'{"version":2,"revocations":[]}',
        b'{"version":1,"revocations":[],"more":1}',
        b'{"version":1,"revocations":[],"restored":[{"kind":"node","value":"a","at":1}]}',
        b'{"version":1,"revocations":[],"restored":[{"kind":"node","value":"a","at":1,"restored":-1}]}',
        b'{"version":1,"revocations":[],"restored":[{"kind":"key","value":"a","at":1,"restored":1}]}',
        one(kind="nodes"),
        one(value=""),
        one(kind="key", value="AB" * 32),
        one(until=-1),
        one(until=1e300),
        one(at="now"),
        one(other=1),
        b'{"version":1,"revocations":[' + b"[" * 100_000,
    ],
)
def test_content_that_is_not_known_is_refused(data: bytes) -> None:
    with pytest.raises(BadValue):
        decode(data, PATH)


def test_file_open_to_others_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "revoked.json"
    write_private(path, DATA)
    assert read_revocations(path).in_force(NOW) == FULL
    path.chmod(0o644)
    with pytest.raises(BadValue, match="mode 0644"):
        read_revocations(path)


@pytest.mark.parametrize("data", [None, DATA[:-9]])
def test_service_does_not_start_without_its_revocations(tmp_path: Path, data: bytes | None) -> None:
    (tmp_path / "broker.conf").write_text("plugin.broker_auth.revocations = revoked.json\n")
    if data is not None:
        write_private(tmp_path / "revoked.json", data)
    problems = [
        problem for problem in check(tmp_path / "broker.conf", {}).problems if "revocations" in (problem.key or "")
    ]
    assert len(problems) == 1
    assert ("revoked --create" in problems[0].remedy) == (data is None)
