"""nats-server's reports about the connections of an account (docs/nats-server.md fact 30)."""

from __future__ import annotations

from typing import Annotated, Final

import msgspec

MAX_BYTES: Final = 16 * 1024  # nats-server's reports have 1 KB; larger messages are ignored

_Name = Annotated[str, msgspec.Meta(min_length=1, max_length=256)]
_Number = Annotated[int, msgspec.Meta(ge=0, le=2**31)]
_Total = Annotated[int, msgspec.Meta(ge=0, le=2**63 - 1)]


class ReportingServer(msgspec.Struct, frozen=True):
    """The reporting server: its id, and its name, which survives a restart."""

    id: _Name
    name: _Name


class _Messages(msgspec.Struct, frozen=True):
    msgs: _Total


class _Received(msgspec.Struct, frozen=True):
    leafs: _Messages | None = None


class ConnectionReport(msgspec.Struct, frozen=True):
    """The connections of an account at one server: all, and those of clients, which are not leaf nodes.

    ``received`` counts the messages that came over leaf links since the server started.
    """

    server: ReportingServer
    account: str = msgspec.field(name="acc")
    connections: _Number = msgspec.field(name="total_conns")
    clients: _Number = msgspec.field(name="conns", default=0)
    received: _Received = _Received()

    @property
    def by_leaf(self) -> int | None:
        """Messages received over leaf links since the server started; None if an older server does not count them."""
        return None if self.received.leafs is None else self.received.leafs.msgs


_decoder = msgspec.json.Decoder(ConnectionReport)


def connections_subject(account: str) -> str:
    """Return the subject on which each server of a system publishes the connections of an account."""
    return f"$SYS.ACCOUNT.{account}.SERVER.CONNS"


def read_report(data: bytes) -> ConnectionReport | None:
    """Parse a message; None if it is not a report."""
    if len(data) > MAX_BYTES:
        return None
    try:
        return _decoder.decode(data)
    except (ValueError, RecursionError):
        return None
