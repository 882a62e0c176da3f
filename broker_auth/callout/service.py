"""The callout service: a request's way from bytes to answer, and the life of a process around it.

:class:`Callout` is the hot path: open, verify, decide, sign, record. It never awaits. What arrives is
opened and waits in a :class:`Backlog`; then a batch of requests is concluded, the fleet's first, all of
them step by step together. What cannot be answered in time is dropped before any signature is verified.
No step waits for a socket, a file or a pipe.
"""

from __future__ import annotations

import asyncio
import logging
import ssl
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Final

import msgspec

from broker_auth.audit.record import make_record
from broker_auth.audit.sinks import AuditSink
from broker_auth.callout.backlog import Backlog
from broker_auth.callout.connection import BrokerLink, Interest
from broker_auth.callout.freshness import Age
from broker_auth.callout.hedging import TICK_SECONDS, Held
from broker_auth.callout.priority import Priority, priority
from broker_auth.callout.reply import ReplyWriter
from broker_auth.callout.request import RequestReader, Unverified, WireError, WireFault, server_xkey
from broker_auth.callout.skew import Skews, notable
from broker_auth.callout.stats import Stats
from broker_auth.errors import OperationError
from broker_auth.logs.limit import LogLimit
from broker_auth.natsio.nkey import Kind, decode_seed
from broker_auth.natsio.tls import tls_context
from broker_auth.natsio.xkey import Sealer
from broker_auth.policy.decide import decide
from broker_auth.policy.decision import Admit, Decision, Deny, DenyCode, Rule
from broker_auth.policy.model import Policy
from broker_auth.policy.request import AuthorizationRequest
from broker_auth.printable import printable
from broker_auth.settings.model import Settings

ANSWER_DEADLINE: Final = 1.5  # seconds; clients give up at 2.0 and more (fact 10), and TLS took its time
# Between batches the connections are read, so that new requests of a high priority are seen. Larger batches
# cost less for each request, so they are small only under load.
BATCH_SIZE: Final = 32
BATCH_UNDER_LOAD: Final = 8
HIGH_WATER_MARK: Final = 128  # requests that wait
_SHED: Final = WireError(WireFault.SHED, "more requests arrived than can be answered in time")
_STALE: Final = WireError(WireFault.LATE, "request had waited too long when it was read")
_EXPIRED: Final = WireError(WireFault.LATE, "request had expired when it arrived: the broker's clock and ours differ")
_log = logging.getLogger(__name__)


