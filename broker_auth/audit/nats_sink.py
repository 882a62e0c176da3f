"""Audit records as messages: published through a broker, without the hot path waiting for it."""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Awaitable, Callable
from typing import Final

from broker_auth.audit.record import Record, encode
from broker_auth.logs.limit import LogLimit

MAX_WAITING: Final = 10_000  # records; about 6 MB
DRAIN_SECONDS: Final = 2.0
_RETRY_SECONDS: Final = 1.0
_TOGETHER: Final = 32
_log = logging.getLogger(__name__)

Publish = Callable[[str, bytes], Awaitable[None]]


class NatsAudit:
    """Holds records until the broker takes them; beyond :data:`MAX_WAITING` the oldest are lost, and counted.

    A broker's outage costs no decision: those of other brokers go on, and their records wait here.
    """

    def __init__(self, subject: str) -> None:
        self.lost = 0
        self.trouble = ""
        self._subject = subject
        self._limit = LogLimit()
        self._waiting: deque[bytes] = deque()
        self._news = asyncio.Event()
        self._empty = asyncio.Event()
        self._empty.set()

    def write(self, *records: Record) -> None:
        """Keep them to be published."""
        for record in records:
            if len(self._waiting) >= MAX_WAITING:
                self._waiting.popleft()
                self.lost += 1
                self.trouble = f"the broker takes none on {self._subject}"
                if self._limit.due():
                    _log.error("audit records cannot be published on %s (%d lost so far)", self._subject, self.lost)
            self._waiting.append(encode(record).rstrip())
        self._empty.clear()
        self._news.set()

    async def pump(self, publish: Publish) -> None:
        """Publish what waits, for ever; ``publish`` raises while the broker is away."""
        published = 0
        while True:
            await self._news.wait()
            self._news.clear()
            while self._waiting:
                try:
                    await publish(self._subject, self._waiting[0])
                except Exception as error:  # whatever it is, decisions go on and the record waits
                    _log.debug("audit record not published yet: %s", error)
                    await asyncio.sleep(_RETRY_SECONDS)
                else:
                    self._waiting.popleft()
                    published += 1
                    if published % _TOGETHER == 0:
                        await asyncio.sleep(0)  # answers go first
            self._empty.set()
            self.trouble = ""

    async def drain(self) -> None:
        """Return when everything is published, or when that takes too long."""
        try:
            async with asyncio.timeout(DRAIN_SECONDS):
                await self._empty.wait()
        except TimeoutError:
            self.lost += len(self._waiting)
            _log.error("audit records not published on %s: %d", self._subject, len(self._waiting))

    def reopen(self) -> None:
        """There is no file."""

    def close(self) -> None:
        """:meth:`drain` did what can be done."""
