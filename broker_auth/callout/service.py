"""The callout service: one request's way from bytes to answer, and the life of a process around it.

:meth:`Callout.answer` is the hot path: read, decide, sign, record. It never awaits, so requests of
one process are answered in turn, each in a fraction of a millisecond, and nothing can pile up
inside: what waits, waits in nats-server and in the socket, and is dropped unread when too late.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Sequence

from nats.aio.msg import Msg

from broker_auth.callout.link import BrokerLink, Interest
from broker_auth.callout.reply import ReplyWriter
from broker_auth.callout.request import XKEY_HEADER, RequestReader, WireError, WireFault
from broker_auth.callout.xkey import Sealer
from broker_auth.nkey import Kind, decode_seed
from broker_auth.observe.audit import AuditSink, make_record
from broker_auth.observe.stats import Stats
from broker_auth.policy.decide import decide
from broker_auth.policy.decision import Admit, Decision, Deny, DenyCode, Rule
from broker_auth.policy.model import Policy
from broker_auth.policy.request import AuthorizationRequest
from broker_auth.settings.model import Settings

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

    def answer(self, data: bytes, server_xkey: str | None, now: float) -> bytes | None:
        """The signed answer to a request, or None if it must not be answered.

        Args:
            data: the message as received.
            server_xkey: its ``Nats-Server-Xkey`` header.
            now: Unix seconds; the only time this request knows.
        """
        started = time.perf_counter()
        try:
            request = self._reader.read(data, server_xkey, now)
        except WireError as error:
            self.unanswered(error)
            return None
        decision = self._decide(request, now)
        if isinstance(decision, Admit):
            answer = self._writer.admit(request, decision, now)
        else:
            answer = self._writer.deny(request, decision.phrase, now)
        seconds = time.perf_counter() - started
        self.stats.decided(decision, now, seconds)
        self._audit.write(make_record(request, decision, now, int(seconds * 1e6), with_request=self.keep_requests))
        return answer

    def unanswered(self, error: WireError) -> None:
        """Count and log a message that gets no reply; the first of a kind, then every thousandth."""
        self.stats.unanswered[error.fault] += 1
        if self.stats.unanswered[error.fault] % 1000 == 1:
            _log.warning("request not answered: %s (%d so far)", error, self.stats.unanswered[error.fault])

    def _decide(self, request: AuthorizationRequest, now: float) -> Decision:
        try:
            return decide(request, self.policy, now)
        except Exception:  # whatever went wrong, the connection does not get in
            _log.exception("decision failed; the connection is denied")
            return Deny(rule=Rule.NONE, code=DenyCode.INTERNAL_ERROR, detail="the decision failed; see the log")


class Service:
    """Serves every configured broker until told to stop."""

    def __init__(self, settings: Settings, callout: Callout, interests: Sequence[Interest] = ()) -> None:
        """``interests`` are subscribed at every broker besides the requests."""
        self.callout = callout
        seed = settings.nkey_seed
        assert seed is not None  # `serve` loads settings that have one
        self._links = [BrokerLink(broker, seed, self._on_request, interests) for broker in settings.brokers]

    @property
    def links(self) -> Sequence[BrokerLink]:
        """One link for each configured broker."""
        return self._links

    async def run(self, stop: asyncio.Event, before_close: Callable[[], Awaitable[None]] | None = None) -> None:
        """Serve until ``stop`` is set, then drain: every request received is answered first.

        Args:
            stop: ends it.
            before_close: awaited when all is answered, while the brokers can still be reached.
        """
        keepers = [asyncio.create_task(link.keep()) for link in self._links]
        await stop.wait()
        await asyncio.gather(*(link.drain() for link in self._links))
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
        if not message.reply:
            self.callout.unanswered(WireError(WireFault.NO_REPLY_SUBJECT, "request wants no reply"))
            return
        headers = message.headers
        answer = self.callout.answer(message.data, headers.get(XKEY_HEADER) if headers else None, time.time())
        if answer is None:
            return
        try:
            await link.reply(message.reply, answer)
        except Exception as error:  # the broker is gone, and with it the connection that asked
            self.callout.stats.reply_failures += 1
            _log.warning("answer could not be sent to %s: %s", link.name, error)


def make_callout(settings: Settings, policy: Policy, audit: AuditSink, *, keep_requests: bool = False) -> Callout:
    """A callout with the keys of these settings.

    Raises:
        InputError: a seed is not of the kind it should be.
    """
    assert settings.issuer_seed is not None  # `serve` loads settings that have one
    sealer = None
    if settings.xkey_seed is not None:
        sealer = Sealer(decode_seed(settings.xkey_seed.reveal(), Kind.CURVE))
    return Callout(
        policy=policy,
        reader=RequestReader(sealer),
        writer=ReplyWriter(decode_seed(settings.issuer_seed.reveal(), Kind.ACCOUNT), sealer),
        audit=audit,
        stats=Stats(),
        keep_requests=keep_requests,
    )
