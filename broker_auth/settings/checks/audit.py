"""Checks that audit outputs are consistent with each other and with the brokers."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from broker_auth.settings.keys import own
from broker_auth.settings.model import AuditKind, AuditOutput, Role
from broker_auth.settings.source import Source


def audit_outputs(source: Source, roles: Sequence[Role]) -> tuple[AuditOutput, ...]:
    """Return the outputs of audit records, without duplicates."""
    written = source.get(own.AUDIT_OUTPUT)
    outputs = tuple(dict.fromkeys(written))
    kinds = Counter(output.kind for output in outputs)
    for kind in (AuditKind.FILE, AuditKind.NATS):
        if kinds[kind] > 1:
            source.problem(own.AUDIT_OUTPUT, f"names {kinds[kind]} outputs of kind {kind}", "keep one of them")
    if kinds[AuditKind.NATS] and roles and all(role.is_outpost for role in roles):
        what = "publishes on a subject, but no broker has the role fleet, mixed or single"
        source.problem(own.AUDIT_OUTPUT, what, "choose another output, or name a fleet broker")
    return outputs
