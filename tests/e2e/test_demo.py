"""``broker-auth demo``, as a new user runs it."""

from __future__ import annotations

import contextlib
import json
import os
import re
import select
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest

from broker_auth.demo.last_mile import WAITING
from broker_auth.sandbox.lifetime import dies_with_parent
from tests.deadlines import HANG_SECONDS, LONG_SECONDS

pytestmark = pytest.mark.e2e
DEMO: Final = [sys.executable, "-m", "broker_auth", "demo"]
FIRST: Final = "Starting nats-servers"
RUNNING: Final = "Running after"
KEPT: Final = "Nodes connect to"


@pytest.mark.parametrize(
    ("topology", "auth"),
    [
        ("edge", "static"),
        ("single", "callout"),
        pytest.param("mixed", "callout", marks=pytest.mark.mixed_server),
    ],
)
def test_every_row_is_as_expected(topology: str, auth: str) -> None:
    command = [*DEMO, "--topology", topology, "--fleet-auth", auth, "--json"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=LONG_SECONDS, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    shown = json.loads(done.stdout)
    assert shown["ok"]
    assert len(shown["admission"]) >= 17
    assert len(shown["isolation"]) == 8 + (topology == "edge")
    assert len(shown["onboarding"]) == 5
    assert len(shown["revocation"]) == 3
    rows = shown["admission"] + shown["isolation"] + shown["onboarding"] + shown["revocation"]
    assert all(row["ok"] and row["expected"] == row["happened"] for row in rows)


def test_output_fits_a_terminal() -> None:
    done = subprocess.run(DEMO, capture_output=True, text=True, timeout=LONG_SECONDS, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    lines = done.stdout.splitlines()
    assert lines[0].startswith(FIRST)
    assert lines[1].startswith(RUNNING)
    counted = re.findall(r"^(\w+): (\d+) of (\d+) as expected", done.stdout, re.MULTILINE)
    assert {"Admission", "Isolation", "Onboarding", "Revocation"} <= {part for part, _, _ in counted}
    assert all(good == total for _, good, total in counted)
    assert len(lines) < 40  # and the prompt
    assert max(map(len, lines)) <= 80


def test_kept_demo_shows_a_waiting_node_until_it_is_interrupted(tmp_path: Path) -> None:
    with started(tmp_path, "--keep") as demo:
        suggested = [line.split() for line in demo.until(KEPT) if line.startswith("  broker-auth ")]
        assert [words[1] for words in suggested] == ["report", "why", "report", "why", "doctor"]
        for words in suggested[:2]:
            command = [sys.executable, "-m", "broker_auth", *words[1:]]
            done = subprocess.run(command, capture_output=True, text=True, timeout=HANG_SECONDS, check=False)
            assert done.returncode == 0, done.stderr
            assert WAITING in done.stdout
        demo.process.send_signal(signal.SIGINT)
        assert demo.process.wait(HANG_SECONDS) == 0
        demo.leaves_nothing()


@pytest.mark.parametrize(
    ("number", "moment", "code"),
    [
        (signal.SIGINT, FIRST, 128 + signal.SIGINT),
        (signal.SIGTERM, RUNNING, 128 + signal.SIGTERM),
        (signal.SIGKILL, RUNNING, -signal.SIGKILL),
    ],
    ids=lambda value: value.name if isinstance(value, signal.Signals) else str(value),
)
def test_ended_demo_leaves_nothing(tmp_path: Path, number: signal.Signals, moment: str, code: int) -> None:
    with started(tmp_path, "--keep") as demo:
        demo.until(moment)
        demo.process.send_signal(number)
        assert demo.process.wait(HANG_SECONDS) == code
        demo.leaves_nothing()


def test_closed_terminal_leaves_nothing(tmp_path: Path) -> None:
    with on_a_terminal(tmp_path) as demo:
        demo.until(RUNNING)
        demo.output.close()
        assert demo.process.wait(HANG_SECONDS) == 128 + signal.SIGHUP
        demo.leaves_nothing()


def test_reader_that_ends_early_leaves_nothing(tmp_path: Path) -> None:
    """As in ``broker-auth demo | head -1``."""
    with started(tmp_path) as demo:
        demo.until(FIRST)
        demo.output.close()
        assert demo.process.wait(HANG_SECONDS) != 0
        demo.leaves_nothing()


class Started:
    """A running demo, what it prints, and the processes below it."""

    def __init__(self, process: subprocess.Popen[bytes], output: int, temporary: Path) -> None:
        self.process = process
        self.output = os.fdopen(output, encoding="utf-8")
        self._temporary = temporary
        self._watched: list[int] = []

    def until(self, start: str) -> list[str]:
        """Return the lines up to the first that begins with ``start``, and watch the processes that run then."""
        lines: list[str] = []
        for line in self.output:
            lines.append(line.rstrip("\r\n"))
            if line.startswith(start):
                self._watched += [pidfd for pid in descendants(self.process.pid) for pidfd in opened(pid)]
                return lines
        pytest.fail(f"the demo did not print {start!r}: {lines}")

    def leaves_nothing(self) -> None:
        """Check that each process ends, and that the directory of temporary files is emptied."""
        for pidfd in self._watched:
            assert select.select([pidfd], [], [], HANG_SECONDS)[0], "a process outlived the demo"
        assert list(self._temporary.iterdir()) == []

    def close(self) -> None:
        self.process.kill()
        with contextlib.suppress(OSError):
            self.output.close()
        for pidfd in self._watched:
            os.close(pidfd)


@contextlib.contextmanager
def started(tmp_path: Path, *options: str) -> Iterator[Started]:
    """Run a demo whose output is read; kill it at the end of the block."""
    reader, writer = os.pipe()
    with run_demo(tmp_path, dies_with_parent([*DEMO, *options]), reader, writer) as demo:
        yield demo


@contextlib.contextmanager
def on_a_terminal(tmp_path: Path) -> Iterator[Started]:
    """Run a demo that controls a terminal, as its session's leader: the first terminal that it opens."""
    master, slave = os.openpty()
    shell = f'exec "$@" <{os.ttyname(slave)} >{os.ttyname(slave)} 2>&1'
    with run_demo(tmp_path, ["/bin/sh", "-c", shell, "sh", *DEMO], master, slave) as demo:
        yield demo


@contextlib.contextmanager
def run_demo(tmp_path: Path, command: list[str], reader: int, writer: int) -> Iterator[Started]:
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    environ = os.environ | {"TMPDIR": str(temporary)}
    with subprocess.Popen(command, stdout=writer, stderr=writer, env=environ, start_new_session=True) as process:
        os.close(writer)
        demo = Started(process, reader, temporary)
        try:
            yield demo
        finally:
            demo.close()


def opened(pid: int) -> list[int]:
    """Return a descriptor of a process, unless it has ended."""
    try:
        return [os.pidfd_open(pid)]
    except ProcessLookupError:
        return []


def descendants(pid: int) -> list[int]:
    """Return the descendants of a process, started by any of its threads."""
    children: list[int] = []
    for path in Path(f"/proc/{pid}/task").glob("*/children"):
        with contextlib.suppress(OSError):  # the thread has ended
            children += [int(child) for child in path.read_text().split()]
    return children + [below for child in children for below in descendants(child)]
