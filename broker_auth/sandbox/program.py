"""A program that runs beside the demo or a test, read line by line."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path
from types import TracebackType
from typing import Final

from broker_auth.errors import OperationError
from broker_auth.sandbox.lifetime import dies_with_parent

LINE_SECONDS: Final = 30.0
STOP_SECONDS: Final = 10.0


class Program:
    """A Python program and what it has printed. An async context manager: it is stopped whatever happens."""

    def __init__(self, script: Path, *arguments: object) -> None:
        """Start nothing yet."""
        self.seen: list[str] = []
        self._name = script.name
        self._command = [sys.executable, str(script), *map(str, arguments)]
        self._process: asyncio.subprocess.Process | None = None

    async def __aenter__(self) -> Program:
        """Start it."""
        self._process = await asyncio.create_subprocess_exec(
            *dies_with_parent(self._command), stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
        )
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Stop it."""
        await self.stop()

    async def line(self, start: str) -> str:
        """Return what follows ``start`` on the next line that begins with it.

        Raises:
            OperationError: the program ended without it, or took too long.
        """
        assert self._process is not None
        assert self._process.stdout is not None
        try:
            async with asyncio.timeout(LINE_SECONDS):
                while line := await self._process.stdout.readline():
                    self.seen.append(line.decode(errors="replace").rstrip())
                    if self.seen[-1].startswith(start):
                        return self.seen[-1].removeprefix(start).strip()
        except TimeoutError:
            raise OperationError(f"{self._name} did not print {start!r} in time; it printed {self.seen}") from None
        raise OperationError(f"{self._name} ended without {start!r}; it printed {self.seen}")

    async def ended(self) -> int:
        """Wait until it ends by itself, and return its exit status.

        Raises:
            OperationError: it did not in time.
        """
        assert self._process is not None
        assert self._process.stdout is not None
        try:
            async with asyncio.timeout(LINE_SECONDS):
                rest = await self._process.stdout.read()
                self.seen += rest.decode(errors="replace").splitlines()
                return await self._process.wait()
        except TimeoutError:
            raise OperationError(f"{self._name} goes on; it printed {self.seen}") from None

    async def stop(self) -> int:
        """Send SIGTERM, later SIGKILL, and return the exit status."""
        assert self._process is not None
        if self._process.returncode is None:
            self._process.terminate()
        try:
            async with asyncio.timeout(STOP_SECONDS):
                return await self.ended()
        except TimeoutError:
            self._process.kill()
        return await self.ended()
