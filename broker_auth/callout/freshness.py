"""The age of a request on arrival, and whether it only looks old because clocks differ.

A process that was suspended or disconnected reads requests that were queued for it: by its own clock they have just
arrived, but their clients no longer wait. A request is known to be young if the broker has answered a PING recently,
because answers and requests arrive in order. Without such a proof, the age is estimated from the request's ``iat``,
corrected by the clock difference measured while there was proof.
"""

from __future__ import annotations

from collections import deque
from enum import StrEnum
from typing import Final

FRESH_SECONDS: Final = 1.5  # maximum age of a request on arrival; PINGs are sent more than twice in this time
_SAMPLES: Final = 32
_TOLERANCE_SECONDS: Final = 0.5  # `iat` is in whole seconds, so a new request appears 0 to 1 s old


class Age(StrEnum):
    """The judgement about a request on arrival."""

    YOUNG = "young"
    STALE = "stale"  # it was queued for this process
    EXPIRED = "expired"  # it was not queued but has expired: our clock and the broker's differ


class Freshness:
    """The freshness check of one broker's requests.

    Attributes:
        proven: when the last answered PING was sent, in seconds on the monotonic clock.
    """

    def __init__(self) -> None:
        self.proven = float("-inf")
        self._samples: deque[float] = deque(maxlen=_SAMPLES)

    def judge(self, issued: int, expires: int, wall: float, steady: float) -> Age:
        """Judge a request that arrives now.

        Args:
            issued: its ``iat``, in Unix seconds.
            expires: its ``exp``, in Unix seconds.
            wall: the current time in Unix seconds.
            steady: the current time on a monotonic clock. Only differences to ``issued`` are used.
        """
        difference = steady - issued
        if steady - self.proven > FRESH_SECONDS:
            if self._samples and difference - min(self._samples) <= _TOLERANCE_SECONDS and expires > wall:
                return Age.YOUNG
            return Age.STALE
        self._samples.append(difference)
        return Age.EXPIRED if expires <= wall else Age.YOUNG
