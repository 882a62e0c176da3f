"""Subjects, queue groups and the account that this service shares with nats-server and its own processes.

They are part of the wire (docs/interface.md#the-wire): nats-server's configuration is rendered from the same constants.
"""

from __future__ import annotations

from typing import Final

AUTH_REQUEST_SUBJECT: Final = "$SYS.REQ.USER.AUTH"
AUTH_QUEUE: Final = "broker-auth"
COPY_QUEUE: Final = "broker-auth.copy"  # and a token: each worker that wants copies of requests is alone in a group
PEERS_SUBJECT: Final = "broker-auth.peers"  # between workers, which may be connected to different servers of a cluster
AUTH_ERROR_SUBJECT: Final = "$SYS.ACCOUNT.CLIENT.AUTH.ERR"  # refused connections (docs/nats-server.md fact 13)
CALLOUT_ACCOUNT: Final = "AUTH"  # holds the service and nobody else (docs/nats-server.md fact 4)
