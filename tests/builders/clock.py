"""The time of all tests. The code under test does not read a clock."""

from __future__ import annotations

from typing import Final

NOW: Final = 1_800_000_000  # Unix seconds; 2027-01-15T08:00:00Z
HOUR: Final = 3600
DAY: Final = 24 * HOUR
YEAR: Final = 365 * DAY
