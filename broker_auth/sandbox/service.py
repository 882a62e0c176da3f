"""Runs ``broker-auth serve`` as a separate process, for the demo and the tests."""

from __future__ import annotations

import asyncio
import signal
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Final

from broker_auth.sandbox.process import LOG_SECONDS, LoggedProcess

READY: Final = "ready brokers="


class ServiceProcess(LoggedProcess):
    """A service process; a context manager that starts it and stops it whatever happens.

    :meth:`start`, :meth:`reload` and :meth:`stop` are for an event loop, the rest for both.
    """

    def __init__(
        self,
        configuration: Path,
        log_file: Path,
        options: Sequence[str] = (),
        *,
        zones: int = 1,
        environ: Mapping[str, str] | None = None,
    ) -> None:
        """Start nothing yet; ``zones`` is the number of zones in the configuration."""
        super().__init__("the service", log_file, out_file=log_file.with_suffix(".out"), environ=environ)
        self._configuration = configuration
        self._options = options
        self._zones = zones

    def command(self) -> list[str]:
        """Return the command line."""
        return [sys.executable, "-m", "broker_auth", "serve", "--config", str(self._configuration), *self._options]

    async def start(self) -> None:
        """Start the service; return once it is subscribed at every broker.

        Raises:
            OperationError: it ended, or was not ready in time.
        """
        since = self.mark()
        self.launch()
        try:
            await self.logged(READY, since=since)
        except BaseException:  # also when interrupted: the caller could not stop it
            await self.stop()
            raise

    async def reload(self, expected: str = "reloaded ") -> None:
        """Send SIGHUP; return once each zone has logged ``expected``.

        Raises:
            OperationError: a zone did not log it in time.
        """
        since = self.mark()
        self.signal(signal.SIGHUP)
        await self.logged(expected, since=since, count=self._zones)

    async def stop(self) -> int:
        """Stop the service by SIGTERM, like :meth:`terminate`."""
        return await asyncio.to_thread(self.terminate)

    def ready(self, timeout: float = LOG_SECONDS) -> None:
        """Wait until the service is subscribed at every broker for the first time.

        Raises:
            OperationError: it ended, or was not ready in time.
        """
        self.wait_for_log(READY, timeout)

    @property
    def workers(self) -> list[int]:
        """Process ids of its workers."""
        children = Path(f"/proc/{self.pid}/task/{self.pid}/children").read_text()
        return [int(pid) for pid in children.split()]

    def __enter__(self) -> ServiceProcess:
        """Start the service; return once it is subscribed at every broker."""
        self.launch()
        try:
            self.ready()
        except BaseException:
            self.terminate()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop the service."""
        self.terminate()
