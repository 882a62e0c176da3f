"""Logging to standard error: one line for each event, and a slow reader never blocks the process."""

from __future__ import annotations

import logging
from typing import Final

from broker_auth.logs.formats import LogFormat, formatter
from broker_auth.logs.outlet import DescriptorTarget, Outlet, ThreadOutlet, TryingOutlet

_STDERR: Final = 2
_log = logging.getLogger(__name__)


class _Handler(logging.Handler):
    """A handler that writes to an outlet, and reports lost lines once writing succeeds again."""

    def __init__(self, outlet: Outlet, chosen: LogFormat) -> None:
        super().__init__()
        self.outlet = outlet
        self.reported = 0
        self.setFormatter(formatter(chosen))

    def emit(self, record: logging.LogRecord) -> None:
        """Write one line."""
        before = self.outlet.lost
        self._write(record)
        lost = self.outlet.lost
        if lost == before and lost > self.reported:
            text = "%d log lines were lost because nobody read them in time"
            self._write(_log.makeRecord(_log.name, logging.WARNING, "", 0, text, (lost - self.reported,), None))
            self.reported = lost

    def _write(self, record: logging.LogRecord) -> None:
        try:
            line = self.format(record).encode("utf-8", "backslashreplace") + b"\n"
        except Exception:
            self.handleError(record)
        else:
            self.outlet.write(line)


def set_up(level: str, chosen: LogFormat = LogFormat.TEXT) -> None:
    """Log to standard error without a thread: lines that cannot be written immediately are lost and counted."""
    root = logging.getLogger()
    for handler in root.handlers[:]:
        root.removeHandler(handler)
    root.addHandler(_Handler(TryingOutlet(_STDERR), chosen))
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
