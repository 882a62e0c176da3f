"""The results of the doctor: a finding for each check."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path

from broker_auth.operate.access import Access
from broker_auth.operate.doctor.codes import FindingCode
from broker_auth.secret import Secret
from broker_auth.settings.model import BrokerSettings, Settings


class Severity(StrEnum):
    """Severity of a finding. Only errors make the doctor's exit status 1."""

    OK = "ok"
    SKIPPED = "skipped"  # not checked; the remedy says what the check needs
    WARNING = "warning"
    ERROR = "error"


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """The result of a check.

    Attributes:
        code: stable name of the result, for tests and monitoring.
        what: the result in words.
        broker: the configured broker, None if it concerns all.
        server: host and port of the server, or its name if it is at none of the configured addresses.
        remedy: what to do; empty only if nothing is wrong.
        file: the file at fault: other findings that name it have the same cause.
        ahead: by how many seconds the server's clock is ahead of ours, in a finding about clocks.
    """

    severity: Severity
    code: FindingCode
    what: str
    remedy: str = ""
    broker: str | None = None
    server: str | None = None
    file: Path | None = None
    ahead: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Context:
    """The subject of an examination, and the credentials for it.

    Attributes:
        now: returns Unix seconds; a function, because answers of servers are compared with their arrival time.
        provisioning_token: to check the login of a node; None skips that check.
    """

    access: Access
    now: Callable[[], float] = time.time
    provisioning_token: Secret | None = field(default=None, repr=False)

    @property
    def settings(self) -> Settings:
        """The configuration."""
        return self.access.settings


@dataclass(slots=True)
class BrokerFindings:
    """The findings about one broker, or about all."""

    broker: BrokerSettings | None = None
    items: list[Finding] = field(default_factory=list)

    def ok(self, code: FindingCode, what: str) -> None:
        """Add a check without a problem."""
        self._add(Severity.OK, code, what, "")

    def skipped(self, code: FindingCode, what: str, remedy: str) -> None:
        """Add a skipped check; ``remedy`` says what it needs."""
        self._add(Severity.SKIPPED, code, what, remedy)

    def warning(self, code: FindingCode, what: str, remedy: str) -> None:
        """Add something that works but should be changed."""
        self._add(Severity.WARNING, code, what, remedy)

    def error(self, code: FindingCode, what: str, remedy: str, file: Path | None = None) -> None:
        """Add something that is broken or insecure; ``file`` is the file at fault."""
        self._add(Severity.ERROR, code, what, remedy, file)

    def _add(self, severity: Severity, code: FindingCode, what: str, remedy: str, file: Path | None = None) -> None:
        name = self.broker.name if self.broker else None
        self.items.append(Finding(severity=severity, code=code, what=what, remedy=remedy, broker=name, file=file))
