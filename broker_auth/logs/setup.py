"""Logging to standard error: one line for each event, and a slow reader never blocks the process."""

from __future__ import annotations

import logging
import os
import time
from typing import Final

from broker_auth.logs.outlet import DescriptorTarget, Outlet, ThreadOutlet, TryingOutlet
from broker_auth.printable import printable, printable_lines

FORMAT: Final = "%(asctime)s %(levelname)s %(process)d %(name)s: %(message)s"
_STDERR: Final = 2
_MAX_LINE: Final = 128 * 1024  # characters of a message; the longest is an audit record that includes the request
_log = logging.getLogger(__name__)


class _Formatter(logging.Formatter):
    """A formatter that escapes characters which break lines or control a terminal."""

    def format(self, record: logging.LogRecord) -> str:
        if record.exc_info or record.stack_info:
            return printable_lines(super().format(record))
        return printable(super().format(record), _MAX_LINE)


class _Handler(logging.Handler):
    """A handler that writes to an outlet, and reports lost lines once writing succeeds again."""

    def __init__(self, outlet: Outlet) -> None:
        super().__init__()
        self.outlet = outlet
        self.reported = 0
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
        if lost == before and lost > self.reported:
            text = f"{lost - self.reported} log lines were lost because nobody read them in time"
            stamp = time.strftime("%Y-%m-%d %H:%M:%S,000")
            self.outlet.write(f"{stamp} WARNING {os.getpid()} {__name__}: {text}\n".encode())
            self.reported = lost


def set_up(level: str) -> None:
    """Log to standard error without a thread: lines that cannot be written immediately are lost and counted."""
    root = logging.getLogger()
    for handler in root.handlers[:]:
        root.removeHandler(handler)
    root.addHandler(_Handler(TryingOutlet(_STDERR)))
    root.setLevel(level.upper())
    # Both log events that a broker can cause at will; the service logs those that matter, rate-limited.
    logging.getLogger("asyncio").setLevel(logging.ERROR)
    logging.getLogger("nats").setLevel(logging.CRITICAL)


def renew() -> None:
    """Continue logging through this process's own descriptors, right after a fork has closed the parent's."""
    for handler in logging.getLogger().handlers:
        if isinstance(handler, _Handler):
            if isinstance(handler.outlet, TryingOutlet):
                handler.outlet.abandon()
            handler.outlet, handler.reported = TryingOutlet(_STDERR), 0


def use_thread() -> None:
    """Write the log in a thread from now on; for processes that do not fork, such as workers."""
    for handler in logging.getLogger().handlers:
        if isinstance(handler, _Handler):
            handler.outlet = ThreadOutlet(DescriptorTarget(_STDERR), together=False)


def lost() -> int:
    """Return the number of lines that this process lost."""
    return sum(handler.outlet.lost for handler in logging.getLogger().handlers if isinstance(handler, _Handler))


def flush() -> None:
    """Write the queued lines, as far as the deadline allows."""
    for handler in logging.getLogger().handlers:
        if isinstance(handler, _Handler) and isinstance(handler.outlet, ThreadOutlet):
            handler.outlet.flush()
