"""Starts a real nats-server, waits until it is ready, and stops it reliably.

For the demo, the bench and the tests; production runs nats-server with a service manager. Readiness and ports are
read from the server's log as it is written, without sleeping.
"""

from __future__ import annotations

import asyncio
import atexit
import functools
import itertools
import os
import re
import signal
import socket
import subprocess
import sys
from collections import deque
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import TracebackType

from broker_auth.deploy.natsbinary import failure, find_binary
from broker_auth.errors import OperationError
from broker_auth.sandbox.process import LoggedProcess

START_TIMEOUT = 30.0  # seconds; an idle machine needs 0.1, a busy one more
STOP_TIMEOUT = 10.0  # seconds between SIGTERM and SIGKILL
# Below the range of ephemeral ports (from 32768 on Linux), so that an outgoing connection cannot take the port between
# its release by this process and its use by nats-server.
_FREE_PORTS = range(20_000, 32_000)
_APART = 7_417  # offset between the first ports of consecutive process ids; golden section, coprime
_MAX_RESERVED = 64  # ports; earlier ones are in use by then
_reserved: deque[socket.socket] = deque()

_READY = re.compile(r"\[INF\] Server is ready")
_LISTENING = {
    "client": re.compile(r"Listening for client connections on \S+:(\d+)\s*$"),
    "websocket": re.compile(r"Listening for websocket clients on \S+:(\d+)\s*$"),
    "leaf": re.compile(r"Listening for leafnode connections on \S+:(\d+)\s*$"),
    "cluster": re.compile(r"Listening for route connections on \S+:(\d+)\s*$"),
    "monitor": re.compile(r"Starting https? monitor on \S+:(\d+)\s*$"),
}


def free_port() -> int:
    """Return a free TCP port on 127.0.0.1, for a listener whose URL must be known in advance.

    Never returns a port twice, because the listener of an earlier one may not have been started yet. On Linux other
    processes do not get it either: a socket that does not listen keeps them away, but not a listener.
    """
    for port in itertools.islice(_port_sequence(os.getpid()), 200):
        reserved = socket.socket()
        try:
            reserved.bind(("127.0.0.1", port))
        except OSError:
            reserved.close()
            continue
        if len(_reserved) == _MAX_RESERVED:
            _reserved.popleft().close()
        _reserved.append(reserved)
        if sys.platform == "linux":  # elsewhere it would keep a listener away
            reserved.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # so that nats-server, which sets it, binds
        else:
            reserved.close()
        return port
    raise OperationError(f"no free TCP port between {_FREE_PORTS.start} and {_FREE_PORTS.stop}")


@atexit.register
def _release() -> None:
    """Close the sockets that reserve ports."""
    while _reserved:
        _reserved.popleft().close()


@functools.cache
def _port_sequence(pid: int) -> Iterator[int]:
    """Return the ports in the order in which this process uses them; the start depends on its id."""
    start = pid * _APART % len(_FREE_PORTS)
    return itertools.cycle((*_FREE_PORTS[start:], *_FREE_PORTS[:start]))


class NatsServer(LoggedProcess):
    """A nats-server process; a synchronous and asynchronous context manager.

    Attributes:
        config: its configuration file.
    """

    keeps_log = False  # its ports may differ after a restart

    def __init__(
        self, config: Path, *, log_file: Path | None = None, binary: Path | None = None, debug: bool = False
    ) -> None:
        super().__init__(f"nats-server on {config}", log_file or config.with_suffix(".log"))
        self.config = config
        self._binary = binary
        self._options = ["-D"] if debug else []

    def command(self) -> list[str]:
        """Return the command line."""
        return [str(self._binary or find_binary()), "-c", str(self.config), *self._options]

    # -- lifecycle ----------------------------------------------------------------------------

    def start(self, timeout: float = START_TIMEOUT) -> None:
        """Start the server; return once it accepts clients.

        Raises:
            OperationError: it ended, or was not ready within ``timeout`` seconds; it has been stopped.
            InputError: nats-server is not installed.
        """
        self.launch()
        self._await_ready(timeout)

    def restart(self, timeout: float = START_TIMEOUT) -> None:
        """Restart the server with the same configuration file, whose content may have changed."""
        self.stop()
        self.start(timeout)

    def stop(self, timeout: float = STOP_TIMEOUT) -> None:
        """Stop the server, by SIGKILL after ``timeout`` seconds. Does nothing if it is not running."""
        if self._process is None:
            return
        self._process.terminate()
        self._process.send_signal(signal.SIGCONT)  # a suspended server does not receive SIGTERM
        try:
            self._process.wait(timeout)
        except subprocess.TimeoutExpired:
            self._process.kill()
        self._reap()

    def reload(self, timeout: float = START_TIMEOUT) -> None:
        """Reload the configuration (SIGHUP), and wait for the result.

        Raises:
            OperationError: nats-server refuses the change (fact 14) and keeps the old configuration.
        """
        mark = self.mark()
        self.signal(signal.SIGHUP)
        line = self.wait_for_log(r"Reloaded server configuration|Failed to reload", timeout, since=mark)
        if "Failed to reload" in line:
            raise OperationError(f"nats-server did not reload {self.config}: {line}")

    def port(self, listener: str = "client", timeout: float = START_TIMEOUT) -> int:
        """Return the port of a listener: ``client``, ``websocket``, ``leaf``, ``cluster`` or ``monitor``.

        Raises:
            OperationError: the server has no such listener.
        """
        pattern = _LISTENING[listener]
        line = self.wait_for_log(pattern, timeout)
        match = pattern.search(line)
        assert match
        return int(match.group(1))

    def failure(self, lines: Sequence[str]) -> str:
        """Return the line that contains the reason why nats-server ended."""
        return failure(lines)

    # -- context managers ---------------------------------------------------------------------

    def __enter__(self) -> NatsServer:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    async def __aenter__(self) -> NatsServer:
        self.launch()  # in this thread, which lives as long as the loop: see :func:`.lifetime.dies_with_parent`
        try:
            await asyncio.to_thread(self._await_ready, START_TIMEOUT)
        except asyncio.CancelledError:
            self.kill()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await asyncio.to_thread(self.stop)

    # -- internals ----------------------------------------------------------------------------

    def _await_ready(self, timeout: float) -> None:
        try:
            self.wait_for_log(_READY, timeout)
        except BaseException:
            self.kill()
            raise
