"""What nats-server publishes of the connections of an account (docs/nats-server.md fact 30)."""

from __future__ import annotations

from typing import Annotated, Final

import msgspec

MAX_BYTES: Final = 16 * 1024  # nats-server's own are 1 KB; what is larger is not looked at

_Name = Annotated[str, msgspec.Meta(min_length=1, max_length=256)]
_Number = Annotated[int, msgspec.Meta(ge=0, le=2**31)]


class ReportingServer(msgspec.Struct, frozen=True):
    """The server that reports: its id, and its name, which it keeps when it starts again."""

    id: _Name
    name: _Name


class ConnectionReport(msgspec.Struct, frozen=True):
    """The connections of an account at one server, links of leaf nodes included."""

    server: ReportingServer
    account: str = msgspec.field(name="acc")
    connections: _Number = msgspec.field(name="total_conns")


_decoder = msgspec.json.Decoder(ConnectionReport)


def connections_subject(account: str) -> str:
    """Return the subject on which each server of a system publishes the connections of an account."""
    return f"$SYS.ACCOUNT.{account}.SERVER.CONNS"


def read_report(data: bytes) -> ConnectionReport | None:
    """Return what a message reports; None if it is not a report."""
    if len(data) > MAX_BYTES:
        return None
    try:
        return _decoder.decode(data)
    except (ValueError, RecursionError):
        return None
