"""The messages between workers and the counter of their host: JSON lines on a Unix socket, answers in any order.

Internal: both ends are of one version.
"""

from __future__ import annotations

import socket
import struct
import sys
from typing import Annotated, Final, NamedTuple

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


class SocketPeer(NamedTuple):
    """The process at the other end of a connection, or that listened there, and its user."""

    process: int
    user: int


_PEER: Final = struct.Struct("3i")  # of SO_PEERCRED: process, user and group


def peer_of(end: socket.socket) -> SocketPeer | None:
    """Return who is at the other end of a Unix socket; None where the system does not tell.

    Raises:
        OSError: it is not connected.
    """
    if sys.platform != "linux":
        return None
    return SocketPeer(*_PEER.unpack(end.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _PEER.size))[:2])
