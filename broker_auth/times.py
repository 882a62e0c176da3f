"""Times and durations as text: RFC 3339, nats-server's nanoseconds, readable durations."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Final

MAX_TIME: Final = 253_402_300_799  # 9999-12-31T23:59:59Z, the last time that can be formatted as a date
_UNITS: Final = (("y", 365 * 86_400), ("d", 86_400), ("h", 3600), ("m", 60), ("s", 1))


def rfc3339(time: float) -> str:
    """Return Unix seconds as RFC 3339 in UTC; with a fraction only if there is one."""
    moment = datetime.fromtimestamp(time, UTC)
    return moment.isoformat(timespec="microseconds" if moment.microsecond else "seconds").replace("+00:00", "Z")


def parse_server_time(text: str) -> datetime | None:
    """Return a time that nats-server wrote with nanoseconds; None if it is not a time."""
    seconds, _, fraction = text.removesuffix("Z").partition(".")
    try:
        return datetime.fromisoformat(f"{seconds}.{fraction[:6]:0<6}").replace(tzinfo=UTC)
    except ValueError:
        return None


def short_duration(seconds: float, separator: str = "") -> str:
    """Return a duration in its two largest units: ``3d4h``, ``5m10s``, ``7s``."""
    whole = max(0, int(seconds))
    parts = []
    for unit, size in _UNITS:
        if whole >= size:
            parts.append(f"{whole // size}{unit}")
            whole %= size
    return separator.join(parts[:2]) or "0s"
