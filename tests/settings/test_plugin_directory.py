"""``plugin.d`` next to the configuration file, read as Choria reads it."""

from __future__ import annotations

import os

import pytest

from broker_auth.settings.load import check
from broker_auth.settings.model import Settings
from tests.settings.builder import CHORIA, HEX_KEY, ISSUER_MODE, PASSWORD, Directory, P


def put(directory: Directory, text: str, name: str = "choria.cfg", mode: int = 0o600) -> None:
    (directory.path / "plugin.d").mkdir(exist_ok=True)
    directory.write(f"plugin.d/{name}", text, mode)


def settings(directory: Directory) -> Settings:
    report = directory.check()
    assert report.settings is not None, report.problems
    return report.settings


def warnings(directory: Directory) -> list[str]:
    report = directory.check()
    assert report.ok, report.problems
    return [str(warning) for warning in report.warnings]


def problems(directory: Directory) -> list[str]:
    return [str(problem) for problem in directory.check().problems]


def test_keys_of_choria_cfg_override_the_main_file(directory: Directory) -> None:
    directory.set({f"{CHORIA}client_hosts": "192.0.2.1"})
    put(directory, "# x\n\nnetwork.client_hosts = 198.51.100.0/24\nnetwork.deny_server_connections=1\n")
    loaded = settings(directory)
    assert [str(network) for network in loaded.client_hosts] == ["198.51.100.0/24"]
    assert loaded.deny_server_connections
    (reported,) = warnings(directory)
    assert reported.startswith(
        f"{directory.path}/plugin.d/choria.cfg:3: {CHORIA}client_hosts: is set twice, here and in "
    )
    assert str(directory.config) in reported


def test_environment_overrides_plugin_d(directory: Directory) -> None:
    put(directory, "network.client_hosts = 198.51.100.0/24\n")
    report = directory.check({"BROKER_AUTH_PLUGIN_CHORIA_NETWORK_CLIENT_HOSTS": "192.0.2.9"})
    assert report.settings is not None
    assert [str(network) for network in report.settings.client_hosts] == ["192.0.2.9/32"]


def test_same_value_in_both_files_causes_no_warning(directory: Directory) -> None:
    put(directory, f"network.provisioning.client_password = {PASSWORD}\n")
    assert warnings(directory) == []


def test_keys_of_this_service_are_read_in_broker_auth_cfg(directory: Directory) -> None:
    put(directory, "workers = 2\n", "broker_auth.cfg")
    assert settings(directory).zone("fleet").workers == 2
    put(directory, "token_leeways = 2s\n", "broker_auth.cfg")
    (reported,) = problems(directory)
    assert f"plugin.d/broker_auth.cfg:1: {P}token_leeways: is not a known key" in reported


def test_key_of_this_service_in_both_files_is_a_problem(directory: Directory) -> None:
    directory.set({f"{P}workers": "3"})
    put(directory, "workers = 2\n", "broker_auth.cfg")
    (reported,) = problems(directory)
    assert "is set twice, here and in" in reported


def test_public_keys_of_issuers_are_read_in_security_cfg(directory: Directory) -> None:
    directory.set(ISSUER_MODE | {"plugin.security.issuer.choria.public": None})
    put(directory, f"issuer.choria.public = {HEX_KEY}\n", "security.cfg")
    assert [issuer.hex for issuer in settings(directory).issuers] == [HEX_KEY]


@pytest.mark.parametrize(
    ("name", "text", "key", "why"),
    [
        (
            "security.cfg",
            "choria.ca = ca.pem",
            "plugin.security.choria.ca",
            "only from the main file or plugin.d/choria.cfg",
        ),
        ("security.conf", "issuer.acme.public = 00", "plugin.security.issuer.acme.public", "only files named .cfg"),
        ("choria.conf", "network.client_hosts = 192.0.2.0/24", f"{CHORIA}client_hosts", "only files named .cfg"),
        (
            "choria.network.cfg",
            "client_hosts = 192.0.2.0/24",
            f"{CHORIA}client_hosts",
            "main file or plugin.d/choria.cfg",
        ),
    ],
)
def test_known_key_in_a_file_that_choria_does_not_read_causes_a_warning(
    directory: Directory, name: str, text: str, key: str, why: str
) -> None:
    put(directory, text, name)
    (reported,) = warnings(directory)
    assert reported.startswith(f"{directory.path}/plugin.d/{name}:1: {key}: has no effect here: ")
    assert why in reported
    assert f"write it as {key} into {directory.config}" in reported


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("choria.cfg", "middleware_hosts = a.example.net:4222\nuse_srv = false\n"),
        ("choria.cfg", "# network.client_hosts = 192.0.2.0/24\n"),
        ("package.cfg", "network.client_hosts = 192.0.2.0/24\n"),
        ("choria.cfg.bak", "network.client_hosts = 192.0.2.0/24\n"),
        ("package.cfg", "\x00\xff no key\n= x\n"),
    ],
)
def test_other_keys_and_files_are_ignored(directory: Directory, name: str, text: str) -> None:
    put(directory, text, name)
    assert warnings(directory) == []


def test_secret_in_an_open_file_is_a_problem_and_not_shown(directory: Directory) -> None:
    put(directory, "network.provisioning.client_password = hunter3\n", mode=0o644)
    (reported,) = problems(directory)
    assert "is written in a file that every user can access; run: chmod 600" in reported
    assert "plugin.d/choria.cfg" in reported
    assert "hunter3" not in reported


def test_unreadable_file_is_a_problem(directory: Directory) -> None:
    put(directory, "")
    (directory.path / "plugin.d" / "choria.cfg").unlink()
    os.mkfifo(directory.path / "plugin.d" / "choria.cfg")
    (directory.path / "plugin.d" / "link.cfg").symlink_to("nowhere")
    (reported,) = problems(directory)
    assert "plugin.d/choria.cfg: is not a regular file" in reported


@pytest.mark.parametrize("name", ["plugin.d", "plugin.d/choria.cfg", "broker.conf"])
def test_warning_names_what_every_user_can_write(directory: Directory, name: str) -> None:
    put(directory, "network.deny_server_connections = false\n")
    path = directory.save().parent / name
    path.chmod(path.stat().st_mode | 0o002)
    (reported,) = check(directory.config, {}).warnings
    assert str(reported) == f"{path}: every user can write to it, and so decide who is admitted; run: chmod o-w {path}"


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")
@pytest.mark.parametrize("name", ["plugin.d", "plugin.d/choria.cfg"])
def test_warning_names_what_belongs_to_a_stranger(directory: Directory, name: str) -> None:
    put(directory, "network.deny_server_connections = false\n")
    os.chown(directory.path / name, 4321, -1)
    (reported,) = warnings(directory)
    assert reported.startswith(f"{directory.path / name}: belongs to user 4321, who can so decide who is admitted; ")
