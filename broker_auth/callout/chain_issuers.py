"""When the chain issuers in use end: for metrics and the log, because everybody below one is denied from then on."""

from __future__ import annotations

import logging
from typing import Final

from broker_auth.cache import BoundedCache
from broker_auth.tokens.chain import ChainIssuer
from broker_auth.tokens.show import moment

MAX_ISSUERS: Final = 64  # label values of the metric; a chain issuer needs the organization's own signature
IN_USE_SECONDS: Final = 7 * 86_400.0  # after nobody presented its token for so long, a chain issuer is not warned of
_REPEAT_SECONDS: Final = 86_400.0  # between two warnings about one issuer

Ends = dict[str, tuple[float, float]]
"""Chain issuer's id to when it was last seen and when it ends (Unix seconds)."""

_log = logging.getLogger(__name__)


class ChainIssuers:
    """The chain issuers whose tokens one process saw last, at most :data:`MAX_ISSUERS`."""

    __slots__ = ("_warned", "ends")

    def __init__(self) -> None:
        self.ends: Ends = {}
        self._warned: BoundedCache[str, float] = BoundedCache(MAX_ISSUERS)

    def seen(self, issuer: ChainIssuer, now: float) -> None:
        """Remember the issuer of a token that was just presented; warn in the log if it ends soon."""
        self.ends[issuer.id] = now, issuer.ends
        if len(self.ends) > MAX_ISSUERS:
            del self.ends[min(self.ends, key=self.ends.__getitem__)]
        if issuer.ends_soon(now) and now - (self._warned.get(issuer.id) or 0.0) >= _REPEAT_SECONDS:
            self._warned.put(issuer.id, now)
            _log.warning("%s", warning(issuer.id, issuer.ends, now))


def together(one: Ends, other: Ends) -> Ends:
    """Return both, of each issuer what was seen last, at most :data:`MAX_ISSUERS`."""
    newest = dict(sorted([*one.items(), *other.items()], key=lambda item: item[1]))
    kept = sorted(newest.items(), key=lambda item: item[1], reverse=True)[:MAX_ISSUERS]
    return dict(kept)


def warning(issuer: str, ends: float, now: float) -> str:
    """Return one line that says when a chain issuer ends and what to do."""
    verb = "was accepted until" if ends <= now else "is accepted until"
    return (
        f"chain issuer {issuer} {verb} {moment(ends, now)}; everybody whose token it issued is denied from then on; "
        "renew it and have it issue new tokens"
    )
