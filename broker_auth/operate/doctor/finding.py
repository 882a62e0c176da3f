"""What the doctor says: one finding for one thing it looked at."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import StrEnum

from broker_auth.operate.access import Access
from broker_auth.secret import Secret
from broker_auth.settings.model import BrokerSettings, Settings


class Severity(StrEnum):
    """How bad it is. Only errors make the doctor's exit status 1."""

    OK = "ok"
    SKIPPED = "skipped"  # not looked at, and what it takes to look
    WARNING = "warning"
    ERROR = "error"


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One thing looked at.

    Attributes:
        code: fixed name of what was looked at or found; tests and monitoring compare it.
        broker: the configured broker, None for what concerns all.
        server: host and port, where a broker is a cluster of several.
        remedy: what to do; empty only where nothing is wrong.
    """

    severity: Severity
    code: str
    what: str
    remedy: str = ""
    broker: str | None = None
    server: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """What is examined, and with which means.

    Attributes:
        now: Unix seconds; a function, because answers of servers are compared with the moment they came.
        provisioning_token: to try a node's way in; None leaves that out.
    """

    access: Access
    now: Callable[[], float] = time.time
    provisioning_token: Secret | None = field(default=None, repr=False)

    @property
    def settings(self) -> Settings:
        """The configuration."""
        return self.access.settings


@dataclass(slots=True)
class Notes:
    """Collects the findings about one broker, or about all."""

    broker: BrokerSettings | None = None
    findings: list[Finding] = field(default_factory=list)

    def ok(self, code: str, what: str) -> None:
        """Looked at, nothing wrong."""
        self._add(Severity.OK, code, what, "")

    def skipped(self, code: str, what: str, remedy: str) -> None:
        """Not looked at; ``remedy`` is what it takes."""
        self._add(Severity.SKIPPED, code, what, remedy)

    def warning(self, code: str, what: str, remedy: str) -> None:
        """Works, but should not stay so."""
        self._add(Severity.WARNING, code, what, remedy)

    def error(self, code: str, what: str, remedy: str) -> None:
        """Broken, or open to somebody it should not be open to."""
        self._add(Severity.ERROR, code, what, remedy)

    def _add(self, severity: Severity, code: str, what: str, remedy: str) -> None:
        name = self.broker.name if self.broker else None
        self.findings.append(Finding(severity=severity, code=code, what=what, remedy=remedy, broker=name))
