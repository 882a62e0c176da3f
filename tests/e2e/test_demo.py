"""``broker-auth demo``, as a newcomer runs it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys

import pytest
from click.testing import CliRunner

from broker_auth.cli import main
from broker_auth.demo import run
from broker_auth.demo.outcome import Outcome

pytestmark = pytest.mark.e2e
DEMO = [sys.executable, "-m", "broker_auth", "demo"]


@pytest.mark.parametrize("topology", ["edge", "single"])
def test_every_row_is_as_expected(topology: str) -> None:
    done = subprocess.run(
        [*DEMO, "--topology", topology, "--json"], capture_output=True, text=True, timeout=100, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
    shown = json.loads(done.stdout)
    assert shown["ok"]
    assert len(shown["admission"]) >= 17
    assert len(shown["isolation"]) == 8
    assert all(row["ok"] and row["expected"] == row["happened"] for row in shown["admission"] + shown["isolation"])


def test_a_row_that_is_not_as_expected_fails_the_demo(monkeypatch: pytest.MonkeyPatch) -> None:
    async def surprise(*_: object) -> list[Outcome]:
        return [Outcome(what="a stranger", expected="denied: no_credential", happened="in choria")]

    monkeypatch.setattr(run, "try_all", surprise)
    done = CliRunner().invoke(main, ["demo"])
    assert done.exit_code == 1
    assert "NOT AS EXPECTED" in done.output
    assert "0 of 1 as expected" in done.output


def test_keep_says_how_to_look_around_and_ends_when_interrupted() -> None:
    with subprocess.Popen([*DEMO, "--keep"], stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True) as demo:
        assert demo.stderr is not None
        for line in demo.stderr:
            if line.startswith("Nodes connect to"):
                break
        else:
            pytest.fail("the demo never said how to look around")
        os.kill(demo.pid, signal.SIGINT)
        demo.stderr.read()
    assert demo.returncode == 0
