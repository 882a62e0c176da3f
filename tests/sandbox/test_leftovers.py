"""A directory that is removed, and a program that ends, whatever signals come."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Final

import pytest

from tests.deadlines import HANG_SECONDS

PROGRAM: Final = """
import asyncio, sys
from broker_auth.sandbox.leftovers import Ended, ended_by_signals, vanishing_directory

async def main():
    with ended_by_signals(), vanishing_directory("left-") as directory:
        (directory / "secret").write_text("a")
        try:
            print(directory, flush=True)
            await asyncio.Event().wait()
        finally:
            print("ending", flush=True)
            if "stuck" in sys.argv:
                await asyncio.Event().wait()

try:
    asyncio.run(main())
except Ended as ended:
    print(ended, flush=True)
"""


def started(tmp_path: Path, *arguments: str, ignored: bool = False) -> subprocess.Popen[str]:
    shell = ["/bin/sh", "-c", "trap '' HUP; exec \"$@\"", "sh"] if ignored else []
    return subprocess.Popen(
        [*shell, sys.executable, "-c", PROGRAM, *arguments],
        stdout=subprocess.PIPE,
        text=True,
        env=os.environ | {"TMPDIR": str(tmp_path)},
    )


def line(process: subprocess.Popen[str]) -> str:
    assert process.stdout
    return process.stdout.readline().rstrip()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP], ids=lambda number: number.name)
def test_signal_ends_the_program_after_its_cleanup(tmp_path: Path, number: signal.Signals) -> None:
    with started(tmp_path) as process:
        directory = Path(line(process))
        assert (directory / "secret").exists()
        assert directory.stat().st_mode & 0o077 == 0
        process.send_signal(number)
        assert (line(process), line(process)) == ("ending", f"ended by {number.name}")
    assert list(tmp_path.iterdir()) == []


def test_second_signal_ends_the_program_at_once(tmp_path: Path) -> None:
    with started(tmp_path, "stuck") as process:
        line(process)
        process.send_signal(signal.SIGTERM)
        assert line(process) == "ending"
        process.send_signal(signal.SIGTERM)
        assert process.wait(HANG_SECONDS) == 128 + signal.SIGTERM
    vanishes(tmp_path)


def test_killed_program_leaves_no_directory(tmp_path: Path) -> None:
    with started(tmp_path) as process:
        line(process)
        process.kill()
    vanishes(tmp_path)


def test_ignored_signal_stays_ignored(tmp_path: Path) -> None:
    """As with ``nohup``."""
    with started(tmp_path, ignored=True) as process:
        line(process)
        process.send_signal(signal.SIGHUP)
        process.send_signal(signal.SIGTERM)
        assert (line(process), line(process)) == ("ending", "ended by SIGTERM")


def vanishes(directory: Path) -> None:
    deadline = time.monotonic() + HANG_SECONDS
    while list(directory.iterdir()):
        assert time.monotonic() < deadline, "the directory is still there"
        time.sleep(0.02)