class Callout:
    """Answers authorization requests by a policy, which may be replaced between two of them."""

    def __init__(
        self,
        *,
        policy: Policy,
        reader: RequestReader,
        writer: ReplyWriter,
        audit: AuditSink,
        stats: Stats,
        keep_requests: bool = False,
        zone: str = "",
    ) -> None:
        """``zone`` names the zone whose brokers are served, for audit records."""
        self.policy = policy
        self.keep_requests = keep_requests
        self.zone = zone
        self.skews = Skews()
        self.stats = stats
        self._failures, self._errors = LogLimit(), LogLimit()
        self._unanswered: dict[WireFault, LogLimit] = {}
        self._reader = reader
        self._writer = writer
        self._audit = audit

    def open(self, data: bytes, server_xkey: str | None, broker: str = "") -> Unverified | None:
        """Return the request in a message, to be given to :meth:`conclude` now or later; None if it is none.

        Args:
            data: the message as received.
            server_xkey: its ``Nats-Server-Xkey`` header.
            broker: the name of the broker whose connection it came by.
        """
        try:
            opened = self._reader.open(data, server_xkey)
        except WireError as error:
            self.unanswered(error)
            return None
        opened.broker = broker
        return opened

    def priority(self, opened: Unverified, now: float) -> Priority:
        """Return how soon this request, just opened, should be concluded if others wait."""
        if opened.claims is None:
            return Priority.UNKNOWN
        try:
            return priority(opened.claims.nats, self.policy, now)
        except Exception:  # it affects order only; the decision will say what is wrong
            return Priority.UNKNOWN

    def conclude(self, batch: Sequence[Unverified], now: float) -> list[bytes | None]:
        """Return the signed answer to each opened request, None for those that must not be answered.

        Args:
            batch: the requests; one that fails takes no other with it.
            now: Unix seconds; the only time these requests know.
        """
        try:
            return self._conclude(batch, now)
        except Exception:
            if len(batch) == 1:  # without an answer nats-server lets nobody in
                self.stats.reply_failures += 1
                if self._failures.due():
                    _log.exception("no answer could be made (%d so far)", self._failures.count)
                return [None]
        # Something that nobody foresaw: whoever caused it must not cost the others their answers.
        return [answer for opened in batch for answer in self.conclude([opened], now)]

    def _conclude(self, batch: Sequence[Unverified], now: float) -> list[bytes | None]:
        """Conclude a batch; nothing is counted or recorded before every answer is made."""
        started = time.perf_counter()
        answers: list[bytes | None] = [None] * len(batch)
        places, requests, decided, faults, records = [], [], [], [], []
        # Step by step, and in loops: see :meth:`ReplyWriter.write`.
        for place, opened in enumerate(batch):
            try:
                requests.append(self._reader.verify(opened, now))
                places.append(place)
            except WireError as error:
                faults.append(error)
        for request in requests:
            decision = self._decide(request, now)
            decided.append((request, decision))
            if decision.rule is Rule.PROVISIONING and isinstance(decision, Admit):
                self.policy.provisioning.gauge.admitted(request.server_id.id, now)
        written = self._writer.write(decided, now)
        seconds = (time.perf_counter() - started) / len(batch)
        micros, stored, zone = int(seconds * 1e6), self.keep_requests, self.zone
        for place, (request, decision) in zip(places, decided, strict=True):
            broker = batch[place].broker
            record = make_record(request, decision, now, micros, with_request=stored, zone=zone, broker=broker)
            if record.decision == "deny":
                record.clock_skew = notable(self.skews.of(broker, record.server))
            records.append(record)
        self._audit.write(*records)
        self.stats.took(len(decided), seconds)
        for _, decision in decided:
            self.stats.decided(decision, now)
        for fault in faults:
            self.unanswered(fault)
        for place, answer in zip(places, written, strict=True):
            answers[place] = answer
        return answers

    def unanswered(self, error: WireError) -> None:
        """Count a message that gets no reply, and log some of a kind."""
        self.stats.unanswered[error.fault] += 1
        limit = self._unanswered.setdefault(error.fault, LogLimit())
        if limit.due():
            _log.warning("request not answered: %s (%d so far)", error, limit.count)

    def _decide(self, request: AuthorizationRequest, now: float) -> Decision:
        try:
            return decide(request, self.policy, now)
        except Exception:  # whatever went wrong, the connection does not get in
            if self._errors.due():
                _log.exception("decision failed; the connection is denied (%d so far)", self._errors.count)
            return Deny(rule=Rule.NONE, code=DenyCode.INTERNAL_ERROR, detail="the decision failed; see the log")


class _Waiting(msgspec.Struct):
    """A request that waits to be answered."""

    link: BrokerLink
    subject: str
    request: Unverified


