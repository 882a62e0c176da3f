"""Keys in ``plugin.d``, which Choria reads and this service does not."""

from __future__ import annotations

import os

import pytest

from tests.settings.builder import CHORIA, PASSWORD, Directory


def put(directory: Directory, text: str, name: str = "choria.cfg") -> None:
    (directory.path / "plugin.d").mkdir(exist_ok=True)
    directory.write(f"plugin.d/{name}", text)


def warnings(directory: Directory) -> list[str]:
    report = directory.check()
    assert report.ok
    return [str(warning) for warning in report.warnings]


@pytest.mark.parametrize(
    ("name", "text", "line", "key"),
    [
        ("choria.cfg", "network.client_hosts = 192.0.2.0/24\n", 1, "plugin.choria.network.client_hosts"),
        (
            "choria.cfg",
            "# x\n\nnetwork.deny_server_connections=1\n",
            3,
            "plugin.choria.network.deny_server_connections",
        ),
        ("security.conf", "issuer.names = acme", 1, "plugin.security.issuer.names"),
        ("security.cfg", "issuer.acme.public = 00", 1, "plugin.security.issuer.acme.public"),
        ("broker_auth.cfg", "workers = 2", 1, "plugin.broker_auth.workers"),
    ],
)
def test_a_key_of_this_service_is_warned_of(directory: Directory, name: str, text: str, line: int, key: str) -> None:
    put(directory, text, name)
    (found,) = warnings(directory)
    assert found.startswith(f"{directory.path}/plugin.d/{name}:{line}: ")
    assert f"write it as {key} into {directory.config}" in found


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("choria.cfg", "middleware_hosts = a.example.net:4222\nuse_srv = false\n"),
        ("choria.cfg", "# network.client_hosts = 192.0.2.0/24\n"),
        ("choria.cfg", f"network.provisioning.client_password = {PASSWORD}\n"),  # the main file says the same
        ("package.cfg", "network.client_hosts = 192.0.2.0/24\n"),
        ("choria.cfg.bak", "network.client_hosts = 192.0.2.0/24\n"),
        ("choria.cfg", "\x00\xff no key\n= x\n"),
    ],
)
def test_other_keys_and_files_are_none_of_its_business(directory: Directory, name: str, text: str) -> None:
    put(directory, text, name)
    assert warnings(directory) == []


def test_a_secret_there_is_not_shown(directory: Directory) -> None:
    put(directory, "network.provisioning.client_password = hunter3\n")
    (found,) = warnings(directory)
    assert "hunter3" not in found


def test_a_file_that_cannot_be_read_is_named(directory: Directory) -> None:
    put(directory, "")
    os.mkfifo(directory.path / "plugin.d" / "pipe.cfg")
    (directory.path / "plugin.d" / "link.cfg").symlink_to("nowhere")
    found = warnings(directory)
    assert ["link.cfg" in found[0], "pipe.cfg" in found[1]] == [True, True]


def test_only_so_many_files_are_looked_at(directory: Directory) -> None:
    put(directory, "")
    for number in range(150):
        put(directory, "x = y", f"choria{number}.cfg")
    put(directory, f"{CHORIA}x = y", "zzz.cfg")
    assert warnings(directory) == []
