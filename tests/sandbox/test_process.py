"""A process whose log is waited for, and which is stopped whatever it does."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from broker_auth.errors import OperationError
from broker_auth.sandbox.process import LoggedProcess

WAITS_FOR_EVER = "threading.Event().wait()"


class Script(LoggedProcess):
    """A Python program that logs lines, and then runs a statement."""

    def __init__(self, directory: Path, lines: tuple[str, ...] = (), then: str = "") -> None:
        super().__init__("the script", directory / "script.log", out_file=directory / "script.out")
        logged = "; ".join(f"print({line!r}, file=sys.stderr, flush=True)" for line in lines) or "pass"
        self._program = f"import signal, sys, threading\n{logged}\n{then}\n"

    def command(self) -> list[str]:
        return [sys.executable, "-c", self._program]


@contextmanager
def launched(script: Script) -> Iterator[Script]:
    script.launch()
    try:
        yield script
    finally:
        script.kill()


def test_first_matching_line_from_the_mark_on_is_returned(tmp_path: Path) -> None:
    with launched(Script(tmp_path, ("one 1", "two 2", "one 3"))) as script:
        assert script.wait_for_log(r"one \d") == "one 1"
        assert script.wait_for_log(r"one \d", since=1) == "one 3"
        assert script.wait() == 0
        assert script.log(since=2) == ["one 3"]
        assert script.mark() == 3


async def test_last_of_several_lines_is_returned_while_the_loop_runs(tmp_path: Path) -> None:
    with launched(Script(tmp_path, ("one 1", "two 2", "one 3"))) as script:
        assert await script.logged("one", count=2) == "one 3"


def test_end_without_the_line_raises_with_the_last_line(tmp_path: Path) -> None:
    failure = pytest.raises(OperationError, match="the script ended: cannot go on")
    with launched(Script(tmp_path, ("cannot go on",))) as script, failure:
        script.wait_for_log("ready")


def test_lines_are_kept_across_starts_and_written_to_the_file(tmp_path: Path) -> None:
    script = Script(tmp_path, ("one",))
    for _ in range(2):
        script.launch()
        assert script.wait() == 0
    assert script.log() == ["one", "one"]
    assert script.log_file.read_text() == "one\none\n"


def test_process_that_ignores_sigterm_is_killed_and_reported(tmp_path: Path) -> None:
    ignores = f"signal.signal(signal.SIGTERM, signal.SIG_IGN); print('ready', file=sys.stderr); {WAITS_FOR_EVER}"
    with launched(Script(tmp_path, then=ignores)) as script:
        script.wait_for_log("ready")
        with pytest.raises(OperationError, match=r"did not end within 0\.1 s"):
            script.terminate(0.1)
        assert not script.running
        assert script.terminate() == 0, "a process that does not run needs no signal"


def test_running_process_is_not_started_twice(tmp_path: Path) -> None:
    failure = pytest.raises(OperationError, match="is running already")
    with launched(Script(tmp_path, ("ready",), WAITS_FOR_EVER)) as script, failure:
        script.launch()
    assert not script.running
