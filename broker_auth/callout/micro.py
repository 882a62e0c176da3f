"""The NATS micro protocol, so that ``nats service ls|info|stats`` shows every worker (NATS ADR-32).

Sending requests needs another user of the callout account, which the rendered configuration does not contain: an
operator has to add one, or use the metrics.
"""

from __future__ import annotations

import secrets
from datetime import UTC, datetime
from typing import Any, Final

import msgspec

from broker_auth import __version__
from broker_auth.callout.stats import Snapshot

NAME: Final = "broker-auth"
DESCRIPTION: Final = "Decides nats-server's connections by Choria's rules"
_PREFIX: Final = "$SRV"
_VERBS: Final = ("PING", "INFO", "STATS")
_TYPE: Final = "io.nats.micro.v1"


class MicroService:
    """A worker as a micro service instance with the single endpoint ``auth``."""

    def __init__(self, subject: str, queue: str, instance: str | None = None) -> None:
        self.id = instance or secrets.token_hex(8)
        self._endpoint = {"name": "auth", "subject": subject, "queue_group": queue}
        self._started = datetime.now(UTC).isoformat().replace("+00:00", "Z")

    @property
    def subjects(self) -> tuple[str, ...]:
        """The subjects to subscribe to, without a queue group, because every instance answers."""
        named = (f"{_PREFIX}.{verb}{rest}" for verb in _VERBS for rest in ("", f".{NAME}", f".{NAME}.{self.id}"))
        return tuple(named)

    def answer(self, subject: str, counted: Snapshot) -> bytes | None:
        """Return the answer to a request on ``subject``; None for other subjects."""
        verb = subject.split(".")[1] if subject in self.subjects else ""
        match verb:
            case "PING":
                return self._encoded("ping_response")
            case "INFO":
                return self._encoded("info_response", description=DESCRIPTION, endpoints=[self._endpoint])
            case "STATS":
                return self._encoded("stats_response", started=self._started, endpoints=[self._stats(counted)])
            case _:
                return None

    def _encoded(self, kind: str, **more: Any) -> bytes:
        own = {"type": f"{_TYPE}.{kind}", "name": NAME, "id": self.id, "version": __version__, "metadata": {}}
        return msgspec.json.encode(own | more)

    def _stats(self, counted: Snapshot) -> dict[str, Any]:
        """Return the statistics, with times in nanoseconds; errors are messages that got no answer."""
        requests = sum(counted.latency)
        spent = int(counted.latency_sum * 1e9)
        errors = sum(counted.unanswered.values()) + counted.reply_failures
        return self._endpoint | {
            "num_requests": requests + sum(counted.unanswered.values()),
            "num_errors": errors,
            "last_error": "",
            "processing_time": spent,
            "average_processing_time": spent // requests if requests else 0,
        }
