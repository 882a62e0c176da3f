"""Requests to nats-server's system services, and the JSON objects of their answers."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from nats.aio.client import Client
from nats.errors import Error as NatsError

from broker_auth.errors import OperationError
from broker_auth.printable import printable


async def request_json(client: Client, subject: str, payload: object = None, *, seconds: float = 5.0) -> dict[str, Any]:
    """Send a request to nats-server, and return the decoded answer.

    Raises:
        OperationError: no answer came in time, or it is not a JSON object.
    """
    data = b"" if payload is None else json.dumps(payload).encode()
    try:
        reply = await client.request(subject, data, timeout=seconds)
    except (NatsError, TimeoutError) as error:
        raise OperationError(f"{subject}: no answer: {str(error) or type(error).__name__}") from error
    return decode(reply.data, subject)


def part(answer: Mapping[str, Any], name: str) -> dict[str, Any]:
    """Return an object inside an answer; empty if it is missing or not an object."""
    value = answer.get(name)
    return value if isinstance(value, dict) else {}


def refusal(answer: Mapping[str, Any]) -> str | None:
    """Return why a server refused to answer, None if it did not."""
    if not answer.get("error"):
        return None
    description = part(answer, "error").get("description")
    return printable(description, 256) if isinstance(description, str) else "refused"


def decode(data: bytes, subject: str) -> dict[str, Any]:
    """Decode a JSON object of nats-server.

    Raises:
        OperationError: it is not a JSON object.
    """
    try:
        value = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise OperationError(f"{subject}: the answer is not JSON") from error
    if not isinstance(value, dict):
        raise OperationError(f"{subject}: the answer is not a JSON object")
    return value
