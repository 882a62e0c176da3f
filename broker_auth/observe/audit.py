"""One record per decision (POLICY "What is kept of a decision"). Never a secret, never a whole token.

Records are JSON lines; ``v`` is the version of their form. ``broker-auth explain`` and ``why`` read them.
"""

from __future__ import annotations

import logging
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import BinaryIO, Final, Literal, Protocol

import msgspec

from broker_auth.errors import OperationError
from broker_auth.policy.case import PASSWORD, TOKEN_SIGNATURE
from broker_auth.policy.decide import explained
from broker_auth.policy.decision import Admit, Decision
from broker_auth.policy.request import AuthorizationRequest

VERSION: Final = 1
_SHOWN: Final = 256  # characters of what a stranger chose
_log = logging.getLogger(__name__)


class AuditRecord(msgspec.Struct, kw_only=True, omit_defaults=True):
    """One decision.

    Attributes:
        time: when the request was read.
        code: ``admitted``, or why not.
        name: the admitted identity; for denials, the name the connection gave itself.
        host: the client's address.
        cid: the connection's id on ``server``.
        tls: ``verified``, ``unverified`` or ``none``.
        micros: how long the decision took, in microseconds, decryption and signing included.
        request: the request, if asked for, with everything in ``redacted`` removed.
    """

    v: int = msgspec.field(default=VERSION)
    time: datetime
    decision: Literal["admit", "deny"]
    rule: str
    rule_number: int
    code: str
    reason: str
    account: str | None = None
    name: str = ""
    user: str = ""
    token_id: str = ""
    signer: str = ""
    fingerprint: str = ""
    expires: datetime | None = None
    host: str = ""
    kind: str = ""
    type: str = ""
    cid: int = 0
    server: str = ""
    server_id: str = ""
    cluster: str = ""
    tls: str = ""
    micros: int = 0
    request: AuthorizationRequest | None = None
    redacted: tuple[str, ...] = ()


class AuditSink(Protocol):
    """Takes records; must neither block nor raise."""

    def write(self, record: AuditRecord) -> None:
        """Keep the record."""

    def close(self) -> None:
        """Keep everything written so far for good."""


def make_record(
    request: AuthorizationRequest, decision: Decision, now: float, micros: int, *, with_request: bool = False
) -> AuditRecord:
    """The record of one decision; ``with_request`` stores the redacted request beside it."""
    admitted = decision if isinstance(decision, Admit) else None
    info, options = request.client_info, request.connect_opts
    record = AuditRecord(
        v=VERSION,
        time=datetime.fromtimestamp(now, UTC),
        decision="admit" if admitted else "deny",
        rule=decision.rule.value,
        rule_number=decision.rule.number,
        code="admitted" if isinstance(decision, Admit) else decision.code.value,
        reason=explained(decision),
        name=(admitted.name if admitted else options.name)[:_SHOWN],
        user=options.user[:_SHOWN],
        token_id=decision.token_id,
        fingerprint=decision.fingerprint,
        host=info.host[:_SHOWN],
        kind=info.kind[:_SHOWN],
        type=info.type[:_SHOWN],
        cid=info.id,
        server=request.server_id.name,
        server_id=request.server_id.id,
        cluster=request.server_id.cluster,
        tls=_tls(request, decision),
        micros=micros,
    )
    if admitted:
        record.account = admitted.account
        record.signer = admitted.signer
        record.expires = None if admitted.expires is None else datetime.fromtimestamp(admitted.expires, UTC)
    if with_request:
        record.request, record.redacted = redact(request)
    return record


def redact(request: AuthorizationRequest) -> tuple[AuthorizationRequest, tuple[str, ...]]:
    """The request without its password and its token's signature, and the names of what was removed."""
    options = request.connect_opts
    redacted = []
    if options.password:
        redacted.append(PASSWORD)
    if options.auth_token:
        redacted.append(TOKEN_SIGNATURE)
    kept = msgspec.structs.replace(
        options, password="", auth_token=_unsigned(options.auth_token), jwt=_unsigned(options.jwt)
    )
    return msgspec.structs.replace(request, connect_opts=kept), tuple(redacted)


def _unsigned(token: str) -> str:
    """Header and claims of a JWS with nothing behind the last dot; anything else is not kept at all."""
    parts = token.strip().split(".")
    return f"{parts[0]}.{parts[1]}." if len(parts) == 3 else ""


def _tls(request: AuthorizationRequest, decision: Decision) -> str:
    if request.client_tls is None:
        return "none"
    return "verified" if decision.fingerprint else "unverified"


class StreamAudit:
    """Writes records as JSON lines to a file, or to standard output for ``-``."""

    def __init__(self, target: str | Path) -> None:
        """Open ``target`` for appending, mode 0640.

        Raises:
            OperationError: it cannot be opened.
        """
        self._encoder = msgspec.json.Encoder()
        self._path = None if str(target) == "-" else Path(target)
        self._failed = False
        self._stream = self._open()

    def write(self, record: AuditRecord) -> None:
        """Append one line. A full disk must not keep a fleet out: failures are logged once and counted on."""
        try:
            self._stream.write(self._encoder.encode(record) + b"\n")
            self._stream.flush()
            self._failed = False
        except OSError as error:
            if not self._failed:
                _log.error("audit record cannot be written to %s: %s", self._path or "-", error.strerror)
            self._failed = True

    def reopen(self) -> None:
        """Open the file again, after log rotation moved it away."""
        if self._path is not None:
            previous, self._stream = self._stream, self._open()
            previous.close()

    def close(self) -> None:
        """Flush, and close unless it is standard output."""
        if self._path is not None:
            self._stream.close()

    def _open(self) -> BinaryIO:
        if self._path is None:
            return sys.stdout.buffer
        try:
            self._path.touch(mode=0o640, exist_ok=True)
            return self._path.open("ab")
        except OSError as error:
            raise OperationError(f"audit file {self._path} cannot be opened: {error.strerror}") from error


class LogAudit:
    """Writes records to the log: admissions at info level, denials at warning level."""

    def write(self, record: AuditRecord) -> None:
        """One log line."""
        level = logging.INFO if record.decision == "admit" else logging.WARNING
        if _log.isEnabledFor(level):
            _log.log(level, "%s", msgspec.json.encode(record).decode())

    def close(self) -> None:
        """Nothing is held back."""
