"""The parsers of ``plugin.broker_auth.audit.output``, for one item, and ``plugin.broker_auth.audit.requests``."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final

from broker_auth.files.reading import BadValue
from broker_auth.settings.keys import values
from broker_auth.settings.model import AuditKind, AuditOutput, StoredRequests
from broker_auth.settings.problems import shown

_SUBJECT: Final = re.compile(r"[A-Za-z0-9_-]+(?:\.[A-Za-z0-9_-]+)*")
_MAX_SUBJECT: Final = 128
_FORMS: Final = "write log, stdout, file:PATH or nats:SUBJECT"


def audit_output(text: str, base: Path) -> AuditOutput:
    """Parse ``log``, ``stdout``, ``file:PATH`` or ``nats:SUBJECT``."""
    kind, separator, rest = text.partition(":")
    target = rest.strip()
    if kind in (AuditKind.LOG, AuditKind.STDOUT) and not separator:
        return AuditOutput(kind=AuditKind(kind))
    if kind == AuditKind.FILE and target:
        return AuditOutput(kind=AuditKind.FILE, path=values.path(target, base))
    if kind == AuditKind.NATS and target:
        return AuditOutput(kind=AuditKind.NATS, subject=_subject(target))
    raise BadValue(f"{shown(text)} is not an output for audit records", _FORMS)


def stored_requests(text: str, base: Path) -> StoredRequests:
    """Parse ``sample`` or a boolean."""
    if text.lower() == StoredRequests.SAMPLE:
        return StoredRequests.SAMPLE
    try:
        return StoredRequests.ALL if values.boolean(text, base) else StoredRequests.NONE
    except BadValue as error:
        raise BadValue(f"{shown(text)} is neither a boolean nor sample", "write true, false or sample") from error


def _subject(text: str) -> str:
    if len(text) > _MAX_SUBJECT or not _SUBJECT.fullmatch(text):
        raise BadValue(
            f"{shown(text)} is not a subject to publish on", "write names of letters, digits, _ and -, joined by dots"
        )
    return text
