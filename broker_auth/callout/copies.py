"""The part of a connection in answering for other workers: messages to them, and copies of requests."""

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
    """Copies of requests at one broker, for the lifetime of a connection.

    Attributes:
        peers: the other workers at this broker.
        permitted: whether the broker's configuration permits the messages between workers.
    """

    def __init__(self, client: BrokerClient, subject: str, round_trip: Callable[[], Awaitable[None]]) -> None:
        """Create the state without subscribing.

        Args:
            client: the connected client.
            subject: the subject of requests.
            round_trip: waits until the server has processed everything that was sent.
        """
        self.peers = Peers(HOST, client.server_id)
        self.permitted = False
        self._client = client
        self._requests = subject
        self._round_trip = round_trip
        self._copies: Subscription | None = None
        self._changing: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Subscribe to the messages of other workers, if the broker permits it."""
        await self._round_trip()  # counts earlier refusals
        refused = self._client.refusals
        self._client.tap(await self._client.subscribe(PEERS_SUBJECT), self._receive)
        await self._round_trip()
        self.permitted = self._client.refusals == refused

    def tick(self) -> None:
        """Send due messages and change the subscription to copies; called about ten times a second."""
        if not self.permitted or not self._client.is_connected:
            return
        for message in self.peers.tick(_now()):
            self._send(message)
        if self.peers.watching is (self._copies is None) and (self._changing is None or self._changing.done()):
            self._changing = asyncio.create_task(self._change(self.peers.watching))

    def set_able(self, able: bool) -> None:
        """Tell the other workers at once if this worker cannot answer any more, or can again: they have the copies."""
        if self.peers.able is not able:
            self.peers.able = able
            self.tick()

    def retire(self) -> None:
        """Give up the duty; :meth:`leave` reports later answers."""
        self.peers.able = False
        self.tick()

    def leave(self) -> None:
        """Report the last answers to the other workers, and that this worker leaves."""
        if self.permitted and self._client.is_connected:
            self.permitted = False
            for message in self.peers.leave(_now()):
                self._send(message)

    def _receive(self, _: bytes, data: bytes, __: bytes | None) -> None:
        self.peers.receive(data, _now())

    def _hold(self, reply: bytes, data: bytes, headers: bytes | None) -> None:
        self.peers.hold(reply, data, headers, _now())

    def _send(self, message: bytes) -> None:
        try:
            self._client.send(PEERS_SUBJECT, message)
        except Exception as error:  # the connection has ended, which :class:`BrokerConnection` notices too
            _log.debug("not sent to the other workers: %s", error)

    async def _change(self, watching: bool) -> None:
        try:
            if watching:
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
