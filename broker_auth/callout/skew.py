"""The clock difference between this host and each server, measured from the requests.

A request contains the second in which its server created it (``iat``), and arrives some milliseconds later. So the
difference to our clock is the skew, plus the fraction of that second, plus the latency: the minimum of several is
close to the skew. It is measured on every request, verified or not, and only displayed: no decision depends on it.
"""

from __future__ import annotations

from typing import Final

import msgspec

from broker_auth.printable import printable

WARNING_SECONDS: Final = 1.0  # tokens' times are checked to the second; requests live for 10
_WINDOW_SECONDS: Final = 30.0  # the last one to two of these count
_MAX_SERVERS: Final = 16  # of each broker; a compromised broker can invent any number


class _Window(msgspec.Struct):
    """The smallest difference in a period, and the number of measurements."""

    began: float
    least: float
    count: int


class _ServerClock(msgspec.Struct):
    now: _Window
    before: _Window | None = None


class Skews:
    """The measured skew of every server that sends requests."""

    def __init__(self) -> None:
        self._servers: dict[tuple[str, str], _ServerClock] = {}
        self._steady = float("-inf")

    def observe(self, broker: str, server: str, difference: float, steady: float) -> None:
        """Record the time of a request.

        Args:
            broker: the configured broker that it was received from.
            server: the server that it names, unverified.
            difference: our clock minus its ``iat``, in seconds.
            steady: the current time in seconds on a monotonic clock.
        """
        key = (broker, server[:64])
        known = self._servers.get(key)
        self._steady = max(self._steady, steady)
        if known is None:
            if self._has_room(broker):
                self._servers[key] = _ServerClock(_Window(steady, difference, 1))
            return
        window = known.now
        if steady - window.began >= _WINDOW_SECONDS:
            recent = steady - window.began < 2 * _WINDOW_SECONDS
            known.before, known.now = (window if recent else None), _Window(steady, difference, 1)
            return
        window.count += 1
        window.least = min(window.least, difference)

    def _has_room(self, broker: str) -> bool:
        """Forget servers without recent requests, and return whether the broker may have another server."""
        for key in [key for key, known in self._servers.items() if self._is_old(known)]:
            del self._servers[key]
        return sum(name == broker for name, _ in self._servers) < _MAX_SERVERS

    def _is_old(self, server: _ServerClock) -> bool:
        return self._steady - server.now.began >= 2 * _WINDOW_SECONDS

    def measured(self, steady: float | None = None) -> dict[str, float]:
        """Return the seconds by which our clock is ahead of each server's (negative: behind), by ``broker/server``.

        Args:
            steady: the current time, to omit servers without recent requests.
        """
        if steady is not None:
            self._steady = max(self._steady, steady)
        return {
            f"{broker}/{printable(server)}": round(_skew(known), 3)
            for (broker, server), known in self._servers.items()
            if not self._is_old(known)
        }

    def of(self, broker: str, server: str) -> float:
        """Return the skew of a server; 0 if it is unknown."""
        known = self._servers.get((broker, server[:64]))
        return 0.0 if known is None or self._is_old(known) else round(_skew(known), 3)


def _skew(server: _ServerClock) -> float:
    """Estimate the skew: subtract 1/(n+1), the expected minimum of n random fractions of a second."""
    windows = [server.now] if server.before is None else [server.now, server.before]
    least, count = min(window.least for window in windows), sum(window.count for window in windows)
    # With few requests a difference of less than a second may not be a skew.
    return least if least < 0 else max(0.0, least - 1.0) if count < 4 else max(0.0, least - 1 / (count + 1))


def notable(skew: float) -> float:
    """Return the skew if it is large enough to cause problems, else 0, which records omit."""
    return skew if abs(skew) >= WARNING_SECONDS else 0.0


def describe(skew: float, server: str) -> str:
    """Return a description of the skew."""
    return f"this host's clock is {abs(skew):.1f} s {'ahead of' if skew > 0 else 'behind'} that of server {server}"
