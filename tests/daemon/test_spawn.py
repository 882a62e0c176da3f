"""Child processes end with their parent, even if they are blocked."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.deadlines import HANG_SECONDS

PARENT = """
import os, time
from broker_auth.daemon.spawn import die_with_parent, end_with_parent, spawn

def body(channel):
    {tie}
    print(os.getpid(), flush=True)
    {deed}

spawn(body)
time.sleep(60)
"""


@pytest.mark.parametrize("tie", ["end_with_parent(channel, 0.2)", "die_with_parent()"])
@pytest.mark.parametrize("deed", ["time.sleep(60)", "while True: sum(range(1000))"])
def test_blocked_process_ends_when_its_parent_is_killed(tie: str, deed: str) -> None:
    parent = subprocess.Popen(
        [sys.executable, "-c", PARENT.format(tie=tie, deed=deed)], stdout=subprocess.PIPE, text=True
    )
    assert parent.stdout
    child = int(parent.stdout.readline())
    parent.send_signal(signal.SIGKILL)
    parent.wait()
    deadline = time.monotonic() + HANG_SECONDS
    try:
        while runs(child):
            assert time.monotonic() < deadline, "it still runs"
            time.sleep(0.05)
    finally:
        parent.stdout.close()
        if runs(child):
            os.kill(child, signal.SIGKILL)


def runs(pid: int) -> bool:
    """Return whether a process runs; a zombie does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False
