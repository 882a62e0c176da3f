"""How far this host's clock is from each server's, measured by the requests themselves.

A request carries the whole second in which its server made it (``iat``), and is read here some milliseconds later. So
the difference to our clock is the skew, plus what is left of that second, plus the way: the smallest of
several is the skew, nearly. It is measured on every request, verified or not, and only ever shown: no decision depends
on it.
"""

from __future__ import annotations

from typing import Final

import msgspec

from broker_auth.printable import printable

WARNING_SECONDS: Final = 1.0  # tokens' times are checked to the second; requests live for 10
_WINDOW_SECONDS: Final = 30.0  # the last one to two of these count
_MAX_SERVERS: Final = 16  # of each broker; one in strange hands can name any number


class _Window(msgspec.Struct):
    """The smallest difference of a time, and of how many."""

    began: float
    least: float
    count: int


class _Server(msgspec.Struct):
    now: _Window
    before: _Window | None = None


class Skews:
    """Measures the skew of every server that asks."""

    def __init__(self) -> None:
        self._servers: dict[tuple[str, str], _Server] = {}
        self._steady = float("-inf")

    def observe(self, broker: str, server: str, difference: float, steady: float) -> None:
        """Note a request.

        Args:
            broker: the configured broker that it came by.
            server: the server that it names, unverified.
            difference: our clock less its ``iat``, in seconds.
            steady: seconds of a clock that nobody sets.
        """
        key = (broker, server[:64])
        known = self._servers.get(key)
        self._steady = max(self._steady, steady)
        if known is None:
            if self._has_room(broker):
                self._servers[key] = _Server(_Window(steady, difference, 1))
            return
        window = known.now
        if steady - window.began >= _WINDOW_SECONDS:
            recent = steady - window.began < 2 * _WINDOW_SECONDS
            known.before, known.now = (window if recent else None), _Window(steady, difference, 1)
            return
        window.count += 1
        window.least = min(window.least, difference)

    def _has_room(self, broker: str) -> bool:
        """Forget servers that have not asked lately, and return whether the broker may have one more."""
        for key in [key for key, known in self._servers.items() if self._is_old(known)]:
            del self._servers[key]
        return sum(name == broker for name, _ in self._servers) < _MAX_SERVERS

    def _is_old(self, server: _Server) -> bool:
        return self._steady - server.now.began >= 2 * _WINDOW_SECONDS

    def measured(self, steady: float | None = None) -> dict[str, float]:
        """Return by ``broker/server`` how many seconds our clock is ahead of that server's; negative if behind.

        Args:
            steady: now; servers that have not asked lately are left out.
        """
        if steady is not None:
            self._steady = max(self._steady, steady)
        return {
            f"{broker}/{printable(server)}": round(_skew(known), 3)
            for (broker, server), known in self._servers.items()
            if not self._is_old(known)
        }

    def of(self, broker: str, server: str) -> float:
        """Return the skew of one server; 0 if it is not known."""
        known = self._servers.get((broker, server[:64]))
        return 0.0 if known is None or self._is_old(known) else round(_skew(known), 3)


def _skew(server: _Server) -> float:
    """The smallest of n numbers between 0 and 1 is expected to be 1/(n+1): so much of the second is taken off."""
    windows = [server.now] if server.before is None else [server.now, server.before]
    least, count = min(window.least for window in windows), sum(window.count for window in windows)
    # With few requests the second is not known to be over: what lies within it is no skew.
    return least if least < 0 else max(0.0, least - 1.0) if count < 4 else max(0.0, least - 1 / (count + 1))


def notable(skew: float) -> float:
    """Return a skew that explains something, else 0, which records leave out."""
    return skew if abs(skew) >= WARNING_SECONDS else 0.0


def told(skew: float, server: str) -> str:
    """Return the skew in words."""
    return f"this host's clock is {abs(skew):.1f} s {'ahead of' if skew > 0 else 'behind'} that of server {server}"
