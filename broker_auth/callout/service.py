"""The callout service: connections to brokers, pending requests, and batches of them that are answered.

A received request is opened and queued in a :class:`Backlog`; then :class:`Callout` concludes a batch, the fleet's
requests first. Requests that cannot be answered in time are dropped before any signature is verified. No
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
from broker_auth.callout.client import MAX_SUBJECT
from broker_auth.callout.connection import BrokerConnection
from broker_auth.callout.deferred import Count, Deferred
from broker_auth.callout.extra_subscriptions import ExtraSubscription
from broker_auth.callout.freshness import Age
from broker_auth.callout.hedging import TICK_SECONDS, Held
from broker_auth.callout.request import Opened, WireFault, server_xkey
from broker_auth.errors import OperationError
from broker_auth.logs.limit import LogLimit
from broker_auth.natsio.tls import tls_context
from broker_auth.printable import printable
from broker_auth.settings.model import ServingSettings, Settings

ANSWER_DEADLINE: Final = 1.5  # seconds; clients give up after 2.0 or more (fact 10), which includes TLS
# Between batches the connections are read, so that new requests of a high priority are seen. Larger batches
# cost less for each request, so they are small only under load.
BATCH_SIZE: Final = 32
BATCH_UNDER_LOAD: Final = 8
HIGH_WATER_MARK: Final = 128  # pending requests
_SHED: Final = (WireFault.SHED, "more requests arrived than can be answered in time")
_STALE: Final = (WireFault.LATE, "request had waited too long when it was read")
_EXPIRED: Final = (WireFault.LATE, "request had expired when it arrived: the broker's clock and ours differ")
_log = logging.getLogger(__name__)


class _Waiting(Exchange, kw_only=True):
    """A pending request.

    Attributes:
        connection: the connection that it was received on.
        subject: the subject for its answer.
    """

    connection: BrokerConnection
    subject: str

    def park(self) -> None:
        """Keep only the signed token."""
        if isinstance(self.received, Opened):
            self.received = self.received.park()


class Service:
    """The service, which serves every configured broker until stopped."""

    def __init__(
        self,
        settings: ServingSettings,
        callout: Callout,
        contexts: Mapping[str, ssl.SSLContext | None],
        extra_subscriptions: Sequence[ExtraSubscription] = (),
        count: Count | None = None,
    ) -> None:
        """Prepare the connections without making any.

        Args:
            settings: which brokers, and the key to log in with.
            callout: what answers.
            contexts: by broker, as :func:`tls_contexts` returns them.
            extra_subscriptions: subscriptions at the brokers in addition to requests.
            count: counts the nodes of a token; None if nobody does on this host.
        """
        self.callout = callout
        names = settings.accounts
        others = (names.fleet, names.provisioning, names.system)
        self._connections = [
            BrokerConnection(
                broker,
                settings.served.nkey_seed,
                self._on_request,
                extra_subscriptions,
                others,
                contexts[broker.name],
                on_drop=self._on_drop,
                on_overflow=lambda: self.callout.not_answered(*_SHED),
                on_leave=self._on_leave,
            )
            for broker in settings.brokers
        ]
        self._numbers = {connection: number for number, connection in enumerate(self._connections)}
        self._backlog: Backlog[_Waiting] = Backlog(
            len(self._connections),
            lambda waiting: callout.priority(waiting.received, time.time()),
            unsorted=BATCH_SIZE,
        )
        self._limits = {connection: LogLimit() for connection in self._connections}
        self._arrived = asyncio.Event()
        self._ending = False
        self._deferred: Deferred[_Waiting] = Deferred(count, self._answer)

    @property
    def connections(self) -> Sequence[BrokerConnection]:
        """One connection for each configured broker."""
        return self._connections

    @property
    def pending(self) -> int:
        """Requests received and not answered yet."""
        return len(self._backlog) + len(self._deferred)

    @property
    def oldest(self) -> float:
        """Age of the oldest pending request in seconds; 0 without pending requests."""
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
            stop: set to end the service.
            before_close: awaited after the last answer, while the brokers are still connected.
            watched: other tasks that must not end before the service.

        Raises:
            OperationError: one of the tasks ended unexpectedly, after which the service was drained; a new process
                should be started.
        """
        maintaining = [
            asyncio.create_task(connection.run(), name=f"broker {connection.name}") for connection in self._connections
        ]
        answering = asyncio.create_task(self._answer_all(), name="answering")
        helping = asyncio.create_task(self._answer_for_others(), name="answering for others")
        stopping = asyncio.create_task(stop.wait())
        await asyncio.wait([stopping, answering, helping, *maintaining, *watched], return_when=asyncio.FIRST_COMPLETED)
        ended = [task for task in (answering, helping, *maintaining, *watched) if task.done()]
        stopping.cancel()
        helping.cancel()
        await asyncio.gather(*(connection.drain() for connection in self._connections))
        self._ending = True
        self._arrived.set()
        await asyncio.gather(answering, return_exceptions=True)
        await self._deferred.finish()
        await asyncio.gather(*(connection.settle() for connection in self._connections))
        if before_close is not None:
            await before_close()
            await asyncio.gather(*(connection.settle() for connection in self._connections))
        for task in maintaining:
            task.cancel()
        await asyncio.gather(helping, *maintaining, return_exceptions=True)
        await asyncio.gather(*(connection.close() for connection in self._connections))
        if ended and not stop.is_set():
            raise OperationError(f"task ended unexpectedly: {', '.join(map(_how, ended))}")

    async def wait_ready(self) -> None:
        """Return once every broker is subscribed."""
        await asyncio.gather(*(connection.subscribed.wait() for connection in self._connections))

    def _on_request(self, connection: BrokerConnection, reply: str, data: bytes, headers: bytes | None) -> None:
        """Queue a request; the backlog protects it from floods, also through other brokers."""
        opened = self._opened(connection, reply, data, headers)
        if opened is None:
            return
        waiting = _Waiting(received=opened, broker=connection.name, connection=connection, subject=reply)
        for _ in self._backlog.put(waiting, self._numbers[connection], len(data), time.monotonic()):
            self.callout.not_answered(*_SHED)
        # Above the high-water mark keep only the signed token, to save memory.
        if len(self._backlog) > HIGH_WATER_MARK:
            waiting.park()
        self._arrived.set()

    def _opened(self, connection: BrokerConnection, reply: str, data: bytes, headers: bytes | None) -> Opened | None:
        """Return the request if it can be answered."""
        if not 0 < len(reply) <= MAX_SUBJECT:  # it is stored with the request, beyond the limit on bytes
            self.callout.not_answered(WireFault.NO_REPLY_SUBJECT, "request has no usable reply subject")
            return None
        opened = self.callout.open(data, server_xkey(headers))
        if opened is None:
            connection.mark_answered(reply)  # other workers could not read it either
            return None
        claims = opened.claims
        difference = time.time() - claims.iat
        self.callout.skews.observe(connection.name, claims.nats.server_id.name, difference, time.monotonic())
        age = connection.intake.judge(claims.iat, claims.exp)
        if age is Age.YOUNG:
            return opened
        self.callout.not_answered(*(_STALE if age is Age.STALE else _EXPIRED))
        return None

    async def _answer_for_others(self) -> None:
        """Answer requests that other workers received but did not answer, while this worker is idle."""
        while True:
            await asyncio.sleep(TICK_SECONDS)
            for connection in self._connections:
                connection.tick()
                if len(self._backlog) >= HIGH_WATER_MARK:
                    connection.shed()
            # One batch of each broker, round robin, until the next messages to other workers are due.
            until = time.monotonic() + TICK_SECONDS
            busy = True
            while busy and not len(self._backlog) and time.monotonic() < until:
                busy = False
                for connection in self._connections:
                    if held := connection.due(BATCH_UNDER_LOAD):
                        busy = True
                        self._answer_held(connection, held)
                        await asyncio.sleep(0)

    def _answer_held(self, connection: BrokerConnection, held: Sequence[Held]) -> None:
        """Answer copies; an unexpected error in a copy must not end the worker."""
        batch = []
        for one in held:
            try:
                request = self._opened(connection, one.reply, one.data, one.headers)
            except Exception:
                self.callout.stats.reply_failures += 1
                if self._limits[connection].due():
                    _log.exception("broker %s: a copy of a request cannot be read", connection.name)
                continue
            if request is not None:
                batch.append(
                    _Waiting(received=request, broker=connection.name, connection=connection, subject=one.reply)
                )
        self.callout.stats.answered_for_others[connection.name] += len(batch)
        if batch:
            self._answer(batch)

    async def _answer_all(self) -> None:
        """Answer pending requests until the service ends and none are left."""
        while not self._ending:
            await self._arrived.wait()
            self._arrived.clear()
            while waiting := len(self._backlog):
                for _ in self._backlog.expire(time.monotonic() - ANSWER_DEADLINE):
                    self.callout.not_answered(*_SHED)
                self._answer(self._backlog.take(BATCH_SIZE if waiting < HIGH_WATER_MARK else BATCH_UNDER_LOAD))
                if len(self._backlog):
                    await asyncio.sleep(0)

    def _answer(self, batch: list[_Waiting]) -> None:
        batch = [waiting for waiting in batch if not waiting.connection.is_answered(waiting.subject)]
        if not batch:
            return
        self.callout.conclude(batch, time.time())
        uncounted = []
        for waiting in batch:
            if waiting.claim is not None and waiting.counted is None:
                if not self._deferred.add(waiting, waiting.claim):
                    uncounted.append(waiting)
                elif len(self._deferred) > HIGH_WATER_MARK:
                    waiting.park()
                continue
            if not waiting.answer:
                continue
            try:
                waiting.connection.reply(waiting.subject, waiting.answer)
                waiting.connection.mark_answered(waiting.subject)
            except Exception as error:  # the broker and the client's connection are gone
                self._not_sent(waiting.connection, 1, error)
        if uncounted:
            self._answer(uncounted)  # now they are denied

    def _on_drop(self, connection: BrokerConnection, lost: int) -> None:
        self.callout.stats.dropped[connection.name] += 1
        if lost:
            self._not_sent(connection, lost, "the broker does not read them")

    def _on_leave(self, connection: BrokerConnection) -> None:
        self.callout.stats.left[connection.name] += 1

    def _not_sent(self, connection: BrokerConnection, count: int, why: object) -> None:
        self.callout.stats.reply_failures += count
        limit = self._limits[connection]
        if limit.due(count):
            text = printable(str(why) or type(why).__name__)
            _log.warning("broker %s: answers could not be sent: %s (%d so far)", connection.name, text, limit.count)


def _how(task: asyncio.Task[None]) -> str:
    """Return the name of a task and how it ended."""
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
