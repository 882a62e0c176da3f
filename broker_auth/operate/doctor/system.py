"""A single nats-server, queried in its system account."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from nats.aio.client import Client

from broker_auth.errors import OperationError
from broker_auth.operate.answers import part, refusal, request_json


@dataclass(frozen=True, slots=True)
class SystemServer:
    """One server in the system account: the client may be connected to another server of the cluster."""

    client: Client
    id: str

    async def data(self, what: str, options: object = None) -> dict[str, Any]:
        """Return the server's answer to a request such as ``CONNZ``.

        Raises:
            OperationError: it does not answer, or refuses.
        """
        # Addressed by its id: other servers of the cluster answer to PING too.
        answer = await request_json(self.client, f"$SYS.REQ.SERVER.{self.id}.{what}", options)
        if (message := refusal(answer)) is not None:
            raise OperationError(f"{what}: {message}")
        return part(answer, "data")
