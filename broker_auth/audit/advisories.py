"""nats-server's reports of refused connections: ``$SYS.ACCOUNT.CLIENT.AUTH.ERR`` (docs/nats-server.md fact 13)."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Final

import msgspec

from broker_auth.audit.record import ServerErrorRecord, bounded_int
from broker_auth.audit.redact import bounded

MAX_BYTES: Final = 64 * 1024  # larger advisories are ignored; nats-server's are about 2 KB
_OURS: Final = "Auth callout service returned an error: "  # our own denial, which already has a record
_SKEW: Final = timedelta(minutes=5)  # beyond this the broker's time is not trusted, and ours is used


class _AdvisoryServer(msgspec.Struct):
    name: str = ""
    id: str = ""
    cluster: str = ""


class _AdvisoryClient(msgspec.Struct):
    host: str = ""
    id: int = 0
    user: str = ""
    name: str = ""
    kind: str = ""
    client_type: str = ""


class _Advisory(msgspec.Struct):
    timestamp: datetime
    server: _AdvisoryServer
    client: _AdvisoryClient
    reason: str = ""


_decoder = msgspec.json.Decoder(_Advisory)


def read_advisory(data: bytes, now: datetime, *, zone: str = "", broker: str = "") -> ServerErrorRecord | None:
    """Return the record of one advisory, every field of bounded length; None if it adds nothing.

    Args:
        data: the message. Any client of the callout account could have sent it, for example a compromised edge.
        now: the time for the record if the advisory's own time is implausible.
        zone: the zone that received it.
        broker: the broker that it was received from.
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
