"""Messages between a node and its provisioner, each with a proof that the sender knows the device's secret.

Many devices share a provisioning token, which does not identify the device that presents it, and a stolen edge can read
and alter everything that passes through it (docs/security.md#an-edge). So the factory gives each device a secret, and
the provisioner a list of them. Both ends prove that they know it, and parse a message only after verifying its proof.
"""

from __future__ import annotations

import hmac
import json
import re
from typing import Any


class ProofError(Exception):
    """A message without the proof that its sender knows the device's secret."""


def read_secret(text: str) -> bytes:
    """Return a device's secret from its 64 hex characters.

    Raises:
        ValueError: the text is not 64 hex characters; the error does not quote it.
    """
    if not re.fullmatch(r"[0-9a-f]{64}", text.strip()):
        raise ValueError("a device's secret is 64 hex characters")
    return bytes.fromhex(text.strip())


def seal(secret: bytes, sender: str, message: dict[str, Any]) -> bytes:
    """Return a message with its proof.

    Args:
        secret: the device's secret, 32 bytes.
        sender: the role and the node's identity. It is part of the proof, so that no message can be sent back.
        message: a JSON object.
    """
    body = json.dumps(message).encode()
    return _proof(secret, sender, body) + b"\n" + body


def unseal(secret: bytes, sender: str, data: bytes) -> dict[str, Any]:
    """Verify the proof, then parse the message.

    Raises:
        ProofError: the proof is missing or wrong.
    """
    proof, _, body = data.partition(b"\n")
    if not hmac.compare_digest(proof, _proof(secret, sender, body)):
        raise ProofError("the other end does not know the device's secret")
    message: dict[str, Any] = json.loads(body)
    return message


def _proof(secret: bytes, sender: str, body: bytes) -> bytes:
    return hmac.new(secret, sender.encode() + b"\n" + body, "sha256").hexdigest().encode()
