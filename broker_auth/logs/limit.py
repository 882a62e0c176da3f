"""A rate limit for log lines that a client or a broker can cause at will."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Final

SECONDS: Final = 10.0


class LogLimit:
    """A rate limit for the log lines of one kind of event: some at once, then one every ``seconds``.

    Attributes:
        count: events so far, logged or not; log lines should state it.
    """

    __slots__ = ("_allowed", "_burst", "_clock", "_seconds", "_since", "count")

    def __init__(
        self, burst: int = 1, clock: Callable[[], float] = time.monotonic, *, seconds: float = SECONDS
    ) -> None:
        """Allow ``burst`` events at once, and another one every ``seconds``; ``clock`` returns seconds."""
        self.count = 0
        self._burst = burst
        self._clock = clock
        self._seconds = seconds
        self._allowed = float(burst)
        self._since = clock()

    def due(self, count: int = 1) -> bool:
        """Count ``count`` events; return True if a line should be logged for them."""
        self.count += count
        now = self._clock()
        self._allowed = min(self._burst, self._allowed + (now - self._since) / self._seconds)
        self._since = now
        if self._allowed < 1:
            return False
        self._allowed -= 1
        return True
