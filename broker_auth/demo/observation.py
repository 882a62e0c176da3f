"""An observation of the demo: expected and actual outcome of one step."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

TLS_REFUSED: Final = "refused at TLS"
SERVER_REFUSED: Final = "refused by nats-server"  # without a decision of this service


@dataclass(frozen=True, slots=True, kw_only=True)
class Observation:
    """A row of the demo: the step, its expected and its actual outcome.

    Attributes:
        example: whether a screen that has no room for all rows shows this one.
    """

    what: str
    expected: str
    happened: str
    example: bool = True

    @property
    def as_expected(self) -> bool:
        """Whether the outcome is the expected one."""
        return self.expected == self.happened
