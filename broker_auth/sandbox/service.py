"""Runs ``broker-auth serve`` as a separate process, for the demo and the tests."""

from __future__ import annotations

import asyncio
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from broker_auth.errors import OperationError
from broker_auth.sandbox.lifetime import dies_with_parent

READY_SECONDS: Final = 60.0
STOP_SECONDS: Final = 30.0
READY: Final = "ready brokers="


class ServiceProcess:
    """A service process; its log is read as it is written, and copied to a file."""

    def __init__(self, configuration: Path, log_file: Path, options: Sequence[str] = (), *, zones: int = 1) -> None:
        """Start nothing yet; ``zones`` is the number of zones in the configuration."""
        self.log: list[str] = []
        self._command = [sys.executable, "-m", "broker_auth", "serve", "--config", str(configuration), *options]
        self._log_file = log_file
        self._zones = zones
        self._process: asyncio.subprocess.Process | None = None
        self._reader: asyncio.Task[None] | None = None
        self._changed = asyncio.Condition()

    @property
    def pid(self) -> int:
        """Its process id."""
        assert self._process is not None
        return self._process.pid

    async def start(self) -> None:
        """Start the service; return once it is subscribed at every broker.

        Raises:
            OperationError: it ended, or was not ready in time.
        """
        since = len(self.log)
        self._process = await asyncio.create_subprocess_exec(
            *dies_with_parent(self._command), stderr=asyncio.subprocess.PIPE
        )
        self._reader = asyncio.create_task(self._read(self._process))
        try:
            await self.wait_for_log(READY, since)
        except BaseException:  # also when interrupted: the caller could not stop it
            await self.stop()
            raise

    async def reload(self, expected: str = "reloaded ") -> None:
        """Send SIGHUP; return once each zone has logged ``expected``.

        Raises:
            OperationError: a zone did not log it in time.
        """
        since = len(self.log)
        self.signal(signal.SIGHUP)
        await self.wait_for_log(expected, since, self._zones)

    def signal(self, number: signal.Signals) -> None:
        """Send a signal to the service."""
        assert self._process is not None
        self._process.send_signal(number)

    async def stop(self) -> int:
        """Stop the service by SIGTERM, then SIGKILL; return the exit code, 0 if it is not running."""
        if self._process is None or self._reader is None:
            return 0
        process, self._process = self._process, None
        if process.returncode is None:
            process.terminate()
            try:
                await asyncio.wait_for(process.wait(), STOP_SECONDS)
            except TimeoutError:
                process.kill()
        code = await process.wait()
        await self._reader
        return code

    async def wait_for_log(self, text: str, since: int = 0, count: int = 1) -> str:
        """Wait for ``count`` lines from ``since`` on that contain ``text``; return the last one.

        Raises:
            OperationError: the service ended, or did not log them in time.
        """
        try:
            async with asyncio.timeout(READY_SECONDS), self._changed:
                while True:
                    matches = [line for line in self.log[since:] if text in line]
                    if len(matches) >= count:
                        return matches[count - 1]
                    if self._reader is None or self._reader.done():
                        raise OperationError(f"the service ended: {self.log[-1] if self.log else 'without a log line'}")
                    await self._changed.wait()
        except TimeoutError as error:
            raise OperationError(f"the service did not log {text!r} in time; see {self._log_file}") from error

    async def _read(self, process: asyncio.subprocess.Process) -> None:
        assert process.stderr is not None
        try:
            with self._log_file.open("ab") as log:
                while line := await process.stderr.readline():
                    log.write(line)
                    log.flush()
                    async with self._changed:
                        self.log.append(line.decode(errors="replace").rstrip())
                        self._changed.notify_all()
        finally:
            asyncio.get_running_loop().call_soon(asyncio.ensure_future, self._wake())

    async def _wake(self) -> None:
        async with self._changed:
            self._changed.notify_all()
