"""systemd's ``sd_notify``: ready, reloading, stopping, and the watchdog (``man sd_notify``)."""

from __future__ import annotations

import logging
import os
import socket
import time
from collections.abc import MutableMapping

_log = logging.getLogger(__name__)


class Notifier:
    """The connection to the service manager, which sends notifications; without one it does nothing.

    Attributes:
        watchdog: seconds between watchdog pings; None if the watchdog is disabled.
    """

    def __init__(self, environ: MutableMapping[str, str] | None = None) -> None:
        """Remove systemd's variables from the environment, so that child processes cannot use them."""
        environ = os.environ if environ is None else environ
        address = environ.pop("NOTIFY_SOCKET", "")
        usec, pid = environ.pop("WATCHDOG_USEC", ""), environ.pop("WATCHDOG_PID", str(os.getpid()))
        ours = usec.isdigit() and pid == str(os.getpid())
        self.watchdog = int(usec) / 2e6 if ours else None
        # systemd writes the leading zero byte of an abstract socket as @.
        self._address = "\0" + address[1:] if address.startswith("@") else address

    def ready(self, status: str) -> None:
        """Report that the service is ready, after its start or a reload."""
        self._send("READY=1", f"STATUS={status}")

    def reloading(self) -> None:
        """Report that a reload has begun; :meth:`ready` ends it."""
        self._send("RELOADING=1", f"MONOTONIC_USEC={time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000}")

    def stopping(self) -> None:
        """Report that the service is stopping."""
        self._send("STOPPING=1")

    def status(self, status: str) -> None:
        """Set the line that ``systemctl status`` shows."""
        self._send(f"STATUS={status}")

    def alive(self) -> None:
        """Notify the watchdog that the service is alive."""
        self._send("WATCHDOG=1")

    def _send(self, *lines: str) -> None:
        if not self._address:
            return
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sender:
                sender.setblocking(False)
                sender.sendto("\n".join(lines).encode(), self._address)
        except OSError as error:
            _log.warning("cannot notify the service manager of %s: %s", lines[0], error)
