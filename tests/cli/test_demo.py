"""``broker-auth demo`` before it starts anything: its first words, and what is missing."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from typing import Any

import pytest

from broker_auth.cli import demo, demo_run
from broker_auth.demo.observation import Observation
from broker_auth.demo.run import Result, Screen, Shape
from broker_auth.deploy.natsbinary import BINARY_VARIABLE
from broker_auth.deploy.plan import Topology
from broker_auth.settings.model import FleetAuth
from tests.cli.running import run


def test_first_words_need_few_imports() -> None:
    """All modules that the demo needs take seconds to import on a busy machine."""
    listed = subprocess.run(
        [sys.executable, "-c", "import broker_auth.cli.demo, sys; print(*sys.modules)"],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    unwanted = {"nats", "cryptography", "jinja2", "msgspec", "rich", "broker_auth.demo.run", "broker_auth.deploy.plan"}
    assert set(listed.stdout.split()) & unwanted == set()


def test_choices_are_those_of_a_deployment() -> None:
    assert set(demo.TOPOLOGIES) == {shape.value for shape in Topology}
    assert set(demo.FLEET_AUTH) == {item.value for item in FleetAuth}


def test_missing_nats_server_is_named_before_anything_starts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(BINARY_VARIABLE, "/nonexistent/nats-server")
    done = run("demo")
    assert done.code == 1
    assert done.out.count("\n") == 1  # the first words
    assert BINARY_VARIABLE in done.error


@pytest.mark.parametrize(
    ("option", "value", "module", "extra"),
    [("--topology", "websocket", "aiohttp", "websocket"), ("--fleet-auth", "static", "bcrypt", "static")],
)
def test_missing_package_is_named_before_anything_starts(
    monkeypatch: pytest.MonkeyPatch, option: str, value: str, module: str, extra: str
) -> None:
    find = importlib.util.find_spec

    def without(name: str, *arguments: Any) -> Any:
        return None if name == module else find(name, *arguments)

    monkeypatch.setenv(BINARY_VARIABLE, sys.executable)
    monkeypatch.setattr(importlib.util, "find_spec", without)
    done = run("demo", option, value)
    assert (done.code, done.out) == (1, "")
    assert done.error == f"{value} needs the package {module}: pip install 'broker-auth[{extra}]'"


def test_static_fleet_needs_the_edge_topology() -> None:
    done = run("demo", "--topology", "single", "--fleet-auth", "static")
    assert done.code == 2
    assert "--topology edge" in done.error


def test_unexpected_observation_is_shown_and_fails_the_demo(monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows that resemble others are not shown otherwise."""
    good = Observation(what="a member", expected="in choria", happened="in choria")
    similar = Observation(what="another member", expected="in choria", happened="in choria", example=False)
    bad = Observation(what="a client", expected="denied: no_credential", happened="in choria", example=False)

    async def surprise(_: Shape, screen: Screen, *, wait: bool) -> Result:
        assert not wait
        screen.part("admission", [good, similar, bad])
        return Result(admission=[good, similar, bad])

    monkeypatch.setenv(BINARY_VARIABLE, sys.executable)
    monkeypatch.setattr(demo_run, "run_demo", surprise)
    done = run("demo")
    assert done.code == 1
    assert done.out.splitlines()[1:] == [
        "Admission: 2 of 3 as expected, for example",
        f"  ok  a member {'in choria':>65}",
        "  NOT AS EXPECTED  a client: expected denied: no_credential, happened in choria",
    ]
