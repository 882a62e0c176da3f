"""The hot path: open, verify, decide, sign, record. It never awaits.

An :class:`Exchange` is one request on its way to an answer. :class:`Callout` concludes a batch of them, stage by stage.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence

import msgspec

from broker_auth.audit.record import make_record
from broker_auth.audit.sinks import AuditSink
from broker_auth.callout.priority import Priority, priority
from broker_auth.callout.reply import Decided, ReplyWriter
from broker_auth.callout.request import Opened, Parked, RequestReader, WireError, WireFault
from broker_auth.callout.sampling import RequestSampler
from broker_auth.callout.skew import Skews, notable
from broker_auth.callout.stats import Stats
from broker_auth.logs.limit import LogLimit
from broker_auth.natsio.nkey import NkeyKind, decode_seed
from broker_auth.natsio.xkey import Sealer
from broker_auth.policy.counting import Counted, NodeClaim
from broker_auth.policy.decide import decide
from broker_auth.policy.decision import Admit, Decision, Deny, DenyCode, Rule
from broker_auth.policy.model import Policy
from broker_auth.policy.request import AuthorizationRequest
from broker_auth.settings.model import ServingSettings, StoredRequests

_log = logging.getLogger(__name__)


class Exchange(msgspec.Struct):
    """One request, from its arrival to its answer.

    Attributes:
        received: the request; nothing in it is verified yet.
        broker: the name of the broker that it was received from.
        answer: the signed answer; empty until it is created, and for requests that must not be answered.
        claim: the node to count before this request can be concluded; then it is put aside.
        counted: whether that node is counted, once that was asked.
    """

    received: Parked
    broker: str = ""
    answer: bytes = b""
    claim: NodeClaim | None = None
    counted: Counted | None = None


class Callout:
    """The callout: answers authorization requests by a policy, which may be replaced between requests."""

    def __init__(
        self,
        *,
        policy: Policy,
        reader: RequestReader,
        writer: ReplyWriter,
        audit: AuditSink,
        stats: Stats,
        stored_requests: StoredRequests = StoredRequests.NONE,
        zone: str = "",
    ) -> None:
        """Create a callout; ``zone`` is the name of the served zone, for audit records."""
        self.policy = policy
        self._sampler = RequestSampler(stored_requests)
        self.zone = zone
        self.skews = Skews()
        self.stats = stats
        self._failures, self._errors = LogLimit(), LogLimit()
        self._unanswered: dict[WireFault, LogLimit] = {}
        self._reader = reader
        self._writer = writer
        self._audit = audit

    def open(self, data: bytes, server_xkey: str | None) -> Opened | None:
        """Return the request in a message, for an :class:`Exchange`; None if it must not be answered.

        Args:
            data: the message as received.
            server_xkey: its ``Nats-Server-Xkey`` header.
        """
        try:
            return self._reader.open(data, server_xkey)
        except WireError as error:
            self.not_answered(error.fault, error.detail)
            return None

    def priority(self, received: Parked, now: float) -> Priority:
        """Return how soon a request should be concluded if others wait."""
        if not isinstance(received, Opened):
            return Priority.UNKNOWN
        try:
            return priority(received.claims.nats, self.policy, now)
        except Exception:  # it affects order only; the decision will say what is wrong
            return Priority.UNKNOWN

    def conclude(self, batch: Sequence[Exchange], now: float) -> None:
        """Set the answer of each exchange; it stays empty for requests that must not be answered.

        An exchange whose node has to be counted first is put aside: it gets a claim instead of an answer, and is
        neither counted nor recorded yet.

        Args:
            batch: the exchanges; a failing one does not affect the others.
            now: the current time in Unix seconds, for the whole batch.
        """
        try:
            self._conclude(batch, now)
        except Exception:
            if len(batch) > 1:  # a request that causes an unexpected error must not cost the others their answers
                for exchange in batch:
                    self.conclude([exchange], now)
                return
            self.stats.reply_failures += 1  # without an answer nats-server refuses the connection
            if self._failures.due():
                _log.exception("no answer could be created (%d so far)", self._failures.count)

    def _conclude(self, batch: Sequence[Exchange], now: float) -> None:
        """Conclude a batch; nothing is counted or recorded before every answer is made."""
        started = time.perf_counter()
        verified, finished, faults = [], [], []
        # Step by step, and in loops: see :meth:`ReplyWriter.write`.
        for exchange in batch:
            try:
                verified.append((exchange, self._reader.verify(exchange.received, now)))
            except WireError as error:
                faults.append(error)
        for exchange, request in verified:
            decision = self._decide(request, now, exchange)
            if isinstance(decision, Deny) and decision.claim is not None and exchange.counted is None:
                exchange.claim = decision.claim
                continue
            finished.append((exchange, Decided(request, decision)))
            if _takes_a_place(decision):  # nodes of one batch share the limit
                self.policy.provisioning.gauge.admitted(exchange.broker, request.server_id.id, now)
        try:
            self._answer(finished, len(batch), now, started)
        except Exception:
            for exchange, decided in finished:
                if _takes_a_place(decided.decision):
                    self.policy.provisioning.gauge.withdrawn(exchange.broker, decided.request.server_id.id)
            raise
        for fault in faults:
            self.not_answered(fault.fault, fault.detail)

    def _answer(self, finished: Sequence[tuple[Exchange, Decided]], size: int, now: float, started: float) -> None:
        """Answer, record and count the decisions of a batch of ``size`` requests."""
        records = []
        self._writer.write([decided for _, decided in finished], now)
        seconds = (time.perf_counter() - started) / size
        micros, zone = int(seconds * 1e6), self.zone
        for exchange, decided in finished:
            broker = exchange.broker
            stored = self._sampler.stores(decided.request, decided.decision, now)
            record = make_record(
                decided.request, decided.decision, now, micros, with_request=stored, zone=zone, broker=broker
            )
            if record.decision == "deny":
                record.clock_skew = notable(self.skews.of(broker, record.server))
            records.append(record)
        self._audit.write(*records)
        self.stats.took(len(finished), seconds)
        for exchange, decided in finished:
            self.stats.decided(decided.decision, now)
            exchange.answer = decided.answer

    def not_answered(self, fault: WireFault, detail: str) -> None:
        """Count a message that gets no reply, and log some of each fault."""
        self.stats.unanswered[fault] += 1
        limit = self._unanswered.setdefault(fault, LogLimit())
        if limit.due():
            _log.warning("request not answered: %s: %s (%d so far)", fault, detail, limit.count)

    def _decide(self, request: AuthorizationRequest, now: float, exchange: Exchange) -> Decision:
        try:
            return decide(request, self.policy, now, exchange.broker, exchange.counted)
        except Exception:  # whatever went wrong, the connection is denied
            if self._errors.due():
                _log.exception("decision failed; the connection is denied (%d so far)", self._errors.count)
            return Deny(rule=Rule.NONE, code=DenyCode.INTERNAL_ERROR, detail="the decision failed; see the log")


def _takes_a_place(decision: Decision) -> bool:
    """Return whether a node is admitted to the provisioning account, whose connections are limited."""
    return decision.rule is Rule.PROVISIONING and isinstance(decision, Admit)


def make_callout(settings: ServingSettings, policy: Policy, audit: AuditSink) -> Callout:
    """Return a callout with the keys of these settings.

    Raises:
        InputError: a seed is not of the kind it should be.
    """
    zone = settings.served
    sealer = None
    if zone.xkey_seed is not None:
        sealer = Sealer(decode_seed(zone.xkey_seed.reveal(), NkeyKind.CURVE))
    return Callout(
        policy=policy,
        reader=RequestReader(sealer),
        writer=ReplyWriter(decode_seed(zone.issuer_seed.reveal(), NkeyKind.ACCOUNT), sealer),
        audit=audit,
        stats=Stats(),
        stored_requests=settings.audit.requests,
        zone=zone.name,
    )
