"""``config check``: every problem with file, line, key and remedy, as text and as JSON."""

from __future__ import annotations

from pathlib import Path

import pytest

from broker_auth.natsio.nkey import NkeyKind, generate_seed, public_nkey
from tests.cli.running import PASSWORD_SECRET, run
from tests.settings.builder import CHORIA, Directory, P
from tests.settings.conftest import directory

__all__ = ["directory"]  # the fixture


def test_valid_configuration_is_accepted(directory: Directory) -> None:
    file = directory.save()
    checked = run("config", "check", file)
    assert (checked.code, checked.out, checked.err) == (0, f"{file}: valid\n", "")
    assert run("config", "check", file, "--json").json == {
        "valid": True,
        "problems": [],
        "warnings": [],
        "listeners": [],
        "replay": None,
    }


def test_configuration_is_named_once_as_argument_option_or_by_the_environment(directory: Directory) -> None:
    file = directory.save()
    valid = run("config", "check", file)
    assert run("config", "check", "--config", file) == valid
    assert run("config", "check", env={"BROKER_AUTH_CONFIG": str(file)}) == valid
    assert run("config", "check", file, env={"BROKER_AUTH_CONFIG": "elsewhere.conf"}) == valid
    for words in ((), (file, "-c", file)):
        wrong = run("config", "check", *words)
        assert (wrong.code, wrong.error.startswith("name the configuration")) == (2, True)


def test_all_problems_are_reported_at_once(directory: Directory) -> None:
    directory.set(
        {
            f"{P}wrokers": "2",
            f"{P}token_leeway": "61s",
            f"{CHORIA}provisioning.client_password": PASSWORD_SECRET,
            f"{CHORIA}system.password": None,
        }
    )
    file = directory.save()
    checked = run("config", "check", file, "--json")
    assert (checked.code, checked.err, checked.json["valid"]) == (1, "", False)
    by_key = {problem["key"]: problem for problem in checked.json["problems"]}
    assert set(by_key) == {f"{P}wrokers", f"{P}token_leeway", f"{CHORIA}system.user"}
    for key, problem in by_key.items():
        assert set(problem) == {"file", "line", "key", "problem", "remedy"}
        assert (problem["file"], problem["line"]) == (str(file), directory.line(key))
    assert f"{P}workers" in by_key[f"{P}wrokers"]["remedy"]
    for_people = run("config", "check", file)
    assert (for_people.code, for_people.out) == (1, "")
    lines = for_people.err.splitlines()
    assert len(lines) == 3
    for problem in by_key.values():
        place = f"{file}:{problem['line']}: {problem['key']}: "
        assert f"Error: {place}{problem['problem']}; {problem['remedy']}" in lines


def test_warnings_do_not_fail(directory: Directory) -> None:
    directory.set({f"{P}xkey_seed_file": None})
    file = directory.save()
    checked = run("config", "check", file)
    assert (checked.code, checked.out) == (0, f"{file}: valid, with 1 warning\n")
    assert checked.err.startswith(f"Warning: {file}: {P}xkey_seed_file: ")
    document = run("config", "check", file, "--json").json
    assert (document["valid"], len(document["warnings"])) == (True, 1)
    assert (document["warnings"][0]["key"], document["warnings"][0]["line"]) == (f"{P}xkey_seed_file", None)


def test_kick_seed_of_another_user_is_warned_of(directory: Directory) -> None:
    directory.set(
        {
            f"{P}kick_nkey": public_nkey(generate_seed(NkeyKind.USER)),
            f"{P}kick_seed_file": "kick.seed",
        }
    )
    file = directory.save()
    assert run("config", "check", file).err == ""  # commands may run on another host
    directory.write("kick.seed", generate_seed(NkeyKind.USER))
    checked = run("config", "check", file)
    assert checked.code == 0
    assert "kick.seed is not the seed of kick_nkey" in checked.err


def test_reader_seed_of_another_user_is_warned_of(directory: Directory) -> None:
    zone = f"{P}zone.edge."
    for name, kind in (("nkey", NkeyKind.USER), ("issuer", NkeyKind.ACCOUNT), ("xkey", NkeyKind.CURVE)):
        directory.write(f"{name}.edge", generate_seed(kind))
        directory.set({f"{zone}{name}_seed_file": f"{name}.edge"})
    directory.set(
        {
            f"{P}brokers": "default, edge",
            f"{P}broker.edge.urls": "tls://edge.example.net:4223",
            f"{P}broker.edge.role": "edge",
            f"{zone}reader_nkey": public_nkey(generate_seed(NkeyKind.USER)),
            f"{zone}reader_seed_file": "reader.seed",
        }
    )
    file = directory.save()
    assert run("config", "check", file).err == ""  # the host that reads it may be another one
    directory.write("reader.seed", generate_seed(NkeyKind.USER))
    checked = run("config", "check", file)
    assert checked.code == 0
    assert "reader.seed is not the seed of reader_nkey" in checked.err


def test_environment_overrides_the_file(directory: Directory) -> None:
    file = directory.save()
    checked = run("config", "check", file, "--json", env={"BROKER_AUTH_WORKERS": "none"})
    assert checked.code == 1
    assert [(problem["file"], problem["line"]) for problem in checked.json["problems"]] == [("environment", None)]


@pytest.mark.parametrize("content", [b"\xff\xfe", b"\x00" * 100, b"= =\n", b"x" * 3_000_000])
def test_unreadable_file_is_an_error(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "broker.conf"
    file.write_bytes(content)
    checked = run("config", "check", file, "--json")
    assert checked.code == 1
    assert checked.json["problems"]
