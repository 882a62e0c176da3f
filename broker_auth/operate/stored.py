"""Reads stored authorization requests: from audit records, or alone (docs/policy.md#what-is-kept-of-a-decision)."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

import msgspec

from broker_auth.audit.record import AuditRecord
from broker_auth.audit.redact import PASSWORD, TOKEN_SIGNATURE, UNREADABLE
from broker_auth.errors import InputError
from broker_auth.policy.decision import NO_EVIDENCE, Evidence
from broker_auth.policy.request import AuthorizationRequest
from broker_auth.times import MAX_TIME
from broker_auth.tokens.jws import show

MAX_BYTES: Final = 1024 * 1024  # twice the maximum on the wire, for indentation and the rest of the record
NONCE: Final = "nonce"  # what a request lacks that was made of a token in a file
_REDACTABLE: Final = frozenset({PASSWORD, TOKEN_SIGNATURE})


@dataclass(frozen=True, slots=True, kw_only=True)
class Stored:
    """A stored request.

    Attributes:
        redacted: names of the parts that were removed.
        time: when it was decided (Unix seconds), if recorded.
        recorded: the recorded decision and code.
        zone: the zone that decided; empty if not recorded.
        rule: the rule that decided; empty if not recorded.
        signed: whether it was admitted by a token that was verified.
        evidence: the recorded results of the checks that the request cannot repeat.
    """

    request: AuthorizationRequest
    redacted: frozenset[str] = frozenset()
    time: float | None = None
    recorded: tuple[str, str] | None = None
    zone: str = ""
    rule: str = ""
    signed: bool = False
    evidence: Evidence = NO_EVIDENCE

    @property
    def was_admitted(self) -> bool:
        """Whether the record says that it was admitted."""
        return self.recorded is not None and self.recorded[0] == "admit"

    @property
    def incomplete(self) -> tuple[str, ...]:
        """Parts of the request that were too large to be stored."""
        tls, missing = self.request.client_tls, []
        if self.request.connect_opts.auth_token == UNREADABLE:
            missing.append("token")
        if tls is not None and tls.verified_chains == ((UNREADABLE,),):
            missing.append("certificates")
        return tuple(missing)


def read_stored(data: bytes) -> Stored:
    """Read the request in an audit record, in decoded request claims, or alone (a ``nats`` object).

    Raises:
        InputError: ``data`` has another format.
    """
    if len(data) > MAX_BYTES:
        raise InputError(f"the request is larger than {MAX_BYTES} bytes")
    try:
        value = msgspec.json.decode(data)
    except (msgspec.DecodeError, RecursionError, ValueError) as error:
        raise InputError("the request is not one JSON document; give one audit record or one request") from error
    if not isinstance(value, dict):
        raise InputError("the request is not a JSON object")
    if value.get("event") == "server_error":
        raise InputError(
            "this is nats-server's report of a refused connection, not a decision; give the record with "
            '"event":"decision" of the same connection (`broker-auth why` finds both)'
        )
    if "redacted" in value or "decision" in value or "request" in value:
        return _record(value)
    return Stored(request=_request(value))


def stored_of(record: AuditRecord) -> Stored | None:
    """Return the request of an audit record; None if it cannot be decided again."""
    if record.request is None or not _REDACTABLE.issuperset(record.redacted):
        return None
    return Stored(
        request=record.request,
        redacted=frozenset(record.redacted),
        time=record.time.timestamp(),
        recorded=(record.decision, record.code),
        zone=record.zone,
        rule=record.rule,
        signed=bool(record.signer),
        evidence=record.evidence or NO_EVIDENCE,
    )


class _Record(msgspec.Struct):
    """The parts of an audit record that explaining needs; see :class:`broker_auth.audit.record.AuditRecord`."""

    request: dict[str, Any] | None = None
    redacted: tuple[str, ...] = ()
    time: datetime | float | None = None
    decision: str = ""
    code: str = ""
    zone: str = ""
    rule: str = ""
    signer: str = ""
    evidence: Evidence = NO_EVIDENCE


def _record(value: dict[str, Any]) -> Stored:
    try:
        record = msgspec.convert(value, _Record)
    except msgspec.ValidationError as error:
        raise InputError(f"the audit record cannot be read: {error}") from error
    if record.request is None:
        raise InputError(
            "the audit record does not contain its request; set plugin.broker_auth.audit.requests to store requests"
        )
    unknown = [what for what in record.redacted if what not in _REDACTABLE]
    if unknown:
        raise InputError(
            f"the audit record has an unknown redaction, {show(unknown[0])}; use the version that the service runs"
        )
    return Stored(
        request=_request(record.request),
        redacted=frozenset(record.redacted),
        time=_seconds(record.time),
        recorded=(record.decision, record.code) if record.decision else None,
        zone=record.zone,
        rule=record.rule,
        signed=bool(record.signer),
        evidence=record.evidence,
    )


def _seconds(time: datetime | float | None) -> float | None:
    if isinstance(time, datetime):
        if time.tzinfo is None:
            raise InputError("the audit record's time has no time zone; give the record as it was written")
        return time.timestamp()
    if time is not None and not 0 <= time <= MAX_TIME:
        raise InputError("the audit record's time is not a valid time; give the record as it was written")
    return time


def _request(value: dict[str, Any]) -> AuthorizationRequest:
    if isinstance(value.get("nats"), dict):  # the whole claims, as they are on the wire
        value = value["nats"]
    try:
        return msgspec.convert(value, AuthorizationRequest)
    except msgspec.ValidationError as error:
        raise InputError(f"not an authorization request: {error}") from error
