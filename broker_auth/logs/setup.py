"""The log on standard error: one line an event, and no process waits for whoever reads it."""

from __future__ import annotations

import logging
import os
import time
from typing import Final

from broker_auth.logs.outlet import DescriptorTarget, Outlet, ThreadOutlet, TryingOutlet
from broker_auth.printable import printable, printable_lines

FORMAT: Final = "%(asctime)s %(levelname)s %(process)d %(name)s: %(message)s"
_STDERR: Final = 2
_MAX_LINE: Final = 128 * 1024  # characters of a message; an audit record with its request is the longest
_log = logging.getLogger(__name__)


class _Formatter(logging.Formatter):
    """Escapes what could break a line or repaint a terminal."""

    def format(self, record: logging.LogRecord) -> str:
        if record.exc_info or record.stack_info:
            return printable_lines(super().format(record))
        return printable(super().format(record), _MAX_LINE)


class _Handler(logging.Handler):
    """Hands lines to an outlet, and says how many were lost once lines get through again."""

    def __init__(self, outlet: Outlet) -> None:
        super().__init__()
        self.outlet = outlet
        self.told = 0
        self.setFormatter(_Formatter(FORMAT))

    def emit(self, record: logging.LogRecord) -> None:
        """Write one line."""
        try:
            line = self.format(record).encode("utf-8", "backslashreplace") + b"\n"
        except Exception:
            self.handleError(record)
            return
        before = self.outlet.lost
        self.outlet.write(line)
        lost = self.outlet.lost
        if lost == before and lost > self.told:
            text = f"{lost - self.told} log lines were lost because nobody read them in time"
            stamp = time.strftime("%Y-%m-%d %H:%M:%S,000")
            self.outlet.write(f"{stamp} WARNING {os.getpid()} {__name__}: {text}\n".encode())
            self.told = lost


def set_up(level: str) -> None:
    """Log to standard error, without a thread: what cannot be written at once is lost, and counted."""
    root = logging.getLogger()
    for handler in root.handlers[:]:
        root.removeHandler(handler)
    root.addHandler(_Handler(TryingOutlet(_STDERR)))
    root.setLevel(level.upper())
    # Both log what a broker can make happen as often as it likes; what matters of it is logged by the service.
    logging.getLogger("asyncio").setLevel(logging.ERROR)
    logging.getLogger("nats").setLevel(logging.CRITICAL)


def renew() -> None:
    """Log on through descriptors of this process's own; right after a fork, when the parent's are closed."""
    for handler in logging.getLogger().handlers:
        if isinstance(handler, _Handler):
            if isinstance(handler.outlet, TryingOutlet):
                handler.outlet.abandon()
            handler.outlet, handler.told = TryingOutlet(_STDERR), 0


def use_thread() -> None:
    """Log through a thread from now on; for a process that forks no more, such as a worker."""
    for handler in logging.getLogger().handlers:
        if isinstance(handler, _Handler):
            handler.outlet = ThreadOutlet(DescriptorTarget(_STDERR), together=False)


def lost() -> int:
    """Return how many lines of this process were lost."""
    return sum(handler.outlet.lost for handler in logging.getLogger().handlers if isinstance(handler, _Handler))


def flush() -> None:
    """Write what is queued, as far as that is possible in time."""
    for handler in logging.getLogger().handlers:
        if isinstance(handler, _Handler) and isinstance(handler.outlet, ThreadOutlet):
            handler.outlet.flush()
