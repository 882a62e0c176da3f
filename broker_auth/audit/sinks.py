"""Where audit records go: several sinks at once, and the log as one of them."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Protocol

from broker_auth.audit.record import AuditRecord, Record, encode
from broker_auth.logs.limit import LogLimit

_log = logging.getLogger("broker_auth.audit")


class AuditSink(Protocol):
    """Takes records; must neither block nor raise.

    Attributes:
        lost: records that could not be kept.
        trouble: why records are being lost just now; empty while they are kept.
    """

    @property
    def lost(self) -> int: ...

    @property
    def trouble(self) -> str: ...

    def write(self, *records: Record) -> None:
        """Keep the records."""

    def reopen(self) -> None:
        """Open anew what log rotation may have moved away."""

    def close(self) -> None:
        """Keep everything written so far for good."""


class LogAudit:
    """Writes records to the log: admissions at info level, denials at warning level."""

    lost = 0
    trouble = ""

    def write(self, *records: Record) -> None:
        """One log line each."""
        for record in records:
            admitted = isinstance(record, AuditRecord) and record.decision == "admit"
            level = logging.INFO if admitted else logging.WARNING
            if _log.isEnabledFor(level):
                _log.log(level, "%s", encode(record).decode().rstrip("\n"))

    def reopen(self) -> None:
        """Standard error is whoever started us's to rotate."""

    def close(self) -> None:
        """Nothing is held back."""


class DenialLog:
    """Says in the log that connections are denied, where the records themselves go elsewhere: some, with a count."""

    lost = 0
    trouble = ""

    def __init__(self) -> None:
        self._limit = LogLimit(burst=5)

    def write(self, *records: Record) -> None:
        """Log a line for a denial, unless several were logged just now."""
        for record in records:
            if isinstance(record, AuditRecord) and record.decision == "deny" and self._limit.due():
                _log.warning(
                    "denied %s from %s: %s (%d so far)",
                    record.name or "a nameless connection",
                    record.host,
                    record.code,
                    self._limit.count,
                )

    def reopen(self) -> None:
        """There is no file."""

    def close(self) -> None:
        """Nothing is held back."""


class Audit:
    """Writes every record to several sinks; one that fails does not keep it from the others."""

    def __init__(self, sinks: Sequence[AuditSink]) -> None:
        self._sinks = tuple(sinks)

    @property
    def lost(self) -> int:
        """Records that some sink could not keep."""
        return sum(sink.lost for sink in self._sinks)

    @property
    def trouble(self) -> str:
        """Why records are being lost just now; empty while all are kept."""
        return next((sink.trouble for sink in self._sinks if sink.trouble), "")

    def write(self, *records: Record) -> None:
        """Write them everywhere."""
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