class Service:
    """Serves every configured broker until told to stop."""

    def __init__(
        self,
        settings: Settings,
        callout: Callout,
        interests: Sequence[Interest] = (),
        contexts: Mapping[str, ssl.SSLContext | None] | None = None,
    ) -> None:
        """Connects nowhere yet.

        Args:
            settings: which brokers, and whom to log in as.
            callout: what answers.
            interests: subscribed at every broker besides the requests.
            contexts: by broker, of :func:`tls_contexts`; by default read from the files now.

        Raises:
            InputError: a TLS file cannot be used.
        """
        self.callout = callout
        seed = settings.only_zone.nkey_seed
        assert seed is not None  # `serve` loads settings that have one
        names = settings.accounts
        others = (names.fleet, names.provisioning, names.system)
        tls = tls_contexts(settings) if contexts is None else contexts
        self._links = [
            BrokerLink(
                broker,
                seed,
                self._on_request,
                interests,
                others,
                tls[broker.name],
                on_drop=self._on_drop,
                on_overflow=lambda: self.callout.unanswered(_SHED),
                on_leave=self._on_leave,
            )
            for broker in settings.brokers
        ]
        self._numbers = {link: number for number, link in enumerate(self._links)}
        self._backlog: Backlog[_Waiting] = Backlog(
            len(self._links), lambda waiting: callout.priority(waiting.request, time.time())
        )
        self._limits = {link: LogLimit() for link in self._links}
        self._arrived = asyncio.Event()
        self._ending = False

    @property
    def links(self) -> Sequence[BrokerLink]:
        """One connection for each configured broker."""
        return self._links

    @property
    def pending(self) -> int:
        """Requests received and not answered yet."""
        return len(self._backlog)

    @property
    def oldest(self) -> float:
        """Seconds that the oldest request has waited; 0 if none waits."""
        since = self._backlog.oldest()
        return 0.0 if since is None else max(0.0, time.monotonic() - since)

    async def run(
        self,
        stop: asyncio.Event,
        before_close: Callable[[], Awaitable[None]] | None = None,
        watched: Sequence[asyncio.Task[None]] = (),
    ) -> None:
        """Serve until ``stop`` is set, then drain: every request received is answered first.

        Args:
            stop: ends it.
            before_close: awaited when all is answered, while the brokers can still be reached.
            watched: other tasks that must not end before this does.

        Raises:
            OperationError: a task ended that must not, which ends the service in order. Whoever runs it should
                begin with a new process.
        """
        connections = [asyncio.create_task(link.run(), name=f"broker {link.name}") for link in self._links]
        answering = asyncio.create_task(self._answer_all(), name="answering")
        helping = asyncio.create_task(self._answer_for_others(), name="answering for others")
        stopping = asyncio.create_task(stop.wait())
        await asyncio.wait([stopping, answering, helping, *connections, *watched], return_when=asyncio.FIRST_COMPLETED)
        ended = [task for task in (answering, helping, *connections, *watched) if task.done()]
        stopping.cancel()
        helping.cancel()
        await asyncio.gather(*(link.drain() for link in self._links))
        self._ending = True
        self._arrived.set()
        await asyncio.gather(answering, return_exceptions=True)
        await asyncio.gather(*(link.settle() for link in self._links))
        if before_close is not None:
            await before_close()
            await asyncio.gather(*(link.settle() for link in self._links))
        for connection in connections:
            connection.cancel()
        await asyncio.gather(helping, *connections, return_exceptions=True)
        await asyncio.gather(*(link.close() for link in self._links))
        if ended and not stop.is_set():
            raise OperationError(f"task ended unforeseen: {', '.join(map(_how, ended))}")

    async def wait_ready(self) -> None:
        """Return once every broker is subscribed."""
        await asyncio.gather(*(link.subscribed.wait() for link in self._links))

    def _on_request(self, link: BrokerLink, reply: str, data: bytes, headers: bytes | None) -> None:
        """Queue a request where a flood of others, or through another broker, does not evict it."""
        opened = self._opened(link, reply, data, headers)
        if opened is None:
            return
        waiting = _Waiting(link, reply, opened)
        for _ in self._backlog.put(waiting, self._numbers[link], len(data), time.monotonic()):
            self.callout.unanswered(_SHED)
        # Above the high-water mark keep only the signed token, to save memory.
        if len(self._backlog) > HIGH_WATER_MARK:
            opened.claims = None
        self._arrived.set()

    def _opened(self, link: BrokerLink, reply: str, data: bytes, headers: bytes | None) -> Unverified | None:
        """Return a request that can be answered."""
        if not reply:
            self.callout.unanswered(WireError(WireFault.NO_REPLY_SUBJECT, "request wants no reply"))
            return None
        opened = self.callout.open(data, server_xkey(headers), link.name)
        if opened is None:
            link.done_with(reply)  # nobody else could read it either
            return None
        claims = opened.claims
        assert claims is not None  # just opened
        difference = time.time() - claims.iat
        self.callout.skews.observe(link.name, claims.nats.server_id.name, difference, time.monotonic())
        age = link.judge(claims.iat, claims.exp)
        if age is Age.YOUNG:
            return opened
        self.callout.unanswered(_STALE if age is Age.STALE else _EXPIRED)
        return None

    async def _answer_for_others(self) -> None:
        """Answer what other workers were asked and have not answered, while there is nothing else to do."""
        while True:
            await asyncio.sleep(TICK_SECONDS)
            for link in self._links:
                link.tick()
                if len(self._backlog) >= HIGH_WATER_MARK:
                    link.shed()
            # A batch of each broker in turn, no longer than until the others' words are due again.
            until = time.monotonic() + TICK_SECONDS
            busy = True
            while busy and not len(self._backlog) and time.monotonic() < until:
                busy = False
                for link in self._links:
                    if held := link.due(BATCH_UNDER_LOAD):
                        busy = True
                        self._answer_held(link, held)
                        await asyncio.sleep(0)

    def _answer_held(self, link: BrokerLink, held: Sequence[Held]) -> None:
        """Answer copies; one that fails unforeseen costs itself, not the worker."""
        batch = []
        for one in held:
            try:
                request = self._opened(link, one.reply, one.data, one.headers)
            except Exception:
                self.callout.stats.reply_failures += 1
                if self._limits[link].due():
                    _log.exception("broker %s: a copy of a request cannot be read", link.name)
                continue
            if request is not None:
                batch.append(_Waiting(link, one.reply, request))
        self.callout.stats.answered_for_others[link.name] += len(batch)
        if batch:
            self._answer(batch)

    async def _answer_all(self) -> None:
        """Answer what waits, until the service ends and nothing does."""
        while not self._ending:
            await self._arrived.wait()
            self._arrived.clear()
            while True:
                for _ in self._backlog.expire(time.monotonic() - ANSWER_DEADLINE):
                    self.callout.unanswered(_SHED)
                size = BATCH_SIZE if len(self._backlog) < HIGH_WATER_MARK else BATCH_UNDER_LOAD
                if not (batch := self._backlog.take(size)):
                    break
                self._answer(batch)
                await asyncio.sleep(0)

    def _answer(self, batch: list[_Waiting]) -> None:
        batch = [waiting for waiting in batch if not waiting.link.is_answered(waiting.subject)]
        if not batch:
            return
        answers = self.callout.conclude([waiting.request for waiting in batch], time.time())
        for waiting, answer in zip(batch, answers, strict=True):
            if answer is None:
                continue
            try:
                waiting.link.reply(waiting.subject, answer)
                waiting.link.done_with(waiting.subject)
            except Exception as error:  # the broker is gone, and with it the connection that asked
                self._not_sent(waiting.link, 1, error)

    def _on_drop(self, link: BrokerLink, lost: int) -> None:
        self.callout.stats.dropped[link.name] += 1
        if lost:
            self._not_sent(link, lost, "the broker does not read them")

    def _on_leave(self, link: BrokerLink) -> None:
        self.callout.stats.left[link.name] += 1

    def _not_sent(self, link: BrokerLink, count: int, why: object) -> None:
        self.callout.stats.reply_failures += count
        limit = self._limits[link]
        if limit.due(count):
            text = printable(str(why) or type(why).__name__)
            _log.warning("broker %s: answers could not be sent: %s (%d so far)", link.name, text, limit.count)


