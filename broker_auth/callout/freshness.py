"""How old a request is when it arrives, and whether it is the clocks that make it look so.

A process that was stopped, or cut off, reads requests that waited for it: those arrived just now, by its own
clock, and nobody waits for an answer to them. What proves a request young is that the broker has answered a
PING of ours lately: its answers and the requests come in one order. Where that proof is missing, the
request's ``iat`` tells, less what such a difference was while there was proof.
"""

from __future__ import annotations

from collections import deque
from enum import StrEnum
from typing import Final

FRESH_SECONDS: Final = 1.5  # how old a request may be on arrival; PINGs are sent twice in this time and more
_SAMPLES: Final = 32
_TOLERANCE_SECONDS: Final = 0.5  # `iat` is in whole seconds: a request of this second is 0 to 1 s old by it


class Age(StrEnum):
    """What is to be thought of a request on arrival."""

    YOUNG = "young"
    STALE = "stale"  # it waited for us
    EXPIRED = "expired"  # it did not wait and has expired all the same: our clock and the broker's disagree


class Freshness:
    """Judges the requests of one broker.

    Attributes:
        proven: seconds, on the steady clock, of the last PING that was answered.
    """

    def __init__(self) -> None:
        self.proven = float("-inf")
        self._samples: deque[float] = deque(maxlen=_SAMPLES)

    def judge(self, issued: int, expires: int, wall: float, steady: float) -> Age:
        """Judge a request that arrives now; ``issued`` and ``expires`` are its own, in Unix seconds.

        Args:
            issued: its ``iat``.
            expires: its ``exp``.
            wall: Unix seconds.
            steady: seconds of a clock that nobody sets. Only differences to ``issued`` are used.
        """
        difference = steady - issued
        if steady - self.proven > FRESH_SECONDS:
            if self._samples and difference - min(self._samples) <= _TOLERANCE_SECONDS and expires > wall:
                return Age.YOUNG
            return Age.STALE
        self._samples.append(difference)
        return Age.EXPIRED if expires <= wall else Age.YOUNG
