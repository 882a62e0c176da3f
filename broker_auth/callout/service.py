"""The callout service: a request's way from bytes to answer, and the life of a process around it.

:class:`Callout` is the hot path: open, verify, decide, sign, record. It never awaits. What arrives is
opened and waits in a :class:`Backlog`; then a turn of requests is concluded, the fleet's first, all of
them step by step together. What cannot be answered in time is dropped before any signature is verified.
"""

from __future__ import annotations

import asyncio
import logging
import ssl
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Final

import msgspec
from nats.aio.msg import Msg

from broker_auth.callout.backlog import Backlog
from broker_auth.callout.link import BrokerLink, Interest
from broker_auth.callout.reply import ReplyWriter
from broker_auth.callout.request import XKEY_HEADER, RequestReader, Unverified, WireError, WireFault
from broker_auth.callout.xkey import Sealer
from broker_auth.client_tls import tls_context
from broker_auth.nkey import Kind, decode_seed
from broker_auth.observe.audit import AuditSink, make_record
from broker_auth.observe.stats import Stats
from broker_auth.policy.decide import decide
from broker_auth.policy.decision import Decision, Deny, DenyCode, Rule
from broker_auth.policy.model import Policy
from broker_auth.policy.request import AuthorizationRequest
from broker_auth.policy.urgency import Urgency, urgency
from broker_auth.settings.model import Settings

PATIENCE_SECONDS: Final = 1.5  # clients give up at 2.0 and more (NATS_FACTS 10), and TLS took its time
# So many requests are concluded together, then the links read on: the urgent must be seen among what
# arrives. More of them together cost less each, so it is done often only where many wait.
TURN: Final = 32
TURN_IN_A_CROWD: Final = 8
CROWD: Final = 128  # requests that wait
_SHED: Final = WireError(WireFault.SHED, "more requests arrived than can be answered in time")
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
    ) -> None:
        self.policy = policy
        self.keep_requests = keep_requests
        self.stats = stats
        self._reader = reader
        self._writer = writer
        self._audit = audit

    def open(self, data: bytes, server_xkey: str | None) -> Unverified | None:
        """The request in a message, to be given to :meth:`conclude` now or later; None if it is none.

        Args:
            data: the message as received.
            server_xkey: its ``Nats-Server-Xkey`` header.
        """
        try:
            return self._reader.open(data, server_xkey)
        except WireError as error:
            self.unanswered(error)
            return None

    def urgency(self, opened: Unverified, now: float) -> Urgency:
        """How soon this request, just opened, should be concluded if others wait."""
        assert opened.claims is not None
        return urgency(opened.claims.nats, self.policy.tokens, now)

    def conclude(self, turn: Sequence[Unverified], now: float) -> list[bytes | None]:
        """The signed answer to each opened request, None for those that must not be answered.

        Args:
            turn: the requests; one that fails takes no other with it.
            now: Unix seconds; the only time these requests know.
        """
        try:
            return self._conclude(turn, now)
        except Exception:
            if len(turn) == 1:  # without an answer nats-server lets nobody in
                self.stats.reply_failures += 1
                if self.stats.reply_failures % 1000 == 1:
                    _log.exception("no answer could be made (%d so far)", self.stats.reply_failures)
                return [None]
        # Something that nobody foresaw: whoever caused it must not cost the others their answers.
        return [answer for opened in turn for answer in self.conclude([opened], now)]

    def _conclude(self, turn: Sequence[Unverified], now: float) -> list[bytes | None]:
        started = time.perf_counter()
        answers: list[bytes | None] = [None] * len(turn)
        places, requests, decided, records = [], [], [], []
        # Step by step, and in loops: see :meth:`ReplyWriter.write`.
        for place, opened in enumerate(turn):
            try:
                requests.append(self._reader.verify(opened, now))
                places.append(place)
            except WireError as error:
                self.unanswered(error)
        if not requests:
            return answers
        for request in requests:
            decided.append((request, self._decide(request, now)))
        written = iter(self._writer.write(decided, now))
        seconds = (time.perf_counter() - started) / len(turn)
        micros, stored = int(seconds * 1e6), self.keep_requests
        for request, decision in decided:
            records.append(make_record(request, decision, now, micros, with_request=stored))
        self._audit.write(*records)
        self.stats.took(len(decided), seconds)
        for _, decision in decided:
            self.stats.decided(decision, now)
        for place in places:
            answers[place] = next(written)
        return answers

    def unanswered(self, error: WireError) -> None:
        """Count and log a message that gets no reply; the first of a kind, then every thousandth."""
        self.stats.unanswered[error.fault] += 1
        if self.stats.unanswered[error.fault] % 1000 == 1:
            _log.warning("request not answered: %s (%d so far)", error, self.stats.unanswered[error.fault])

    def _decide(self, request: AuthorizationRequest, now: float) -> Decision:
        try:
            return decide(request, self.policy, now)
        except Exception:  # whatever went wrong, the connection does not get in
            if self.stats.decisions[Rule.NONE, DenyCode.INTERNAL_ERROR] % 1000 == 0:
                _log.exception("decision failed; the connection is denied")
            return Deny(rule=Rule.NONE, code=DenyCode.INTERNAL_ERROR, detail="the decision failed; see the log")


