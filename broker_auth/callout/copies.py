"""One connection's part in answering for others: words to the other workers, and copies of requests."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable

from nats.aio.subscription import Subscription
from nats.errors import Error as NatsError

from broker_auth.callout.client import BrokerClient
from broker_auth.callout.hedging import HOST, Peers
from broker_auth.natsio.subjects import COPY_QUEUE, PEERS_SUBJECT

_log = logging.getLogger(__name__)


class Copies:
    """Takes part at one broker for as long as one connection to it lasts.

    Attributes:
        peers: the other workers that this broker reaches.
        permitted: whether the broker lets this service take part.
    """

    def __init__(self, client: BrokerClient, subject: str, round_trip: Callable[[], Awaitable[None]]) -> None:
        """Subscribe to nothing yet.

        Args:
            client: the connection, made.
            subject: that of requests.
            round_trip: returns when the server has processed what was said.
        """
        self.peers = Peers(HOST, client.server_id)
        self.permitted = False
        self._client = client
        self._requests = subject
        self._round_trip = round_trip
        self._copies: Subscription | None = None
        self._changing: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Listen to the others, if the broker permits it."""
        await self._round_trip()  # what was refused before is not about this
        refused = self._client.refusals
        self._client.tap(await self._client.subscribe(PEERS_SUBJECT), self._hear)
        await self._round_trip()
        self.permitted = self._client.refusals == refused

    def tick(self) -> None:
        """Do what is due, ten times a second or so."""
        if not self.permitted or not self._client.is_connected:
            return
        for word in self.peers.tick(_now()):
            self._say(word)
        if self.peers.watching is (self._copies is None) and (self._changing is None or self._changing.done()):
            self._changing = asyncio.create_task(self._change(self.peers.watching))

    def retire(self) -> None:
        """Give up a duty; what is answered yet is told by :meth:`leave`."""
        self.peers.able = False
        self.tick()

    def leave(self) -> None:
        """Tell the others what was answered last, and that this worker is gone."""
        if self.permitted and self._client.is_connected:
            self.permitted = False
            for word in self.peers.leave(_now()):
                self._say(word)

    def _hear(self, _: bytes, data: bytes, __: bytes | None) -> None:
        self.peers.hear(data, _now())

    def _hold(self, reply: bytes, data: bytes, headers: bytes | None) -> None:
        self.peers.hold(reply, data, headers, _now())

    def _say(self, word: bytes) -> None:
        try:
            self._client.send(PEERS_SUBJECT, word)
        except NatsError as error:  # the connection has ended; :class:`BrokerLink` sees that, too
            _log.debug("not said to the other workers: %s", error)

    async def _change(self, wanted: bool) -> None:
        try:
            if wanted:
                group = f"{COPY_QUEUE}.{self.peers.id}"
                copies = await self._client.subscribe(self._requests, queue=group)
                self._client.tap(copies, self._hold)
                self._copies = copies
            elif self._copies is not None:
                copies, self._copies = self._copies, None
                await copies.unsubscribe()
                self._client.untap(copies)
        except NatsError as error:
            _log.debug("copies: %s", error)


def _now() -> float:
    return asyncio.get_running_loop().time()
