"""The bench's helper processes from outside: workers under measurement, flooders and connectors."""

from __future__ import annotations

import select
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Final

import msgspec

from broker_auth.bench import connector, flooder, worker
from broker_auth.bench.flooder import FloodResult, FloodTask
from broker_auth.bench.floor import Floor
from broker_auth.bench.site import BenchDeployment
from broker_auth.bench.worker import Counters
from broker_auth.errors import OperationError
from broker_auth.settings.model import FLEET_ZONE

TICK: Final = 0.02  # seconds
_GRACE: Final = 30.0  # seconds over the planned time before a process counts as stuck


class Worker:
    """A service process; a context manager that ends it for certain. With a floor it measures that too."""

    def __init__(
        self, deployment: BenchDeployment, floor: Floor | None = None, number: int = 0, zone: str = FLEET_ZONE
    ) -> None:
        prepared = deployment.directory / "floor"
        prepared.write_bytes(msgspec.msgpack.encode(floor))
        audit = deployment.directory / f"audit{number}.log"
        self._command = [*_module(worker), str(deployment.config), str(prepared), str(audit), zone]
        self._log = deployment.directory / f"worker{number}.log"

    def __enter__(self) -> Worker:
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(  # noqa: S603 - our own program
                self._command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, text=True
            )
        try:
            if self._line() != "ready":
                raise OperationError(f"the service did not start: {self._last_words()}")
        except BaseException:
            self._process.kill()
            self.__exit__(None, None, None)
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        try:
            self._process.wait(_GRACE)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process.stdout.close()

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._process.pid

    def counters(self) -> Counters:
        """Return its current totals."""
        assert self._process.stdin is not None
        self._process.stdin.write("\n")
        self._process.stdin.flush()
        line = self._line()
        if not line:
            raise OperationError(f"the service under measurement ended: {self._last_words()}")
        return msgspec.json.decode(line, type=Counters)

    def _line(self) -> str:
        stream = self._process.stdout
        assert stream is not None
        if not select.select([stream], [], [], _GRACE)[0]:
            raise OperationError(f"the service under measurement said nothing for {_GRACE:g} s: {self._last_words()}")
        return stream.readline().strip()

    def _last_words(self) -> str:
        lines = self._log.read_text(encoding="utf-8", errors="replace").splitlines()
        return (lines or ["it said nothing"])[-1]


class Flood:
    """A flooder at work in the background; :meth:`outcome` waits for it. Ended for certain on exit."""

    def __init__(self, task: FloodTask) -> None:
        self._task = task

    def __enter__(self) -> Flood:
        self._process = subprocess.Popen(  # noqa: S603 - our own program
            _module(flooder), stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )
        assert self._process.stdin is not None
        self._process.stdin.write(msgspec.json.encode(self._task) + b"\n")
        self._process.stdin.flush()
        self._stuck = time.monotonic() + self._task.seconds + _GRACE
        return self

    def ended(self, seconds: float) -> bool:
        """Wait that long for the flooder to end; return whether it has.

        Raises:
            OperationError: it should have ended long ago.
        """
        try:
            self._process.wait(seconds)
        except subprocess.TimeoutExpired:
            if time.monotonic() > self._stuck:
                raise OperationError("the flooder did not end in time") from None
            return False
        return True

    def outcome(self) -> FloodResult:
        """Wait for the result of the flood.

        Raises:
            OperationError: the flooder failed.
        """
        try:
            out, err = self._process.communicate(timeout=self._task.seconds + _GRACE)
        except subprocess.TimeoutExpired as error:
            raise OperationError("the flooder did not end in time") from error
        if self._process.returncode:
            message = err.decode("utf-8", "replace").strip().splitlines() or ["it said nothing"]
            raise OperationError(f"the flooder failed: {message[-1]}")
        return msgspec.json.decode(out, type=FloodResult)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        _end(self._process)


class Connectors:
    """The process whose clients connect, task after task; a context manager that ends it for certain."""

    def __enter__(self) -> Connectors:
        self._process = subprocess.Popen(  # noqa: S603 - our own program
            _module(connector), stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        _end(self._process)

    def run(self, task: connector.ConnectTask, meanwhile: Callable[[], object] = lambda: None) -> connector.Connected:
        """Do a task; it bounds its own time: every connection has a timeout, every storm an end.

        Args:
            task: what to do.
            meanwhile: called every :data:`TICK` seconds until it is done.

        Raises:
            OperationError: no connection could be made.
        """
        process = self._process
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdin.write(msgspec.json.encode(task) + b"\n")
        process.stdin.flush()
        while not select.select([process.stdout], [], [], TICK)[0]:
            meanwhile()
        line = process.stdout.readline()
        if not line:
            lines = process.stderr.read().decode("utf-8", "replace").strip().splitlines() or ["it said nothing"]
            raise OperationError(f"no connection could be made: {lines[-1]}")
        return msgspec.json.decode(line, type=connector.Connected)


def _end(process: subprocess.Popen[bytes]) -> None:
    if process.poll() is None:
        process.kill()
    process.wait()
    for stream in (process.stdin, process.stdout, process.stderr):
        if stream is not None:
            stream.close()


def flood(task: FloodTask) -> FloodResult:
    """Run a flooder's task in a separate process."""
    with Flood(task) as running:
        return running.outcome()


def write_pool(path: Path, requests: list[bytes], xkey: str | None) -> Path:
    """Write a pool for flooders; returns its path."""
    path.write_bytes(msgspec.msgpack.encode(flooder.Pool(requests=requests, xkey=xkey)))
    return path


def _module(module: object) -> list[str]:
    name = getattr(module, "__name__", "")
    return [sys.executable, "-m", name]
