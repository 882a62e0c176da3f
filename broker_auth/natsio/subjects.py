"""Subjects, queue groups and the account used between this service's processes and nats-server.

They are part of the wire (docs/interface.md#the-wire): nats-server's configuration is rendered from the same constants.
"""

from __future__ import annotations

from typing import Final

AUTH_REQUEST_SUBJECT: Final = "$SYS.REQ.USER.AUTH"
AUTH_QUEUE: Final = "broker-auth"
COPY_QUEUE: Final = "broker-auth.copy"  # plus a token: each worker that receives copies of requests has its own group
PEERS_SUBJECT: Final = "broker-auth.peers"  # between workers, which may be connected to different servers of a cluster
AUTH_ERROR_SUBJECT: Final = "$SYS.ACCOUNT.CLIENT.AUTH.ERR"  # refused connections (docs/nats-server.md fact 13)
CALLOUT_ACCOUNT: Final = "AUTH"  # reserved for the service (docs/nats-server.md fact 4)
READER_API: Final = "broker-auth.js."  # in a reader's account, in place of JetStream's own prefix
BUCKET_INBOX: Final = "broker-auth.inbox"  # prefix of the inboxes of the service's user, for its buckets


def reader_account(zone: str) -> str:
    """Return the account of a zone's reader, which has no other user (docs/zones.md#readers)."""
    return f"{CALLOUT_ACCOUNT}-READER-{zone}"
