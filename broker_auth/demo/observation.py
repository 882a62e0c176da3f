"""An observation of the demo: expected and actual outcome of one step."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

TLS_REFUSED: Final = "refused at TLS"
SERVER_REFUSED: Final = "refused by nats-server"  # without a decision of this service


@dataclass(frozen=True, slots=True, kw_only=True)
class Observation:
    """A row of the demo: the step, its expected and its actual outcome."""

    what: str
    expected: str
    happened: str

    @property
    def as_expected(self) -> bool:
        """Whether the outcome is the expected one."""
        return self.expected == self.happened
