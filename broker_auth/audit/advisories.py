"""What nats-server tells of connections it refused: ``$SYS.ACCOUNT.CLIENT.AUTH.ERR`` (docs/nats-server.md fact 13)."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Final

import msgspec

from broker_auth.audit.record import ServerErrorRecord, bounded_int
from broker_auth.audit.redact import bounded

MAX_BYTES: Final = 64 * 1024  # nats-server's own are 2 KB; what is larger is not looked at
_OURS: Final = "Auth callout service returned an error: "  # a denial of ours, of which there is a record already
_SKEW: Final = timedelta(minutes=5)  # a time further off is the broker's invention: ours counts


class _Server(msgspec.Struct):
    name: str = ""
    id: str = ""
    cluster: str = ""


class _Client(msgspec.Struct):
    host: str = ""
    id: int = 0
    user: str = ""
    name: str = ""
    kind: str = ""
    client_type: str = ""


class _Advisory(msgspec.Struct):
    timestamp: datetime
    server: _Server
    client: _Client
    reason: str = ""


_decoder = msgspec.json.Decoder(_Advisory)


def read_advisory(data: bytes, now: datetime, *, zone: str = "", broker: str = "") -> ServerErrorRecord | None:
    """Return the record of one advisory, every field of bounded length; None if it says nothing new.

    Args:
        data: the message. Any client of the callout account can have made it, a stolen edge above all.
        now: the time of the record if the advisory's is not near it.
        zone: as in the record.
        broker: the broker whose connection it came by.
    """
    if len(data) > MAX_BYTES:
        return None
    try:
        advisory = _decoder.decode(data)
        time = advisory.timestamp.astimezone(UTC)
    except (ValueError, RecursionError, OverflowError, OSError):
        return None
    if advisory.reason.startswith(_OURS):
        return None
    client, server = advisory.client, advisory.server
    return ServerErrorRecord(
        time=time if abs(time - now) < _SKEW else now,
        reason=bounded(advisory.reason),
        name=bounded(client.name),
        user=bounded(client.user),
        host=bounded(client.host),
        kind=bounded(client.kind),
        type=bounded(client.client_type),
        cid=bounded_int(client.id),
        server=bounded(server.name),
        server_id=bounded(server.id),
        cluster=bounded(server.cluster),
        zone=zone,
        broker=broker,
    )
