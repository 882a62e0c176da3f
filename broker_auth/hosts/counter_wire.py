"""The messages between workers and the counter of their host: JSON lines on a Unix socket, answers in any order.

Internal: both ends are of one version.
"""

from __future__ import annotations

from typing import Annotated, Final

import msgspec

from broker_auth.policy.counting import Counted

MAX_LINE: Final = 20 * 1024  # bytes; a token has 16 KiB at most

_Id = Annotated[int, msgspec.Meta(ge=0, lt=2**53)]


class CountRequest(msgspec.Struct, forbid_unknown_fields=True):
    """A request to count a node of a token.

    Attributes:
        id: chosen by the worker; the answer has the same.
        token: the whole token, which the counter verifies.
        node: the name of the node.
    """

    id: _Id
    token: str
    node: str

    def __repr__(self) -> str:
        """Return a text without the token, which admits whoever has it."""
        return f"CountRequest({self.id})"


class CountAnswer(msgspec.Struct, forbid_unknown_fields=True):
    """The answer to a request."""

    id: _Id
    counted: Counted