class _Waiting(msgspec.Struct):
    """A request that waits for its turn since ``since`` (monotonic seconds)."""

    link: BrokerLink
    subject: str
    request: Unverified
    since: float


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
            BrokerLink(broker, seed, self._on_request, interests, others, tls[broker.name])
            for broker in settings.brokers
        ]
        self._backlog: Backlog[_Waiting] = Backlog()
        self._arrived = asyncio.Event()
        self._ending = False

    @property
    def links(self) -> Sequence[BrokerLink]:
        """One link for each configured broker."""
        return self._links

    @property
    def pending(self) -> int:
        """Requests received and not answered yet."""
        return len(self._backlog) + sum(link.pending for link in self._links)

    async def run(self, stop: asyncio.Event, before_close: Callable[[], Awaitable[None]] | None = None) -> None:
        """Serve until ``stop`` is set, then drain: every request received is answered first.

        Args:
            stop: ends it.
            before_close: awaited when all is answered, while the brokers can still be reached.
        """
        keepers = [asyncio.create_task(link.keep()) for link in self._links]
        answering = asyncio.create_task(self._answer_in_turn())
        await stop.wait()
        await asyncio.gather(*(link.drain() for link in self._links))
        self._ending = True
        self._arrived.set()
        await answering
        await asyncio.gather(*(link.settle() for link in self._links))
        if before_close is not None:
            await before_close()
        for keeper in keepers:
            keeper.cancel()
        await asyncio.gather(*keepers, return_exceptions=True)
        await asyncio.gather(*(link.close() for link in self._links))

    async def wait_ready(self) -> None:
        """Return once every broker is subscribed."""
        await asyncio.gather(*(link.subscribed.wait() for link in self._links))

    async def _on_request(self, link: BrokerLink, message: Msg) -> None:
        """Let a request wait for its turn, in a queue that a flood of others does not fill."""
        if not message.reply:
            self.callout.unanswered(WireError(WireFault.NO_REPLY_SUBJECT, "request wants no reply"))
            return
        headers = message.headers
        opened = self.callout.open(message.data, headers.get(XKEY_HEADER) if headers else None)
        if opened is None:
            return
        # Who is alone needs no place in a line, and of a crowd only what is signed is kept.
        urgency = self.callout.urgency(opened, time.time()) if self._backlog else Urgency.UNKNOWN
        if len(self._backlog) >= CROWD:
            opened.claims = None
        waiting = _Waiting(link, message.reply, opened, time.monotonic())
        for _ in self._backlog.put(waiting, urgency, len(message.data)):
            self.callout.unanswered(_SHED)
        self._arrived.set()

    async def _answer_in_turn(self) -> None:
        """Answer whoever waits, until the service ends and nobody does."""
        while not self._ending:
            await self._arrived.wait()
            self._arrived.clear()
            while turn := self._backlog.take(TURN if len(self._backlog) < CROWD else TURN_IN_A_CROWD):
                await self._answer(turn)
                await asyncio.sleep(0)

    async def _answer(self, turn: list[_Waiting]) -> None:
        latest = time.monotonic() - PATIENCE_SECONDS
        in_time = [waiting for waiting in turn if waiting.since >= latest]
        for _ in range(len(turn) - len(in_time)):
            self.callout.unanswered(_SHED)
        if not in_time:
            return
        answers = self.callout.conclude([waiting.request for waiting in in_time], time.time())
        for waiting, answer in zip(in_time, answers, strict=True):
            if answer is not None:
                await self._reply(waiting, answer)

    async def _reply(self, waiting: _Waiting, answer: bytes) -> None:
        try:
            await waiting.link.reply(waiting.subject, answer)
        except Exception as error:  # the broker is gone, and with it the connection that asked
            self.callout.stats.reply_failures += 1
            _log.warning("answer could not be sent to %s: %s", waiting.link.name, error)


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
    )
