"""What the demo shows for one thing it tried."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

TLS_REFUSED: Final = "refused at TLS"


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """One row of the demo: what was tried, what should happen, what did."""

    what: str
    expected: str
    happened: str

    @property
    def as_expected(self) -> bool:
        """Whether it did what it should."""
        return self.expected == self.happened
