"""The subscription to requests at one broker, which pauses while every request has expired because clocks differ."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable
from typing import Final

from nats.aio.subscription import Subscription
from nats.errors import Error as NatsError

from broker_auth.callout.broker_log import BrokerLog
from broker_auth.callout.client import BrokerClient, Tap
from broker_auth.callout.copies import Copies
from broker_auth.callout.freshness import Age, Freshness
from broker_auth.natsio.client import round_trip
from broker_auth.natsio.subjects import AUTH_QUEUE, AUTH_REQUEST_SUBJECT

RETURN_SECONDS: Final = 5.0  # until a worker that unsubscribed subscribes again, to check whether it can answer
_CHECK_SECONDS: Final = 0.5
_EXPIRED_IN_A_ROW: Final = 3  # requests, after which a worker unsubscribes
_STEP_SECONDS: Final = 1.0  # a larger change of the clock means that it was set


class Intake:
    """The requests of one broker, as one connection after the other receives them.

    Attributes:
        away: whether this worker has unsubscribed because clocks differ.
        subscription: the subscription to requests; None while unsubscribed.
    """

    def __init__(self, log: BrokerLog, take: Tap, on_leave: Callable[[], None]) -> None:
        """Take no requests yet.

        Args:
            log: of the broker.
            take: called with each request when it is read; must not raise.
            on_leave: called when this worker unsubscribes because clocks differ.
        """
        self.away = False
        self.subscription: Subscription | None = None
        self._log = log
        self._take = take
        self._on_leave = on_leave
        self._client: BrokerClient | None = None
        self._copies: Copies | None = None
        self._freshness = Freshness()
        self._expired = 0
        self._returning: asyncio.Task[None] | None = None
        self._ending = False

    def begin(self, client: BrokerClient) -> None:
        """Forget the previous connection; ``client`` is about to connect."""
        self.away, self._expired = False, 0
        self._freshness = Freshness()
        self._client, self._copies, self.subscription = client, None, None

    async def start(self, client: BrokerClient, copies: Copies) -> None:
        """Subscribe; ``copies`` tells the other workers whether this one can answer."""
        self._copies = copies
        await self._subscribe(client)

    def end(self) -> None:
        """Do not subscribe any more."""
        self._ending = True

    def close(self) -> None:
        """Note that the connection is closed."""
        if self._returning is not None:
            self._returning.cancel()

    def judge(self, issued: int, expires: int) -> Age:
        """Judge a request by its ``iat`` and ``exp``; unsubscribe if all are expired because clocks differ."""
        now = asyncio.get_running_loop().time()
        self._freshness.proven = self._client.proven if self._client else float("-inf")
        age = self._freshness.judge(issued, expires, time.time(), now)
        if age is Age.EXPIRED:
            self._expired += 1
            self._set_able(False)
            if self._expired >= _EXPIRED_IN_A_ROW or self.away:
                self._leave(time.time() - issued)
        elif age is Age.YOUNG and self._expired:
            self._return("the clocks agree again")
        return age

    async def _subscribe(self, client: BrokerClient) -> None:
        self.subscription = await client.subscribe(AUTH_REQUEST_SUBJECT, queue=AUTH_QUEUE)
        client.tap(self.subscription, self._take)
        client.check(asyncio.get_running_loop().time())
        await round_trip(client)

    def _return(self, why: str) -> None:
        """Note that this worker can answer requests again."""
        self._expired = 0
        self._set_able(True)
        if self.away:
            self.away = False
            self._log.line(logging.INFO, f"{why}: subscribing to requests again")

    def _set_able(self, able: bool) -> None:
        if self._copies is not None:
            self._copies.set_able(able)

    def _leave(self, difference: float) -> None:
        """Unsubscribe from requests, and try again later."""
        if not self.away:
            self.away = True
            self._log.line(
                logging.ERROR,
                f"its requests have expired on arrival: its clock and ours differ by about {difference:.0f} s; "
                "unsubscribed from requests until the clocks agree; synchronize both clocks",
            )
            self._on_leave()
        client, subscription, self.subscription = self._client, self.subscription, None
        if client is not None and subscription is not None:
            self._returning = asyncio.create_task(self._resubscribe_later(client, subscription))

    async def _resubscribe_later(self, client: BrokerClient, subscription: Subscription) -> None:
        try:
            await subscription.unsubscribe()
            client.untap(subscription)
            offset = time.time() - time.monotonic()
            for _ in range(int(RETURN_SECONDS / _CHECK_SECONDS)):
                await asyncio.sleep(_CHECK_SECONDS)
                if abs(time.time() - time.monotonic() - offset) > _STEP_SECONDS:
                    # The clock was set; without requests nothing else shows that it is correct now.
                    self._return("this machine's clock was set")
                    break
        except NatsError as error:
            self._log.report(error)
        if client is self._client and client.is_connected and not self._ending:
            with contextlib.suppress(NatsError, OSError):
                await self._subscribe(client)
