"""Expiry of the chain issuers in use, for metrics and the log: afterwards all tokens that they issued are denied."""

from __future__ import annotations

import logging
from typing import Final

from broker_auth.cache import BoundedCache
from broker_auth.tokens.chain import ChainIssuer
from broker_auth.tokens.show import moment

MAX_ISSUERS: Final = 64  # label values of the metric; chain issuers need the organization's signature
IN_USE_SECONDS: Final = 7 * 86_400.0  # a chain issuer whose tokens were not presented for this long is ignored
_REPEAT_SECONDS: Final = 86_400.0  # between warnings about one issuer

Ends = dict[str, tuple[float, float]]
"""When a chain issuer was last seen and when it ends (Unix seconds), by its id."""

_log = logging.getLogger(__name__)


class ChainIssuers:
    """The chain issuers whose tokens a process saw most recently, at most :data:`MAX_ISSUERS`."""

    __slots__ = ("_warned", "ends")

    def __init__(self) -> None:
        self.ends: Ends = {}
        self._warned: BoundedCache[str, float] = BoundedCache(MAX_ISSUERS)

    def observe(self, issuer: ChainIssuer, now: float) -> None:
        """Record the issuer of a presented token; log a warning if it ends soon."""
        self.ends[issuer.id] = now, issuer.ends
        if len(self.ends) > MAX_ISSUERS:
            del self.ends[min(self.ends, key=self.ends.__getitem__)]
        if issuer.ends_soon(now) and now - (self._warned.get(issuer.id) or 0.0) >= _REPEAT_SECONDS:
            self._warned.put(issuer.id, now)
            _log.warning("%s", warning(issuer.id, issuer.ends, now))


def merge(one: Ends, other: Ends) -> Ends:
    """Return both, with the latest entry of each issuer, at most :data:`MAX_ISSUERS`."""
    newest = dict(sorted([*one.items(), *other.items()], key=lambda item: item[1]))
    kept = sorted(newest.items(), key=lambda item: item[1], reverse=True)[:MAX_ISSUERS]
    return dict(kept)


def warning(issuer: str, ends: float, now: float) -> str:
    """Return a line that tells when a chain issuer ends and what to do."""
    verb = "was accepted until" if ends <= now else "is accepted until"
    return (
        f"chain issuer {issuer} {verb} {moment(ends, now)}; all tokens that it issued are denied from then on; "
        "renew it and have it issue new tokens"
    )
