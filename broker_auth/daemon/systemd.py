"""systemd's ``sd_notify``: ready, reloading, stopping, and the watchdog (``man sd_notify``)."""

from __future__ import annotations

import logging
import os
import socket
import time
from collections.abc import MutableMapping

_log = logging.getLogger(__name__)


class Notifier:
    """Tells the service manager; does nothing where there is none.

    Attributes:
        watchdog: seconds between signs of life; None if nobody waits for them.
    """

    def __init__(self, environ: MutableMapping[str, str] | None = None) -> None:
        """Takes systemd's variables out of the environment, so that no child speaks for us."""
        environ = os.environ if environ is None else environ
        address = environ.pop("NOTIFY_SOCKET", "")
        usec, pid = environ.pop("WATCHDOG_USEC", ""), environ.pop("WATCHDOG_PID", str(os.getpid()))
        ours = usec.isdigit() and pid == str(os.getpid())
        self.watchdog = int(usec) / 2e6 if ours else None
        # A leading @ is systemd's way to write the zero byte of an abstract socket.
        self._address = "\0" + address[1:] if address.startswith("@") else address

    def ready(self, status: str) -> None:
        """The service serves (again, after a reload)."""
        self._send("READY=1", f"STATUS={status}")

    def reloading(self) -> None:
        """A reload has begun; :meth:`ready` ends it."""
        self._send("RELOADING=1", f"MONOTONIC_USEC={time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000}")

    def stopping(self) -> None:
        """The service drains."""
        self._send("STOPPING=1")

    def status(self, status: str) -> None:
        """One line for ``systemctl status``."""
        self._send(f"STATUS={status}")

    def alive(self) -> None:
        """A sign of life for the watchdog."""
        self._send("WATCHDOG=1")

    def _send(self, *lines: str) -> None:
        if not self._address:
            return
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sender:
                sender.setblocking(False)
                sender.sendto("\n".join(lines).encode(), self._address)
        except OSError as error:
            _log.warning("the service manager cannot be told %s: %s", lines[0], error)
