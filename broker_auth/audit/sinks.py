"""Destinations of audit records: several sinks at once, one of which may be the log."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from typing import Final, Protocol

from broker_auth.audit.record import AuditRecord, Record, encode
from broker_auth.logs.formats import data, document
from broker_auth.logs.limit import LogLimit

_BURST: Final = 20  # lines about denials at once, and then one a second: other lines must remain visible
_SECONDS: Final = 1.0
_log = logging.getLogger("broker_auth.audit")


class AuditSink(Protocol):
    """A destination of records, which must neither block nor raise.

    Attributes:
        lost: records that could not be kept.
        trouble: why records are currently being lost; empty if none are.
    """

    @property
    def lost(self) -> int: ...

    @property
    def trouble(self) -> str: ...

    def write(self, *records: Record) -> None:
        """Store the records."""

    def reopen(self) -> None:
        """Reopen files that log rotation may have moved."""

    def close(self) -> None:
        """Flush and close."""


class LogAudit:
    """A sink that writes whole records to the log, at info level: higher levels are for the service's own events."""

    lost = 0
    trouble = ""

    def write(self, *records: Record) -> None:
        """Log one line for each record."""
        if _log.isEnabledFor(logging.INFO):
            for record in records:
                line = encode(record).decode().rstrip("\n")
                _log.info("%s", line, extra=document(line))

    def reopen(self) -> None:
        """Do nothing: rotating stderr is up to the parent process."""

    def close(self) -> None:
        """Do nothing: nothing is buffered."""


class DenialLog:
    """A line for each denial, for records that are not written to the log; rate-limited, with a count of the rest."""

    lost = 0
    trouble = ""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        """Log nothing yet; ``clock`` returns seconds."""
        self._limit = LogLimit(_BURST, clock, seconds=_SECONDS)
        self._seen = 0

    def write(self, *records: Record) -> None:
        """Log a line for each denial, by this service or by nats-server, unless too many were logged recently."""
        for record in records:
            if isinstance(record, AuditRecord) and record.decision == "admit":
                continue
            if self._limit.due():
                omitted, self._seen = self._limit.count - self._seen - 1, self._limit.count
                self._log(record, f" ({omitted} more denials were not logged)" if omitted else "")

    def _log(self, record: Record, omitted: str) -> None:
        ours = isinstance(record, AuditRecord)
        code = record.code if isinstance(record, AuditRecord) else record.reason or "no answer in time"
        _log.info(
            "%s %s from %s at broker %s: %s%s",
            "denied" if ours else f"{record.server} refused",
            record.name or "an unnamed connection",
            record.host,
            record.broker,
            code,
            omitted,
            extra=data(name=record.name, host=record.host, broker=record.broker, code=code if ours else "server_error"),
        )

    def reopen(self) -> None:
        """Do nothing: there is no file."""

    def close(self) -> None:
        """Do nothing: nothing is buffered."""


class Audit:
    """A group of sinks that receive every record; a failing sink does not affect the others."""

    def __init__(self, sinks: Sequence[AuditSink]) -> None:
        self._sinks = tuple(sinks)

    @property
    def lost(self) -> int:
        """Records lost by any sink."""
        return sum(sink.lost for sink in self._sinks)

    @property
    def trouble(self) -> str:
        """Reason why records are currently being lost; empty if all are written."""
        return next((sink.trouble for sink in self._sinks if sink.trouble), "")

    def write(self, *records: Record) -> None:
        """Write records to every sink."""
        for sink in self._sinks:
            sink.write(*records)

    def reopen(self) -> None:
        """Reopen every sink."""
        for sink in self._sinks:
            sink.reopen()

    def close(self) -> None:
        """Close every sink."""
        for sink in self._sinks:
            sink.close()
