"""The question of a decision how many nodes have waited by a token (docs/policy.md#tokens-for-a-number-of-nodes).

The decision asks nobody: it is made without the count first, and again with it.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum


class Counted(StrEnum):
    """The count of a node for its token: one of those that may wait, one too many, or not known."""

    YES = "counted"
    USED_UP = "used_up"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeClaim:
    """A node that would be admitted if it is counted for its token.

    Attributes:
        token: the whole token, which admits whoever has it: not to be logged. Without white space around it, whose
            length would be the thief's choice.
        node: the connection's name, which can be a node's.
    """

    token: str = field(repr=False)
    node: str

    @property
    def signed(self) -> str:
        """The part of the token that was signed, which a thief cannot write in another way."""
        return self.token.rpartition(".")[0]
