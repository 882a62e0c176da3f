"""Tokens for certain nodes: issued, shown and checked; and the tokens of a whole factory in one call."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from tests.cli.conftest import PROVISIONING, KeyDirectory
from tests.cli.running import Run, run
from tests.cli.test_token_commands import claims_of, raw_claims

BOUNDS = ("--for-name", "node1.example.net", "--for-name", r"/spare\d+/", "--for-network", "192.0.2.0/24")


def check(key_directory: KeyDirectory, token: Path, *args: str) -> Any:
    return run("token", "check", token, *key_directory.trust, "--json", *args).json


def files_in(directory: Path) -> list[str]:
    return sorted(path.name for path in directory.iterdir())


def refused(key_directory: KeyDirectory, *args: object) -> str:
    """Return the error of a call that writes nothing."""
    before = files_in(key_directory.path)
    done = run("token", "provisioning", key_directory.path / "new.jwt", key_directory.path / "org.seed", *args)
    assert done.code in (1, 2)
    assert files_in(key_directory.path) == before
    return done.err


def test_token_holds_its_bounds_beside_other_extensions(key_directory: KeyDirectory) -> None:
    token = key_directory.provisioning(*BOUNDS, "--extensions", '{"location": "lab"}')
    bounds = {"names": ["node1.example.net", r"/spare\d+/"], "networks": ["192.0.2.0/24"]}
    assert raw_claims(token)["extensions"] == {"location": "lab", "broker-auth": bounds}
    assert run("token", "inspect", token, "--json").json["bounds"] == bounds
    assert check(key_directory, token)["bounds"] == bounds
    for shown in (run("token", "inspect", token), run("token", "check", token, *key_directory.trust)):
        assert r"Only for names: node1.example.net, /spare\d+/" in shown.out
        assert "Only from networks: 192.0.2.0/24" in shown.out


def test_token_for_a_number_of_nodes(key_directory: KeyDirectory) -> None:
    token = key_directory.provisioning("--max-nodes", "3")
    assert raw_claims(token)["extensions"] == {"broker-auth": {"max_nodes": 3}}
    assert check(key_directory, token)["bounds"] == {"max_nodes": 3}
    assert run("token", "inspect", token, "--json").json["bounds"] == {"max_nodes": 3}
    for shown in (run("token", "inspect", token), run("token", "check", token, *key_directory.trust)):
        assert " At most: 3 nodes\n" in shown.out
    assert check(key_directory, token, "--name", "node1")["code"] == "accepted"  # a check counts nobody
    both = key_directory.provisioning("--max-nodes", "1", *BOUNDS, "--force")
    assert set(check(key_directory, both)["bounds"]) == {"names", "networks", "max_nodes"}
    assert " At most: 1 node\n" in run("token", "inspect", both).out


@pytest.mark.parametrize("value", ["0", "-1", "1001", "1.5", "x", ""])
def test_number_of_nodes_is_limited(key_directory: KeyDirectory, value: str) -> None:
    assert "Invalid value for '--max-nodes'" in refused(key_directory, *PROVISIONING, "--max-nodes", value)


def test_token_without_bounds(key_directory: KeyDirectory) -> None:
    token = key_directory.provisioning()
    assert claims_of(token)["extensions"] is None
    assert check(key_directory, token, "--name", "node1", "--address", "192.0.2.7")["valid"] is True
    assert run("token", "inspect", token, "--json").json["bounds"] is None
    assert check(key_directory, key_directory.client())["bounds"] is None


@pytest.mark.parametrize(
    ("args", "code"),
    [
        (("--name", "node1.example.net"), "accepted"),
        (("--name", "spare7"), "accepted"),
        (("--name", "spare"), "node_name_not_allowed"),
        (("--address", "192.0.2.99"), "accepted"),
        (("--address", "::ffff:192.0.2.99"), "accepted"),
        (("--address", "192.0.3.1"), "address_not_allowed"),
        (("--name", "spare7", "--address", "192.0.2.7"), "accepted"),
        (("--name", "x", "--address", "192.0.3.1"), "node_name_not_allowed"),
        (("--name", "spare7", "--purpose", "provisioning"), "accepted"),
        (("--name", "spare7", "--purpose", "server"), "purpose"),
    ],
)
def test_check_against_a_node(key_directory: KeyDirectory, args: tuple[str, ...], code: str) -> None:
    assert check(key_directory, key_directory.provisioning(*BOUNDS), *args)["code"] == code


def test_check_against_a_node_needs_a_provisioning_token(key_directory: KeyDirectory) -> None:
    assert check(key_directory, key_directory.server(), "--name", "node1.example.net")["code"] == "purpose"


@pytest.mark.parametrize("args", [("--name", "a b"), ("--name", ""), ("--address", "example.net")])
def test_check_against_an_impossible_node_is_wrong_usage(key_directory: KeyDirectory, args: tuple[str, ...]) -> None:
    done = run("token", "check", key_directory.provisioning(), *key_directory.trust, *args)
    assert done.code == 2
    assert repr(args[1]) in done.err


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (("--for-name", "a b"), "'a b' cannot be a node's name"),
        (("--for-name", "/(/"), "the pattern '/(/'"),
        (("--for-name", "/a"), "a pattern ends with a slash too"),
        (("--for-network", "example.net"), "neither an address nor a network"),
        (("--extensions", '{"broker-auth": {"names": ["a"]}}', "--for-name", "b"), "hold 'broker-auth' already"),
        (("--extensions", '{"broker-auth": {"serials": ["1"]}}'), "which this version does not know"),
        (("--names-file", "names"), "go together"),
        (("--out-dir", "tokens"), "go together"),
        (("--names-file", "names", "--out-dir", "tokens"), "give only SIGNING-KEY"),
    ],
)
def test_unusable_bounds_are_refused(key_directory: KeyDirectory, args: tuple[str, ...], message: str) -> None:
    assert message in refused(key_directory, *PROVISIONING, *args)


def test_signing_key_is_required(key_directory: KeyDirectory) -> None:
    done = run("token", "provisioning", key_directory.path / "org.seed", *PROVISIONING)
    assert (done.code, "give OUT" in done.err) == (2, True)


# --- A token for each device


def batch(key_directory: KeyDirectory, names: str, *args: object) -> Run:
    (key_directory.path / "names").write_text(names)
    options = ("--names-file", key_directory.path / "names", "--out-dir", key_directory.path / "tokens")
    return run("token", "provisioning", key_directory.path / "org.seed", *PROVISIONING, *options, *args)


def left(key_directory: KeyDirectory) -> list[str]:
    """Return the names of the files with tokens, finished or not."""
    assert not [name for name in files_in(key_directory.path) if name.startswith(".")]
    directory = key_directory.path / "tokens"
    return files_in(directory) if directory.exists() else []


def test_each_device_has_its_token(key_directory: KeyDirectory) -> None:
    made = batch(
        key_directory, "# first floor\nnode1\n\n  node2.example.net \n", "--for-network", "10.0.0.0/8", "--json"
    )
    assert made.code == 0, made.err
    assert left(key_directory) == ["node1.jwt", "node2.example.net.jwt"]
    assert [token["name"] for token in made.json["tokens"]] == ["node1", "node2.example.net"]
    for token in made.json["tokens"]:
        checked = check(key_directory, Path(token["file"]), "--name", token["name"], "--address", "10.1.2.3")
        assert (checked["code"], checked["claims"]["jti"]) == ("accepted", token["token_id"])
        assert claims_of(Path(token["file"]))["exp"]
        assert check(key_directory, Path(token["file"]), "--name", "node3")["code"] == "node_name_not_allowed"
    assert len({token["token_id"] for token in made.json["tokens"]}) == 2
    more = batch(key_directory, "node3\n")
    assert "Saved 1 token to" in more.out
    assert len(left(key_directory)) == 3


def test_every_unusable_name_is_listed_and_nothing_written(key_directory: KeyDirectory) -> None:
    done = batch(key_directory, "node1\n../x\nnode1\nNODE1\na b\n.hidden\n-x\n*\na/b\n" + "a" * 201)
    assert done.code == 1
    for line in (2, 3, 4, 5, 6, 7, 8, 9, 10):
        assert f"line {line}: " in done.error
    assert "line 4: 'NODE1' is on line 1 too" in done.error
    assert left(key_directory) == []


def test_list_of_problems_is_bounded(key_directory: KeyDirectory) -> None:
    assert batch(key_directory, "a b\n" * 1000).error.endswith("; and 980 more")


@pytest.mark.parametrize("names", ["", "\n# none\n"])
def test_file_without_a_name_is_refused(key_directory: KeyDirectory, names: str) -> None:
    assert "holds no name" in batch(key_directory, names).error


@pytest.mark.parametrize("args", [("--force",), ("--for-name", "x"), ("--max-nodes", "2")])
def test_options_that_contradict_a_names_file(key_directory: KeyDirectory, args: tuple[str, ...]) -> None:
    assert batch(key_directory, "node1\n", *args).code == 2
    assert left(key_directory) == []


def test_existing_files_are_not_overwritten(key_directory: KeyDirectory) -> None:
    batch(key_directory, "node2\nnode3\n")
    before = {name: (key_directory.path / "tokens" / name).read_text() for name in left(key_directory)}
    again = batch(key_directory, "node1\nnode2\nnode3\n")
    assert "node2.jwt exists; " in again.error
    assert again.error.endswith("node3.jwt exists")
    assert {name: (key_directory.path / "tokens" / name).read_text() for name in left(key_directory)} == before


def test_file_that_appears_meanwhile_takes_everything_back(
    key_directory: KeyDirectory, monkeypatch: pytest.MonkeyPatch
) -> None:
    (key_directory.path / "tokens").mkdir()
    taken = key_directory.path / "tokens" / "node2.jwt"
    monkeypatch.setattr(os, "sync", lambda: taken.write_text("another's"))
    assert "tokens cannot be written (File exists)" in batch(key_directory, "node1\nnode2\n").error
    assert left(key_directory) == ["node2.jwt"]
    assert taken.read_text() == "another's"


def test_directory_that_cannot_be_made(key_directory: KeyDirectory) -> None:
    (key_directory.path / "names").write_text("node1\n")
    options = ("--names-file", key_directory.path / "names", "--out-dir", key_directory.path / "no" / "tokens")
    done = run("token", "provisioning", key_directory.path / "org.seed", *PROVISIONING, *options)
    assert "tokens cannot be written" in done.error


def test_tokens_of_a_factory_are_private(key_directory: KeyDirectory) -> None:
    batch(key_directory, "node1\n")
    assert (key_directory.path / "tokens").stat().st_mode & 0o777 == 0o700
    assert json.dumps(left(key_directory)) == '["node1.jwt"]'
