"""``broker-auth demo``, as a new user runs it."""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner

from broker_auth.cli import demo, main
from broker_auth.demo import run
from broker_auth.demo.observation import Observation
from broker_auth.sandbox.lifetime import dies_with_parent
from tests.deadlines import LONG_SECONDS

pytestmark = pytest.mark.e2e
DEMO = [sys.executable, "-m", "broker_auth", "demo"]


@pytest.mark.parametrize(
    ("topology", "auth"),
    [
        ("edge", "callout"),
        ("edge", "static"),
        ("single", "callout"),
        pytest.param("mixed", "callout", marks=pytest.mark.mixed_server),
    ],
)
def test_every_row_is_as_expected(topology: str, auth: str, capsys: pytest.CaptureFixture[str]) -> None:
    command = [*DEMO, "--topology", topology, "--fleet-auth", auth, "--json"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=LONG_SECONDS, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    shown = json.loads(done.stdout)
    assert shown["ok"]
    assert len(shown["admission"]) >= 17
    assert len(shown["isolation"]) == 8 + (topology == "edge")
    assert len(shown["onboarding"]) == 5
    rows = shown["admission"] + shown["isolation"] + shown["onboarding"]
    assert all(row["ok"] and row["expected"] == row["happened"] for row in rows)
    parts = {
        part: [Observation(what=row["what"], expected=row["expected"], happened=row["happened"]) for row in shown[part]]
        for part in ("admission", "isolation", "onboarding")
    }
    demo._print(run.Result(**parts))
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) <= 40
    assert max(map(len, lines)) <= 80


def test_static_fleet_needs_the_edge_topology() -> None:
    done = CliRunner().invoke(main, ["demo", "--topology", "single", "--fleet-auth", "static"])
    assert done.exit_code == 2
    assert "--topology edge" in done.output


def test_unexpected_observation_fails_the_demo(monkeypatch: pytest.MonkeyPatch) -> None:
    async def surprise(*_: object) -> list[Observation]:
        return [Observation(what="a client", expected="denied: no_credential", happened="in choria")]

    monkeypatch.setattr(run, "try_all", surprise)
    done = CliRunner().invoke(main, ["demo"])
    assert done.exit_code == 1
    assert "NOT AS EXPECTED" in done.output
    assert "0 of 1 as expected" in done.output


def test_keep_prints_instructions_and_ends_when_interrupted() -> None:
    with kept() as demo:
        os.kill(demo.pid, signal.SIGINT)
        assert demo.stderr is not None
        demo.stderr.read()
        assert demo.wait(30) == 0


def test_killed_demo_leaves_no_process() -> None:
    with kept() as demo:
        started = [os.pidfd_open(pid) for pid in descendants(demo.pid)]
        try:
            assert len(started) >= 4  # two servers, the service, its worker
            demo.kill()
            for watched in started:
                assert select.select([watched], [], [], 30)[0], "a process outlived the demo"
        finally:
            for watched in started:
                os.close(watched)


@contextlib.contextmanager
def kept() -> Iterator[subprocess.Popen[str]]:
    """Run a demo with ``--keep``; kill it at the end of the block."""
    command = dies_with_parent([*DEMO, "--keep"])
    with subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True) as demo:
        try:
            assert demo.stderr is not None
            if not any(line.startswith("Nodes connect to") for line in demo.stderr):
                pytest.fail("the demo did not print instructions")
            yield demo
        finally:
            demo.kill()


def descendants(pid: int) -> list[int]:
    """Return the descendants of a process, started by any of its threads."""
    lists = [path.read_text() for path in Path(f"/proc/{pid}/task").glob("*/children")]
    children = [int(child) for child in " ".join(lists).split()]
    return children + [below for child in children for below in descendants(child)]
