"""A process whose log is read as it is written, so that nothing has to sleep until it is ready."""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import signal
import subprocess
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

from broker_auth.errors import OperationError
from broker_auth.sandbox.lifetime import dies_with_parent

LOG_SECONDS: Final = 60.0  # bounds a hang; an idle machine needs much less
STOP_SECONDS: Final = 60.0  # between SIGTERM and SIGKILL
_READER_SECONDS: Final = 5.0  # a child that outlives the process may still hold its standard error


class LoggedProcess:
    """A process that logs to standard error.

    If started from the main thread on Linux, it dies with this process, even if this is killed. It leads its own
    session: Ctrl-C does not reach it, this process stops it.

    Attributes:
        name: what error messages call it.
        log_file: its log, across restarts.
        out_file: what it prints to standard output.
    """

    keeps_log = True
    """Whether :meth:`log` keeps the lines of earlier starts."""

    def __init__(
        self,
        name: str,
        log_file: Path,
        *,
        out_file: Path = Path(os.devnull),
        environ: Mapping[str, str] | None = None,
    ) -> None:
        """Start nothing yet; ``environ`` is added to the environment of this process."""
        self.name = name
        self.log_file = log_file
        self.out_file = out_file
        self._environ = {**os.environ, **environ} if environ else None
        self._process: subprocess.Popen[str] | None = None
        self._reader: threading.Thread | None = None
        self._lines: list[str] = []
        self._ended = False
        self._changed = threading.Condition()

    def command(self) -> list[str]:
        """Return the command line; its first word is a full path."""
        raise NotImplementedError

    # -- lifecycle ----------------------------------------------------------------------------

    def launch(self) -> None:
        """Start the process, without waiting for anything it does.

        Raises:
            OperationError: it is running already.
        """
        if self.running:
            raise OperationError(f"{self.name} is running already")
        command = dies_with_parent(self.command())
        self._reap()
        if not self.keeps_log:
            self._lines = []
        self._ended = False
        with self.out_file.open("ab") as out:
            self._process = subprocess.Popen(  # noqa: S603 - our own program and file
                command,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=subprocess.PIPE,
                encoding="utf-8",
                errors="replace",
                env=self._environ,
                start_new_session=True,
            )
        self._reader = threading.Thread(target=self._read, args=(self._process,), daemon=True)
        self._reader.start()

    def signal(self, number: signal.Signals) -> None:
        """Send a signal to the process."""
        self._running().send_signal(number)

    def terminate(self, timeout: float = STOP_SECONDS) -> int:
        """Stop the process by SIGTERM; return its exit code, 0 if it is not running.

        Raises:
            OperationError: it did not end within ``timeout`` seconds, and was killed.
        """
        if self._process is None:
            return 0
        self._process.terminate()
        return self.wait(timeout)

    def wait(self, timeout: float = STOP_SECONDS) -> int:
        """Wait until the process ends, and return its exit code.

        Raises:
            OperationError: it did not end within ``timeout`` seconds, and was killed with its children.
        """
        process = self._running()
        try:
            return process.wait(timeout)
        except subprocess.TimeoutExpired:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            raise OperationError(f"{self.name} did not end within {timeout:g} s; see {self.log_file}") from None
        finally:
            self._reap()

    def kill(self) -> None:
        """Kill the process like a crash (SIGKILL)."""
        if self._process is not None:
            self._process.kill()
            self._reap()

    @property
    def running(self) -> bool:
        """Whether the process is running."""
        return self._process is not None and self._process.poll() is None

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._running().pid

    # -- log ----------------------------------------------------------------------------------

    def mark(self) -> int:
        """Return the number of lines logged, for the ``since`` of :meth:`wait_for_log`."""
        with self._changed:
            return len(self._lines)

    def log(self, since: int = 0) -> list[str]:
        """Return the lines logged from ``since`` on."""
        with self._changed:
            return self._lines[since:]

    def wait_for_log(
        self, pattern: str | re.Pattern[str], timeout: float = LOG_SECONDS, *, since: int = 0, count: int = 1
    ) -> str:
        """Wait for ``count`` lines from ``since`` on that match; return the last of them.

        Raises:
            OperationError: they were not logged within ``timeout`` seconds, or the process ended.
        """
        expression = re.compile(pattern)
        deadline = time.monotonic() + timeout
        with self._changed:
            while True:
                for line in self._lines[since:]:
                    if expression.search(line):
                        count -= 1
                        if count == 0:
                            return line
                since = max(since, len(self._lines))
                if self._ended:
                    raise OperationError(f"{self.name} ended: {self.failure(self._lines)}")
                if not self._changed.wait(deadline - time.monotonic()):
                    raise OperationError(
                        f"{self.name} did not log '{expression.pattern}' within {timeout:g} s; see {self.log_file}"
                    )

    async def logged(self, pattern: str | re.Pattern[str], *, since: int = 0, count: int = 1) -> str:
        """Wait like :meth:`wait_for_log` while the event loop runs."""
        return await asyncio.to_thread(self.wait_for_log, pattern, since=since, count=count)

    def failure(self, lines: Sequence[str]) -> str:
        """Return the line that contains the reason why the process ended: the last one."""
        return lines[-1] if lines else "it logged nothing"

    # -- internals ----------------------------------------------------------------------------

    def _read(self, process: subprocess.Popen[str]) -> None:
        assert process.stderr
        with process.stderr as source, self.log_file.open("a", encoding="utf-8", buffering=1) as sink:
            for line in source:
                sink.write(line)
                with self._changed:
                    self._lines.append(line.rstrip("\n"))
                    self._changed.notify_all()
        with self._changed:
            self._ended = True
            self._changed.notify_all()

    def _reap(self) -> None:
        process, reader = self._process, self._reader
        if process is None or reader is None:  # another thread has reaped it
            return
        process.wait()
        reader.join(_READER_SECONDS)
        self._process = None

    def _running(self) -> subprocess.Popen[str]:
        if self._process is None:
            raise OperationError(f"{self.name} is not running")
        return self._process
