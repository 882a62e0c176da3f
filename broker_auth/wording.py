"""Counts, ages and keys in the words of people: ``3 nodes``, ``5 minutes ago``, ``UDXU4RCS…2YZ4``."""

from __future__ import annotations

import re
from datetime import datetime
from typing import Final

_UNITS: Final = (("year", 365 * 86_400), ("day", 86_400), ("hour", 3600), ("minute", 60), ("second", 1))
_NKEY: Final = re.compile(r"[UAXNCO][A-Z2-7]{55}")


def counted(number: int, one: str, several: str = "") -> str:
    """Return a number with its noun: ``1 error``, ``2 errors``, ``3 identities`` with ``several`` given."""
    return f"{number} {one if number == 1 else several or one + 's'}"


def long_duration(seconds: float) -> str:
    """Return a duration in its largest unit: ``3 days``, ``1 hour``, ``0 seconds``."""
    whole = int(abs(seconds))
    for unit, size in _UNITS:
        if whole >= size:
            return counted(whole // size, unit)
    return "0 seconds"


def ago(moment: datetime, now: datetime) -> str:
    """Return how long ago a time was, or in how long it will be: ``3 days ago``, ``in 5 minutes``, ``just now``."""
    seconds = (now - moment).total_seconds()
    if abs(seconds) < 1:
        return "just now"
    return f"{long_duration(seconds)} ago" if seconds > 0 else f"in {long_duration(seconds)}"


def short_key(text: str) -> str:
    """Return an nkey shortened to its first and last characters; other text unchanged."""
    return f"{text[:8]}…{text[-4:]}" if _NKEY.fullmatch(text) else text
