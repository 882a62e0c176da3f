"""What nats-server tells of connections it refused: ``$SYS.ACCOUNT.CLIENT.AUTH.ERR`` (NATS_FACTS 13)."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Final

import msgspec

from broker_auth.observe.audit import ServerErrorRecord
from broker_auth.observe.redact import SHOWN

SUBJECT: Final = "$SYS.ACCOUNT.CLIENT.AUTH.ERR"


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


def read_advisory(data: bytes) -> ServerErrorRecord | None:
    """The record of one advisory; None if this is none."""
    try:
        advisory = _decoder.decode(data)
    except (ValueError, RecursionError):
        return None
    client, server = advisory.client, advisory.server
    return ServerErrorRecord(
        time=advisory.timestamp.astimezone(UTC),
        reason=advisory.reason[:SHOWN],
        name=client.name[:SHOWN],
        user=client.user[:SHOWN],
        host=client.host[:SHOWN],
        kind=client.kind[:SHOWN],
        type=client.client_type[:SHOWN],
        cid=client.id,
        server=server.name,
        server_id=server.id,
        cluster=server.cluster,
    )
