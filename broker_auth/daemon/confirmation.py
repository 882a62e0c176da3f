"""Waiting until every worker of the running service decides by a file of revocations."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Final

from broker_auth.daemon.pidfile import running
from broker_auth.errors import OperationError

CONFIRM_SECONDS: Final = 10.0  # a worker follows within a second
_POLL_SECONDS: Final = 0.02


def confirm(pid_file: Path, version: str) -> list[str]:
    """Wait until every worker of the running service decides by a version.

    Returns:
        The zones that confirmed.

    Raises:
        OperationError: no service runs, or one of its zones does not confirm in time.
    """
    deadline = time.monotonic() + CONFIRM_SECONDS
    while True:
        zones = running(pid_file).zones
        waiting = [name for name, line in zones.items() if line.revocations != version]
        if zones and not waiting:
            return list(zones)
        if time.monotonic() > deadline:
            named = ", ".join(waiting) or "any zone"
            raise OperationError(
                f"the file is written, but workers of {named} have not confirmed it within {CONFIRM_SECONDS:g} s; see "
                "/healthz and the service's log"
            )
        time.sleep(_POLL_SECONDS)
