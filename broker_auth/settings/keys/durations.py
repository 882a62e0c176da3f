"""Durations as Choria writes them: ``1h30m``, ``7d``, ``1y``, ``500ms``."""

from __future__ import annotations

import re
from typing import Final

from broker_auth.errors import InputError

_UNITS: Final = {
    "ns": 1e-9,
    "us": 1e-6,
    "µs": 1e-6,
    "μs": 1e-6,
    "ms": 1e-3,
    "s": 1.0,
    "m": 60.0,
    "h": 3600.0,
    "d": 86_400.0,
    "w": 7 * 86_400.0,
    "M": 30 * 86_400.0,
    "y": 365 * 86_400.0,
    "D": 86_400.0,
    "W": 7 * 86_400.0,
    "Y": 365 * 86_400.0,
}
_PART: Final = re.compile(r"([0-9]+(?:\.[0-9]+)?)(ns|us|µs|μs|ms|[smhdwMyDWY])")
_SECONDS: Final = re.compile(r"[0-9]+")

MAX_LENGTH: Final = 64
MAX_SECONDS: Final = 100 * 365 * 86_400.0  # beyond it, a date computed from "now" may be out of range

FORMS: Final = "write it like 30s, 1h30m, 7d, 2w or 1y"


def parse_duration(text: str) -> float:
    """Parse a duration into seconds: Go's units plus ``d``, ``w``, ``M`` (30 days) and ``y`` (365 days).

    A bare integer is seconds, as in Choria's configuration (go-choria ``confkey``).

    Raises:
        InputError: the text is not a duration, negative, or longer than a hundred years.
    """
    stripped = text.strip()
    if len(stripped) > MAX_LENGTH:
        raise InputError(f"not a duration (longer than {MAX_LENGTH} characters); {FORMS}")
    seconds = _seconds(stripped)
    if seconds is None:
        raise InputError(f"{stripped!r} is not a duration; {FORMS}")
    if seconds > MAX_SECONDS:
        raise InputError(f"{stripped!r} is longer than a hundred years; write a shorter duration")
    return seconds


def _seconds(text: str) -> float | None:
    if _SECONDS.fullmatch(text):
        return float(text)
    total, position = 0.0, 0
    while position < len(text):
        part = _PART.match(text, position)
        if part is None:
            return None
        total += float(part[1]) * _UNITS[part[2]]
        position = part.end()
    return total if text else None
