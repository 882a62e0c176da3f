"""Publishes audit records through a broker without delaying the hot path."""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Awaitable, Callable
from typing import Final

from broker_auth.audit.record import Record, encode
from broker_auth.logs.limit import LogLimit

MAX_PENDING: Final = 10_000  # records; about 6 MB
DRAIN_SECONDS: Final = 2.0
_RETRY_SECONDS: Final = 1.0
_BATCH: Final = 32
_log = logging.getLogger(__name__)

Publish = Callable[[str, bytes], Awaitable[None]]


class NatsAudit:
    """A sink that publishes records, with a queue; beyond :data:`MAX_PENDING` it drops and counts the oldest.

    A broker outage delays no decision: requests of other brokers are still answered, and their records are queued here.
    """

    def __init__(self, subject: str) -> None:
        self.lost = 0
        self.trouble = ""
        self._subject = subject
        self._limit = LogLimit()
        self._pending: deque[bytes] = deque()
        self._arrived = asyncio.Event()
        self._empty = asyncio.Event()
        self._empty.set()

    def write(self, *records: Record) -> None:
        """Queue records for publication."""
        for record in records:
            if len(self._pending) >= MAX_PENDING:
                self._pending.popleft()
                self.lost += 1
                self.trouble = f"the broker accepts no messages on {self._subject}"
                if self._limit.due():
                    _log.error("audit records cannot be published on %s (%d lost so far)", self._subject, self.lost)
            self._pending.append(encode(record).rstrip())
        self._empty.clear()
        self._arrived.set()

    async def pump(self, publish: Publish) -> None:
        """Publish queued records until cancelled; ``publish`` raises while the broker is unreachable."""
        published = 0
        while True:
            await self._arrived.wait()
            self._arrived.clear()
            while self._pending:
                try:
                    await publish(self._subject, self._pending[0])
                except Exception as error:  # whatever the error: keep deciding, and retry the record
                    _log.debug("audit record not published yet: %s", error)
                    await asyncio.sleep(_RETRY_SECONDS)
                else:
                    self._pending.popleft()
                    published += 1
                    if published % _BATCH == 0:
                        await asyncio.sleep(0)  # let answers go first
            self._empty.set()
            self.trouble = ""

    async def drain(self, seconds: float = DRAIN_SECONDS) -> None:
        """Wait until every record is published, or until the deadline."""
        try:
            async with asyncio.timeout(seconds):
                await self._empty.wait()
        except TimeoutError:
            self.lost += len(self._pending)
            _log.error("audit records not published on %s: %d", self._subject, len(self._pending))

    def reopen(self) -> None:
        """Do nothing: there is no file."""

    def close(self) -> None:
        """Do nothing: :meth:`drain` has published what it could."""