def _how(task: asyncio.Task[None]) -> str:
    """Return what a task was, and how it ended."""
    error = None if task.cancelled() else task.exception()
    if error is not None:
        _log.error("task %r failed", task.get_name(), exc_info=error)
    return f"{task.get_name()} ({'cancelled' if task.cancelled() else type(error).__name__})"


def tls_contexts(settings: Settings) -> dict[str, ssl.SSLContext | None]:
    """What is presented to each broker, and what it is known by.

    Raises:
        InputError: a TLS file cannot be used.
    """
    return {broker.name: tls_context(broker.tls) for broker in settings.brokers}


def make_callout(settings: Settings, policy: Policy, audit: AuditSink, *, keep_requests: bool = False) -> Callout:
    """A callout with the keys of these settings.

    Raises:
        InputError: a seed is not of the kind it should be.
    """
    zone = settings.only_zone
    assert zone.issuer_seed is not None  # `serve` loads settings that have one
    sealer = None
    if zone.xkey_seed is not None:
        sealer = Sealer(decode_seed(zone.xkey_seed.reveal(), Kind.CURVE))
    return Callout(
        policy=policy,
        reader=RequestReader(sealer),
        writer=ReplyWriter(decode_seed(zone.issuer_seed.reveal(), Kind.ACCOUNT), sealer),
        audit=audit,
        stats=Stats(),
        keep_requests=keep_requests,
        zone=zone.name,
    )
