"""The log lines about one broker, which can cause them at will by reconnecting."""

from __future__ import annotations

import logging
from typing import Final

from broker_auth.logs.limit import LogLimit
from broker_auth.printable import printable

_SHOWN: Final = 256  # characters of an error that a broker sent
_BURST: Final = 20  # lines at once


class BrokerLog:
    """A limited log of the events of one broker."""

    def __init__(self, log: logging.Logger, broker: str) -> None:
        """Write to ``log``, with the broker's name in each line."""
        self._log = log
        self._broker = broker
        self._limit = LogLimit(_BURST)
        self._last_error = ""

    def line(self, level: int, text: str) -> None:
        """Log a line, unless there were too many."""
        if self._limit.due():
            self._log.log(level, "broker %s: %s", self._broker, text)

    def report(self, error: Exception) -> None:
        """Log an error once, not for each attempt that fails in the same way."""
        text = printable(str(error) or type(error).__name__, _SHOWN)
        if text != self._last_error:
            self.line(logging.WARNING, text)
            self._last_error = text

    def forget_error(self) -> None:
        """Report the next error even if it is the same as the last."""
        self._last_error = ""
