"""The audit record of a decision (docs/policy.md#what-is-kept-of-a-decision), without secrets or whole tokens.

Records are JSON lines; ``v`` is the version of their format. ``broker-auth explain`` and ``why`` read them.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import Final, Literal

import msgspec

from broker_auth.audit.redact import SHOWN, bounded, redact
from broker_auth.policy.decide import explained
from broker_auth.policy.decision import NO_EVIDENCE, Admit, Decision, Evidence
from broker_auth.policy.request import AuthorizationRequest
from broker_auth.printable import printable_json

VERSION: Final = 1
MAX_REASON: Final = 512  # characters
_MOMENTS: Final = 1024  # cached: a batch of requests has one time, and nodes share tokens and their expiry
_NAMES: Final = 16  # names of a certificate that are kept
_encoder: Final = msgspec.json.Encoder()


class AuditRecord(msgspec.Struct, kw_only=True, omit_defaults=True, tag_field="event", tag="decision"):
    """One decision.

    Attributes:
        time: when the request was received.
        code: ``admitted``, or the denial code.
        name: the admitted identity; for denials, the name that the client sent.
        client: the name that the client sent, if it differs from ``name``.
        host: the client's address.
        cid: the connection's id on ``server``.
        issuer_id: token id of the chain issuer, if a verified token belongs to a chain of trust.
        issuer_ends: when that chain issuer and every token it issued stop being accepted.
        fingerprint: SHA-256 of the certificate that nats-server verified.
        expires: when nats-server ends the session, ``grace`` seconds after its credential ends.
        certificate_names: for denials, the certificate's CN and alternative names, at most 16.
        certificate_problem: for denials, why the certificate chain was rejected.
        tls: ``verified``, ``unverified`` or ``none``.
        micros: duration in microseconds, including verification and signing; for a batch, the average per request.
        zone: the configured zone that decided.
        broker: the configured broker that the request was received from; ``server``, ``server_id`` and ``cluster``
            are claims of that broker.
        clock_skew: seconds by which this host's clock was ahead of the server's, if they differed by 1 s or more.
        request: the request, if it is to be stored, without the parts listed in ``redacted``.
        evidence: beside a stored request, the results of the checks that it cannot repeat.
    """

    v: int = msgspec.field(default_factory=lambda: VERSION)  # omit_defaults would leave a plain default out
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
    grace: float = 0.0
    host: str = ""
    kind: str = ""
    type: str = ""
    cid: int = 0
    server: str = ""
    server_id: str = ""
    cluster: str = ""
    zone: str = ""
    broker: str = ""
    clock_skew: float = 0.0
    tls: str = ""
    micros: int = 0
    request: AuthorizationRequest | None = None
    redacted: tuple[str, ...] = ()
    evidence: Evidence | None = None

    @property
    def credential_ends(self) -> datetime | None:
        """The time from which a new connection with the same credential is denied; None if it never ends."""
        return None if self.expires is None else self.expires - timedelta(seconds=self.grace)


class ServerErrorRecord(msgspec.Struct, kw_only=True, omit_defaults=True, tag_field="event", tag="server_error"):
    """A connection that nats-server refused, as reported to the callout account (fact 13).

    It follows our own denial. Without one, no service answered, and this is the only trace of the connection.

    Attributes:
        time: when nats-server closed the connection.
        reason: nats-server's reason; for our own denials it ends with our phrase. Empty if no answer came in time.
        host: the client's address.
        cid: the connection's id on ``server``.
        zone: as in :class:`AuditRecord`.
        broker: as in :class:`AuditRecord`.
        clock_skew: as in :class:`AuditRecord`.
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
    zone: str = ""
    broker: str = ""
    clock_skew: float = 0.0


Record = AuditRecord | ServerErrorRecord


def make_record(
    request: AuthorizationRequest,
    decision: Decision,
    now: float,
    micros: int,
    *,
    with_request: bool = False,
    zone: str = "",
    broker: str = "",
) -> AuditRecord:
    """Return the record of one decision, every field of bounded length.

    Args:
        request: the request that was decided.
        decision: the decision.
        now: Unix seconds.
        micros: duration in microseconds.
        with_request: whether to store the redacted request too.
        zone: the zone that decided.
        broker: the broker that the request was received from.
    """
    info, options, server = request.client_info, request.connect_opts, request.server_id
    client = bounded(options.name)
    record = AuditRecord(
        v=VERSION,
        time=_moment(now),
        decision="deny",
        rule=decision.rule,
        rule_number=decision.rule.number,
        code="",
        reason=explained(decision)[:MAX_REASON],
        name=client,
        user=bounded(options.user),
        token_id=bounded(decision.token_id),
        fingerprint=decision.fingerprint,
        host=bounded(info.host),
        kind=bounded(info.kind),
        type=bounded(info.type),
        cid=bounded_int(info.id),
        server=bounded(server.name),
        server_id=bounded(server.id),
        cluster=bounded(server.cluster),
        zone=zone,
        broker=broker,
        tls=_tls(request, decision),
        micros=micros,
    )
    if isinstance(decision, Admit):
        record.decision = "admit"
        record.code = "admitted"
        record.account = decision.account
        record.name = bounded(decision.name)
        record.client = client if client != record.name else ""
        record.signer = decision.signer[:SHOWN]
        record.expires = None if decision.expires is None else _moment(decision.expires)
        record.grace = decision.grace
    else:
        record.code = decision.code
        record.certificate_names = tuple([bounded(name) for name in decision.certificate_names[:_NAMES]])
        record.certificate_problem = bounded(decision.certificate_problem)
    if decision.chain_issuer is not None:
        record.issuer_id = decision.chain_issuer.id
        record.issuer_ends = _moment(decision.chain_issuer.ends)
    if with_request:
        record.request, record.redacted = redact(request, trusted=isinstance(decision, Admit))
        record.evidence = decision.evidence if decision.evidence != NO_EVIDENCE else None
    return record


def bounded_int(number: int) -> int:
    """Return ``number`` if JSON parsers can represent it, else 0; nats-server's ids are far smaller."""
    return number if 0 <= number < 2**63 else 0


@lru_cache(maxsize=_MOMENTS)
def _moment(seconds: float) -> datetime:
    return datetime.fromtimestamp(seconds, UTC)


def _tls(request: AuthorizationRequest, decision: Decision) -> str:
    if request.client_tls is None:
        return "none"
    counts = decision.fingerprint and (isinstance(decision, Admit) or not decision.certificate_problem)
    return "verified" if counts else "unverified"


def encode(record: Record) -> bytes:
    """Return the record as a line of JSON, without characters that control a terminal or reorder text."""
    line = _encoder.encode(record)
    if line.isascii() and b"\x7f" not in line:
        return line + b"\n"
    return printable_json(line.decode()).encode() + b"\n"
