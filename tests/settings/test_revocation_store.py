"""Changes of the file of revocations: nothing lost, nothing half done."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from broker_auth.errors import InputError
from broker_auth.files.reading import BadValue
from broker_auth.policy.revocation_records import KEEP_SECONDS, Restored
from broker_auth.policy.revocations import Revocation, RevocationKind
from broker_auth.settings.revocation_store import create, open_store
from broker_auth.settings.revocations import read_revocations
from tests.builders.clock import NOW


def node(name: str, until: float | None = None) -> Revocation:
    return Revocation(kind=RevocationKind.NODE, value=name, until=until)


def key(name: str) -> tuple[RevocationKind, str]:
    return RevocationKind.NODE, name


@pytest.fixture
def path(tmp_path: Path) -> Path:
    made = tmp_path / "revoked.json"
    assert create(made)
    return made


def test_file_is_created_once_and_private(path: Path) -> None:
    with open_store(path) as store:
        store.revoke([node("a")], NOW)
    assert not create(path)
    assert read_revocations(path).in_force(NOW) == (node("a"),)
    assert path.stat().st_mode & 0o777 == 0o600


def test_revocations_are_added_replaced_and_restored(path: Path) -> None:
    with open_store(path) as store:
        store.revoke([node("a"), node("b", NOW + 1)], NOW)
        (again,) = store.revoke([node("a", NOW + 9)], NOW)
        assert read_revocations(path).in_force(NOW) == (node("b", NOW + 1), again)
        store.revoke([node("c")], NOW + 1)
        store.restore([key("a")], NOW + 1, "jo")
        assert store.held.version == read_revocations(path).version
    content = read_revocations(path)
    assert content.in_force(NOW) == (node("b", NOW + 1), node("c"))
    assert content.in_force(NOW + 1) == (node("c"),)
    taken_back = content.records[key("a")]
    assert isinstance(taken_back, Restored)
    assert (taken_back.restored, taken_back.by) == (NOW + 1, "jo")


def test_records_without_effect_are_forgotten_after_a_while(path: Path) -> None:
    with open_store(path) as store:
        store.revoke([node("a"), node("b", NOW + 1), node("c")], NOW)
        store.restore([key("a")], NOW)
        store.merge([node("d")], NOW + KEEP_SECONDS - 1)
        assert set(store.held.records) == {key(name) for name in "abcd"}
        store.merge([node("e")], NOW + KEEP_SECONDS + 1)
        assert set(read_revocations(path).records) == {key(name) for name in "cde"}


def test_nothing_is_written_where_nothing_changes(path: Path) -> None:
    with open_store(path) as store:
        store.revoke([node("a")], NOW)
        before = path.stat().st_ino
        store.merge([node("a")], NOW)
    assert path.stat().st_ino == before


def test_nothing_is_restored_where_one_is_not_revoked(path: Path) -> None:
    with open_store(path) as store:
        store.revoke([node("a")], NOW)
        with pytest.raises(InputError, match="node b is not revoked"):
            store.restore([key("a"), key("b")], NOW)
    assert read_revocations(path).in_force(NOW) == (node("a"),)


def test_file_that_cannot_be_read_is_not_overwritten(path: Path) -> None:
    path.write_bytes(b"{")
    with pytest.raises(BadValue), open_store(path):
        pass
    assert path.read_bytes() == b"{"


def test_no_change_is_lost_when_many_write(path: Path) -> None:
    def write(name: str) -> None:
        with open_store(path) as store:
            store.revoke([node(name)], NOW)

    names = [f"n{number}" for number in range(8)]
    threads = [threading.Thread(target=write, args=(name,)) for name in names]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert {one.value for one in read_revocations(path).in_force(NOW)} == set(names)
