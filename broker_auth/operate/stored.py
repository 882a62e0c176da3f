"""Reads stored authorization requests and decides them again (docs/policy.md#what-is-kept-of-a-decision).

A stored request may lack its password and its token's signature. The case and the verifier that skip
these checks are defined here; the service does not import this module.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

import msgspec

from broker_auth.audit.redact import PASSWORD, TOKEN_SIGNATURE
from broker_auth.audit.unsigned import with_placeholder
from broker_auth.errors import InputError
from broker_auth.policy.case import Case
from broker_auth.policy.decide import decide_case
from broker_auth.policy.decision import Decision, DenyCode
from broker_auth.policy.model import Policy
from broker_auth.policy.request import AuthorizationRequest
from broker_auth.secret import Secret
from broker_auth.times import MAX_TIME
from broker_auth.tokens.jws import Jws, show
from broker_auth.tokens.keys import VerificationKey
from broker_auth.tokens.verify import Rejected, TokenVerifier, Verified

MAX_BYTES: Final = 1024 * 1024  # twice the maximum on the wire, for indentation and the rest of the record
_REDACTABLE: Final = frozenset({PASSWORD, TOKEN_SIGNATURE})


@dataclass(frozen=True, slots=True, kw_only=True)
class Stored:
    """A stored request.

    Attributes:
        redacted: names of the parts that were removed.
        time: when it was decided (Unix seconds), if recorded.
        recorded: the recorded decision and code.
        zone: the zone that decided; empty if not recorded.
    """

    request: AuthorizationRequest
    redacted: frozenset[str] = frozenset()
    time: float | None = None
    recorded: tuple[str, str] | None = None
    zone: str = ""


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
    if "redacted" in value or "decision" in value or "request" in value:
        return _record(value)
    return Stored(request=_request(value))


def decide_stored(stored: Stored, policy: Policy, moment: float) -> tuple[Decision, StoredCase]:
    """Decide a stored request for ``moment`` (Unix seconds) by the rules that the service applies.

    Returns:
        The decision, and the case as it was decided: ``skipped`` names the checks whose input the record does not hold.
    """
    full = stored.recorded is not None and stored.recorded[1] == DenyCode.PROVISIONING_FULL
    case = StoredCase(stored.request, policy, moment, redacted=stored.redacted, full=full)
    return decide_case(case), case


class UnsignedTokenVerifier(TokenVerifier):
    """A token verifier that makes every check except that of the signature."""

    def examine(self, raw: str) -> Verified | Rejected:
        """Return the result for a token as if its signature were valid."""
        return super().examine(with_placeholder(raw))

    def _signer(self, jws: Jws, candidates: Sequence[VerificationKey]) -> VerificationKey:  # noqa: ARG002
        return candidates[0]


class StoredCase(Case, kw_only=True):
    """A case that skips the checks whose input was removed from its request.

    Attributes:
        redacted: names of the parts that were removed.
        full: whether it was denied because there were too many nodes, which cannot be checked again.
        skipped: the checks that were skipped.
    """

    redacted: frozenset[str]
    full: bool = False
    skipped: dict[str, None] = msgspec.field(default_factory=dict)

    def require_password(self, accepted: Iterable[Secret], code: DenyCode) -> None:
        """Check the password, if the record contains it."""
        if PASSWORD in self.redacted:
            self.skipped["password"] = None
        else:
            super().require_password(accepted, code)

    def examine_token(self) -> Verified | Rejected:
        """Examine the token, without its signature if that was removed."""
        if TOKEN_SIGNATURE not in self.redacted:
            return super().examine_token()
        self.skipped["token signature"] = None
        self.token = UnsignedTokenVerifier(self.policy.tokens.keys).examine(self.request.connect_opts.auth_token)
        return self.token

    def require_place(self) -> None:
        """Skip the check if it denied the request: the number of nodes is not recorded."""
        if self.full:
            self.skipped["number of connections"] = None


class _Record(msgspec.Struct):
    """The parts of an audit record that explaining needs; see :class:`broker_auth.audit.sinks.AuditRecord`."""

    request: dict[str, Any] | None = None
    redacted: tuple[str, ...] = ()
    time: datetime | float | None = None
    decision: str = ""
    code: str = ""
    zone: str = ""


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
