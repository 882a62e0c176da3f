"""One record per decision (POLICY "What is kept of a decision"). Never a secret, never a whole token.

Records are JSON lines; ``v`` is the version of their form. ``broker-auth explain`` and ``why`` read them.
"""

from __future__ import annotations

import logging
import os
import stat
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from functools import lru_cache
from io import FileIO
from pathlib import Path
from typing import Final, Literal, Protocol

import msgspec

from broker_auth.errors import OperationError
from broker_auth.observe.redact import SHOWN, redact
from broker_auth.policy.decide import explained
from broker_auth.policy.decision import Admit, Decision
from broker_auth.policy.request import AuthorizationRequest

VERSION: Final = 1
_MOMENTS: Final = 1024  # remembered: a turn of requests has one time, and nodes share tokens and their ends
_NAMES: Final = 16  # of a certificate, kept in a record
_log = logging.getLogger(__name__)


class AuditRecord(msgspec.Struct, kw_only=True, omit_defaults=True, tag_field="event", tag="decision"):
    """One decision.

    Attributes:
        time: when the request was read.
        code: ``admitted``, or why not.
        name: the admitted identity; for denials, the name the connection gave itself.
        client: the name the connection gave itself, whatever it turned out to be.
        host: the client's address.
        cid: the connection's id on ``server``.
        issuer_id: token id of the chain issuer, of a verified token that is part of a trust chain.
        issuer_ends: when that chain issuer stops being accepted, with every token below it.
        fingerprint: SHA-256 of the certificate that nats-server verified.
        certificate_names: of a denial, its CN and alternative names, the first 16.
        certificate_problem: of a denial, why its chain does not count.
        tls: ``verified``, ``unverified`` or ``none``.
        micros: how long it took, in microseconds, verifying and signing included; of requests that were answered
            together, each has its share.
        request: the request, if asked for, with everything in ``redacted`` removed.
    """

    v: int = msgspec.field(default_factory=lambda: VERSION)  # a plain default would be left out
    time: datetime
    decision: Literal["admit", "deny"]
    rule: str
    rule_number: int
    code: str
    reason: str
    account: str | None = None
    name: str = ""
    client: str = ""
    user: str = ""
    token_id: str = ""
    signer: str = ""
    issuer_id: str = ""
    issuer_ends: datetime | None = None
    fingerprint: str = ""
    certificate_names: tuple[str, ...] = ()
    certificate_problem: str = ""
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


class ServerErrorRecord(msgspec.Struct, kw_only=True, omit_defaults=True, tag_field="event", tag="server_error"):
    """A connection that nats-server refused, as it tells the callout account (NATS_FACTS 13).

    It follows a denial of ours, or stands alone where nobody answered: then it is all there is to see.

    Attributes:
        time: when nats-server closed the connection.
        reason: nats-server's; for a denial of ours it ends with our phrase. Empty where no answer came in time.
        host: the client's address.
        cid: the connection's id on ``server``.
    """

    v: int = msgspec.field(default_factory=lambda: VERSION)
    time: datetime
    reason: str
    name: str = ""
    user: str = ""
    host: str = ""
    kind: str = ""
    type: str = ""
    cid: int = 0
    server: str = ""
    server_id: str = ""
    cluster: str = ""


Record = AuditRecord | ServerErrorRecord


class AuditSink(Protocol):
    """Takes records; must neither block nor raise.

    Attributes:
        lost: records that could not be kept.
    """

    @property
    def lost(self) -> int: ...

    def write(self, *records: Record) -> None:
        """Keep the records."""

    def reopen(self) -> None:
        """Open anew what log rotation may have moved away."""

    def close(self) -> None:
        """Keep everything written so far for good."""


