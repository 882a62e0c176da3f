"""The callout service: connections to brokers, requests that wait, and batches of them on their way to an answer.

A request that arrives is opened and waits in a :class:`Backlog`; then :class:`Callout` concludes a batch, the
fleet's requests first. Requests that cannot be answered in time are dropped before any signature is verified. No
step waits for a socket, a file or a pipe.
"""

from __future__ import annotations

import asyncio
import logging
import ssl
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Final

from broker_auth.callout.backlog import Backlog
from broker_auth.callout.callout import Callout, Exchange
from broker_auth.callout.connection import BrokerLink, Interest
from broker_auth.callout.freshness import Age
from broker_auth.callout.hedging import TICK_SECONDS, Held
from broker_auth.callout.request import Opened, WireFault, server_xkey
from broker_auth.errors import OperationError
from broker_auth.logs.limit import LogLimit
from broker_auth.natsio.tls import tls_context
from broker_auth.printable import printable
from broker_auth.settings.model import ServingSettings, Settings

ANSWER_DEADLINE: Final = 1.5  # seconds; clients give up at 2.0 and more (fact 10), and TLS took its time
# Between batches the connections are read, so that new requests of a high priority are seen. Larger batches
# cost less for each request, so they are small only under load.
BATCH_SIZE: Final = 32
BATCH_UNDER_LOAD: Final = 8
HIGH_WATER_MARK: Final = 128  # requests that wait
_SHED: Final = (WireFault.SHED, "more requests arrived than can be answered in time")
_STALE: Final = (WireFault.LATE, "request had waited too long when it was read")
_EXPIRED: Final = (WireFault.LATE, "request had expired when it arrived: the broker's clock and ours differ")
_log = logging.getLogger(__name__)


class _Waiting(Exchange, kw_only=True):
    """A request that waits to be answered.

    Attributes:
        link: the connection that it came by.
        subject: where its answer is published.
    """

    link: BrokerLink
    subject: str


class Service:
    """Serves every configured broker until told to stop."""

    def __init__(
        self,
        settings: ServingSettings,
        callout: Callout,
        contexts: Mapping[str, ssl.SSLContext | None],
        interests: Sequence[Interest] = (),
    ) -> None:
        """Prepare the connections without making any.

        Args:
            settings: which brokers, and the key to log in with.
            callout: what answers.
            contexts: by broker, as :func:`tls_contexts` returns them.
            interests: subscribed at every broker besides the requests.
        """
        self.callout = callout
        names = settings.accounts
        others = (names.fleet, names.provisioning, names.system)
        self._links = [
            BrokerLink(
                broker,
                settings.served.nkey_seed,
                self._on_request,
                interests,
                others,
                contexts[broker.name],
                on_drop=self._on_drop,
                on_overflow=lambda: self.callout.not_answered(*_SHED),
                on_leave=self._on_leave,
            )
            for broker in settings.brokers
        ]
        self._numbers = {link: number for number, link in enumerate(self._links)}
        self._backlog: Backlog[_Waiting] = Backlog(
            len(self._links), lambda waiting: callout.priority(waiting.received, time.time())
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
        waiting = _Waiting(received=opened, broker=link.name, link=link, subject=reply)
        for _ in self._backlog.put(waiting, self._numbers[link], len(data), time.monotonic()):
            self.callout.not_answered(*_SHED)
        # Above the high-water mark keep only the signed token, to save memory.
        if len(self._backlog) > HIGH_WATER_MARK:
            waiting.received = opened.park()
        self._arrived.set()

    def _opened(self, link: BrokerLink, reply: str, data: bytes, headers: bytes | None) -> Opened | None:
        """Return a request that can be answered."""
        if not reply:
            self.callout.not_answered(WireFault.NO_REPLY_SUBJECT, "request wants no reply")
            return None
        opened = self.callout.open(data, server_xkey(headers))
        if opened is None:
            link.done_with(reply)  # nobody else could read it either
            return None
        claims = opened.claims
        difference = time.time() - claims.iat
        self.callout.skews.observe(link.name, claims.nats.server_id.name, difference, time.monotonic())
        age = link.judge(claims.iat, claims.exp)
        if age is Age.YOUNG:
            return opened
        self.callout.not_answered(*(_STALE if age is Age.STALE else _EXPIRED))
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
                batch.append(_Waiting(received=request, broker=link.name, link=link, subject=one.reply))
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
                    self.callout.not_answered(*_SHED)
                size = BATCH_SIZE if len(self._backlog) < HIGH_WATER_MARK else BATCH_UNDER_LOAD
                if not (batch := self._backlog.take(size)):
                    break
                self._answer(batch)
                await asyncio.sleep(0)

    def _answer(self, batch: list[_Waiting]) -> None:
        batch = [waiting for waiting in batch if not waiting.link.is_answered(waiting.subject)]
        if not batch:
            return
        self.callout.conclude(batch, time.time())
        for waiting in batch:
            if not waiting.answer:
                continue
            try:
                waiting.link.reply(waiting.subject, waiting.answer)
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
    """Return the TLS context for each broker, by name; None where no TLS files are configured.

    Raises:
        InputError: a TLS file cannot be used.
    """
    return {broker.name: tls_context(broker.tls) for broker in settings.brokers}
