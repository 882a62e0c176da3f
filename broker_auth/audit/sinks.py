"""Destinations of audit records: several sinks at once, one of which may be the log."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Protocol

from broker_auth.audit.record import AuditRecord, Record, encode
from broker_auth.logs.limit import LogLimit

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
    """A sink that writes to the log: admissions at info level, denials at warning level."""

    lost = 0
    trouble = ""

    def write(self, *records: Record) -> None:
        """Log one line for each record."""
        for record in records:
            admitted = isinstance(record, AuditRecord) and record.decision == "admit"
            level = logging.INFO if admitted else logging.WARNING
            if _log.isEnabledFor(level):
                _log.log(level, "%s", encode(record).decode().rstrip("\n"))

    def reopen(self) -> None:
        """Do nothing: rotating stderr is up to the parent process."""

    def close(self) -> None:
        """Do nothing: nothing is buffered."""


class DenialLog:
    """A rate-limited log of denials and their count, for records that are not written to the log."""

    lost = 0
    trouble = ""

    def __init__(self) -> None:
        self._limit = LogLimit(burst=5)

    def write(self, *records: Record) -> None:
        """Log a line for a denial, unless several were logged recently."""
        for record in records:
            if isinstance(record, AuditRecord) and record.decision == "deny" and self._limit.due():
                _log.warning(
                    "denied %s from %s: %s (%d so far)",
                    record.name or "an unnamed connection",
                    record.host,
                    record.code,
                    self._limit.count,
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
