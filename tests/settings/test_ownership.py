"""Modes, groups and owners of files with secrets, as root and as another user."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from broker_auth.files import ownership
from tests.settings.builder import Directory, P

STRANGER = 12_345  # an unused user and group id
SEED = f"{P}nkey_seed_file"

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")


def problems(directory: Directory) -> list[str]:
    return [str(problem) for problem in directory.check().problems]


@pytest.mark.parametrize("mode", [0o400, 0o600, 0o440, 0o640])
def test_secrets_of_own_group_are_accepted(directory: Directory, mode: int) -> None:
    for name in ("user.seed", "account.seed", "curve.seed", "system.password", "service.key"):
        (directory.path / name).chmod(mode)
    assert problems(directory) == []


@pytest.mark.parametrize("mode", [0o444, 0o604, 0o660, 0o620, 0o610, 0o601, 0o602, 0o4604, 0o777])
@pytest.mark.parametrize("name", ["user.seed", "system.password", "service.key"])
def test_secrets_accessible_to_others_are_refused(directory: Directory, name: str, mode: int) -> None:
    (directory.path / name).chmod(mode)
    (reported,) = problems(directory)
    assert f"{name} has mode {mode:04o}" in reported
    assert f"chmod 600 {directory.path / name}" in reported


@as_root
@pytest.mark.parametrize("name", ["user.seed", "system.password", "service.key"])
def test_secrets_of_another_group_are_refused(directory: Directory, name: str) -> None:
    (directory.path / name).chmod(0o440)
    os.chown(directory.path / name, 0, STRANGER)
    (reported,) = problems(directory)
    assert f"belongs to group {STRANGER}" in reported


@as_root
def test_other_group_without_access_is_accepted(directory: Directory) -> None:
    os.chown(directory.path / "user.seed", 0, STRANGER)
    assert problems(directory) == []


@as_root
@pytest.mark.parametrize("name", ["user.seed", "system.password", "service.key"])
def test_secrets_of_another_user_are_refused(directory: Directory, name: str) -> None:
    os.chown(directory.path / name, STRANGER, 0)
    (reported,) = problems(directory)
    assert f"{name} belongs to user {STRANGER}" in reported


@as_root
def test_secrets_in_another_users_directory_are_refused(directory: Directory) -> None:
    keys = directory.path / "keys"
    keys.mkdir(mode=0o700)
    (directory.path / "user.seed").rename(keys / "user.seed")
    directory.set({SEED: "keys/user.seed"})
    assert problems(directory) == []
    os.chown(keys, STRANGER, 0)
    (reported,) = problems(directory)
    assert f"lies in a directory that belongs to user {STRANGER}" in reported


@as_root
def test_root_accepts_files_of_the_configuration_owner(directory: Directory) -> None:
    """Root runs commands on a deployment whose service runs as another user."""
    directory.path.chmod(0o750)
    for path in (directory.path, *directory.path.iterdir()):
        os.chown(path, STRANGER, STRANGER)
    for name in ("user.seed", "service.key"):
        (directory.path / name).chmod(0o440)
    assert problems(directory) == []


@as_root
def test_user_accepts_only_own_files_and_those_of_root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "seed"
    path.write_bytes(b"x")

    def refused(user: int, group: int, mode: int) -> bool:
        path.chmod(mode)
        os.chown(path, user, group)
        with ownership.configured_by(tmp_path / "broker.conf"):
            return ownership.objection(path, path.stat()) is not None

    monkeypatch.setattr(os, "geteuid", lambda: STRANGER)
    monkeypatch.setattr(os, "getegid", lambda: STRANGER)
    monkeypatch.setattr(os, "getgroups", lambda: [STRANGER, STRANGER + 1])
    os.chown(tmp_path, STRANGER, STRANGER)
    assert not refused(STRANGER, STRANGER, 0o400)
    assert not refused(0, STRANGER, 0o440)
    assert not refused(0, STRANGER + 1, 0o640)
    assert refused(0, STRANGER + 2, 0o440)
    assert refused(STRANGER + 1, STRANGER, 0o440)
    os.chown(tmp_path, STRANGER + 1, STRANGER)
    assert refused(STRANGER, STRANGER, 0o400)  # the directory's owner could replace it