def make_record(
    request: AuthorizationRequest, decision: Decision, now: float, micros: int, *, with_request: bool = False
) -> AuditRecord:
    """The record of one decision; ``with_request`` stores the redacted request beside it."""
    info, options, server = request.client_info, request.connect_opts, request.server_id
    client = options.name[:SHOWN]
    record = AuditRecord(
        v=VERSION,
        time=_moment(now),
        decision="deny",
        rule=decision.rule,
        rule_number=decision.rule.number,
        code="",
        reason=explained(decision),
        name=client,
        client=client,
        user=options.user[:SHOWN],
        token_id=decision.token_id,
        fingerprint=decision.fingerprint,
        host=info.host[:SHOWN],
        kind=info.kind[:SHOWN],
        type=info.type[:SHOWN],
        cid=info.id,
        server=server.name,
        server_id=server.id,
        cluster=server.cluster,
        tls=_tls(request, decision),
        micros=micros,
    )
    if isinstance(decision, Admit):
        record.decision = "admit"
        record.code = "admitted"
        record.account = decision.account
        record.name = decision.name[:SHOWN]
        record.signer = decision.signer
        record.expires = None if decision.expires is None else _moment(decision.expires)
    else:
        record.code = decision.code
        record.certificate_names = tuple(name[:SHOWN] for name in decision.certificate_names[:_NAMES])
        record.certificate_problem = decision.certificate_problem[:SHOWN]
    if decision.chain_issuer is not None:
        record.issuer_id = decision.chain_issuer.id
        record.issuer_ends = _moment(decision.chain_issuer.ends)
    if with_request:
        record.request, record.redacted = redact(request)
    return record


@lru_cache(maxsize=_MOMENTS)
def _moment(seconds: float) -> datetime:
    return datetime.fromtimestamp(seconds, UTC)


def _tls(request: AuthorizationRequest, decision: Decision) -> str:
    if request.client_tls is None:
        return "none"
    counts = decision.fingerprint and (isinstance(decision, Admit) or not decision.certificate_problem)
    return "verified" if counts else "unverified"


class StreamAudit:
    """Writes records as JSON lines to a file, or to standard output for ``-``.

    Several processes can append to one file: what is written at once stays together. A pipe promises that
    only for a few kilobytes, so records go there one by one.

    Attributes:
        lost: records that could not be written.
    """

    def __init__(self, target: str | Path) -> None:
        """Open ``target`` for appending, mode 0640.

        Raises:
            OperationError: it cannot be opened.
        """
        self.lost = 0
        self._encoder = msgspec.json.Encoder()
        self._path = None if str(target) == "-" else Path(target)
        self._failed = False
        self._stream = self._open()

    def write(self, *records: Record) -> None:
        """Append lines. A full disk must not keep a fleet out: it is logged once, and what is lost counted."""
        if not self._whole:
            for record in records:
                self._append(self._encoder.encode(record) + b"\n", 1)
        elif records:
            self._append(self._encoder.encode_lines(records), len(records))

    def reopen(self) -> None:
        """Open the file again, after log rotation moved it away; keep the old one if that fails."""
        if self._path is None:
            return
        try:
            previous, self._stream = self._stream, self._open()
        except OperationError as error:
            _log.error("%s", error)
            return
        previous.close()

    def close(self) -> None:
        """Close the file; standard output stays open."""
        self._stream.close()

    def _append(self, lines: bytes, count: int) -> None:
        # After a failure half a line may stand in the file; these must not be glued to it.
        data = b"\n" + lines if self._failed else lines
        try:
            written = self._stream.write(data)
        except OSError as error:
            self._fail(count, error.strerror or type(error).__name__)
            return
        if written == len(data):
            self._failed = False
        else:
            self._fail(min(count, data.count(b"\n", written)), "written in part only")

    def _fail(self, count: int, reason: str) -> None:
        told, self.lost = -(-self.lost // 1000), self.lost + count
        if told < -(-self.lost // 1000):  # the first, and each time another thousand has begun
            _log.error("audit record cannot be written to %s: %s (%d so far)", self._path or "-", reason, self.lost)
        self._failed = True

    def _open(self) -> FileIO:
        try:
            if self._path is None:
                stream = FileIO(sys.stdout.fileno(), "w", closefd=False)
            else:
                self._path.touch(mode=0o640, exist_ok=True)
                stream = FileIO(self._path, "a")
            self._whole = stat.S_ISREG(os.fstat(stream.fileno()).st_mode)
        except OSError as error:
            name = self._path or "standard output"
            raise OperationError(f"audit file {name} cannot be opened: {error.strerror}; correct it") from error
        return stream


class LogAudit:
    """Writes records to the log: admissions at info level, denials at warning level."""

    lost = 0

    def write(self, *records: Record) -> None:
        """One log line each."""
        for record in records:
            admitted = isinstance(record, AuditRecord) and record.decision == "admit"
            level = logging.INFO if admitted else logging.WARNING
            if _log.isEnabledFor(level):
                _log.log(level, "%s", msgspec.json.encode(record).decode())

    def reopen(self) -> None:
        """Standard error is whoever started us's to rotate."""

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
