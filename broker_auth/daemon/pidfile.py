"""The pid file: the process id of the running service, and of each zone its reload counts and the revocations in force.

The first line is the process id, for any tool; the others are for ``broker-auth reload`` and ``revoke``. The service
holds a lock on the file while it runs, so that a stale file is recognized. The file is readable by its owner only,
because a process that can open a file can also lock it and so prevent the service from starting.
"""

from __future__ import annotations

import fcntl
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final, NamedTuple

from broker_auth.errors import OperationError

_MAX_BYTES: Final = 64 * 1024
_PID: Final = re.compile(r"[0-9]{1,9}\n")
_ZONE: Final = re.compile(
    r"zone=(?P<zone>\S+) accepted=(?P<accepted>[0-9]+) refused=(?P<refused>[0-9]+)( revocations=(?P<version>\w+))?\n"
)


class ZoneLine(NamedTuple):
    """The line of one zone.

    Attributes:
        accepted: reloads that changed the configuration.
        refused: reloads that changed nothing.
        revocations: version of the revocations by which every worker of the zone decides; empty while they differ.
    """

    accepted: int
    refused: int
    revocations: str = ""


@dataclass(frozen=True, slots=True)
class Running:
    """A running service: its process id, and the line of each zone."""

    pid: int
    zones: dict[str, ZoneLine]


class PidFile:
    """The pid file, which the service holds from :meth:`__init__` to :meth:`remove`."""

    def __init__(self, path: Path) -> None:
        """Create and lock the file.

        Raises:
            OperationError: another service holds it, or it cannot be written.
        """
        self._path = path
        try:
            self._descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        except OSError as error:
            raise OperationError(f"pid file {path} cannot be written: {error.strerror}; correct the path") from error
        try:
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            os.close(self._descriptor)
            raise OperationError(f"pid file {path} is held by a running service; stop that service first") from error
        self.write({})

    def write(self, zones: Mapping[str, ZoneLine]) -> None:
        """Write what each zone accepted, refused and decides by."""
        lines = [_line(zone, line) for zone, line in zones.items()]
        content = f"{os.getpid()}\n{''.join(lines)}".encode()
        os.pwrite(self._descriptor, content, 0)
        os.ftruncate(self._descriptor, len(content))

    def remove(self) -> None:
        """Remove the file and release the lock."""
        self._path.unlink(missing_ok=True)
        os.close(self._descriptor)


def running(path: Path) -> Running:
    """Return the service that holds the pid file.

    Raises:
        OperationError: no service holds it.
    """
    message = f"no service runs with the pid file {path}; start it, or check plugin.broker_auth.pid_file"
    try:
        with path.open("rb") as file:
            content = file.read(_MAX_BYTES).decode("ascii", "replace")
            held = _is_held(file.fileno())
    except OSError as error:
        raise OperationError(message) from error
    pid = _PID.match(content)
    if not held or pid is None:
        raise OperationError(message)
    zones = {
        match["zone"]: ZoneLine(int(match["accepted"]), int(match["refused"]), match["version"] or "")
        for match in _ZONE.finditer(content)
    }
    return Running(int(pid[0]), zones)


def _line(zone: str, line: ZoneLine) -> str:
    confirmed = f" revocations={line.revocations}" if line.revocations else ""
    return f"zone={zone} accepted={line.accepted} refused={line.refused}{confirmed}\n"


def _is_held(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    fcntl.flock(descriptor, fcntl.LOCK_UN)
    return False
