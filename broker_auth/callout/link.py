"""One broker's connection: kept for as long as the service runs, whatever happens to the broker."""

from __future__ import annotations

import asyncio
import logging
import ssl
from collections.abc import Awaitable, Callable, Collection, Sequence
from dataclasses import dataclass
from typing import Any, Final

from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.aio.subscription import Subscription
from nats.errors import Error as NatsError
from nats.errors import ProtocolError
from nats.protocol.parser import AWAITING_MSG_PAYLOAD, Parser

from broker_auth.errors import OperationError
from broker_auth.natspy import unsubscribe
from broker_auth.observe.doctor.versions import unsafe
from broker_auth.secret import Secret
from broker_auth.secured import SecuredClient
from broker_auth.settings.model import BrokerSettings

SUBJECT: Final = "$SYS.REQ.USER.AUTH"  # INTERFACE "Wire"
QUEUE: Final = "broker-auth"
DRAIN_SECONDS: Final = 10.0
_RETRY_SECONDS: Final = 1.0
_MAX_MESSAGE_BYTES: Final = 8 * 1024 * 1024  # what nats-server thinks the most reasonable; requests are much smaller
_MAX_LINE_BYTES: Final = 256 * 1024  # the longest is INFO, a few KB; nats-py looks at all of it at each read
_PING_SECONDS: Final = 20  # a dead connection is noticed after two of these

Handler = Callable[["BrokerLink", Msg], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class Interest:
    """A subject besides authorization requests; nothing is lost that matters if it is not served."""

    subject: str
    handler: Handler
    queue: str = ""


_log = logging.getLogger(__name__)


class _Parser(Parser):
    """Ends the connection to a broker that says more at once than any broker has to say.

    An edge in strange hands could otherwise make a worker, which serves the fleet too, run out of memory.
    """

    async def parse(self, data: bytes = b"") -> None:
        await super().parse(data)
        in_message = self.state == AWAITING_MSG_PAYLOAD
        if self.needed > _MAX_MESSAGE_BYTES if in_message else len(self.buf) > _MAX_LINE_BYTES:
            self.reset()
            raise ProtocolError


class _Client(SecuredClient):
    """Remembers which account the server put it in; older servers do not say (before 2.12 or so)."""

    account = ""

    def __init__(self) -> None:
        super().__init__()
        self._ps = _Parser(self)

    def before_info(self, info: dict[str, Any], initial: bool) -> None:
        super().before_info(info, initial)
        self.account = info.get("remote_account", "" if initial else self.account)


class BrokerLink:
    """Subscribes to one broker's authorization requests and stays subscribed.

    Attributes:
        subscribed: set while the broker can reach this service.
    """

    def __init__(
        self,
        broker: BrokerSettings,
        seed: Secret,
        handler: Handler,
        interests: Sequence[Interest] = (),
        others: Collection[str] = (),
        tls: ssl.SSLContext | None = None,
    ) -> None:
        """Connects nowhere yet.

        Args:
            broker: where to connect.
            seed: whom to log in as.
            handler: takes each authorization request.
            interests: what else to subscribe to.
            others: accounts in which no request ever arrives: getting in there is a failure.
            tls: what is presented to the broker, and what it is known by.
        """
        self.name = broker.name
        self.role = broker.role
        self.subscribed = asyncio.Event()
        self._broker = broker
        self._seed = seed
        self._handler = handler
        self._interests = tuple(interests)
        self._others = frozenset(others)
        self._tls = tls
        self._draining = False
        self._client: _Client | None = None
        self._subscription: Subscription | None = None
        self._closed = asyncio.Event()
        self._last_error = ""

    async def keep(self) -> None:
        """Connect, and connect anew whenever the client gives up (NATS_FACTS 25). Ends by cancellation."""
        while True:
            try:
                await self._connect()
                await self._closed.wait()
            except Exception as error:  # whatever answers there may be a broker the next time
                self._report(error)
                await self.close()
            self.subscribed.clear()
            await asyncio.sleep(_RETRY_SECONDS)

    async def reply(self, subject: str, answer: bytes) -> None:
        """Send an answer.

        Raises:
            nats.errors.Error: the connection is closed or its buffer full.
        """
        assert self._client is not None
        await self._client.publish(subject, answer)

    @property
    def pending(self) -> int:
        """Requests received and not handed over yet."""
        return 0 if self._subscription is None else self._subscription.pending_msgs

    async def drain(self) -> None:
        """Stop receiving, and hand over what was received (NATS_FACTS 12).

        :meth:`settle` comes after it is answered, and :meth:`close` last.
        """
        self._draining = True
        client, subscription = self._client, self._subscription
        if client is None:
            return
        try:
            if client.is_connected and subscription is not None:
                async with asyncio.timeout(DRAIN_SECONDS):
                    # Unsubscribed for certain before `drain` stops listening: its own PING overtakes its UNSUB.
                    await unsubscribe(client, subscription)
                    await round_trip(client)
                    await subscription.drain()  # type: ignore[no-untyped-call]
                    await round_trip(client)
        except (NatsError, OSError, TimeoutError) as error:
            _log.warning("broker %s: not drained: %s", self.name, error or type(error).__name__)

    async def settle(self) -> None:
        """Wait until the broker has processed every answer."""
        try:
            if self._client is not None and self._client.is_connected:
                async with asyncio.timeout(DRAIN_SECONDS):
                    await round_trip(self._client)
        except (NatsError, OSError, TimeoutError) as error:
            _log.warning("broker %s: not drained: %s", self.name, error or type(error).__name__)

    async def close(self) -> None:
        """Close the connection, whatever state it is in: who keeps this link must not end with it."""
        if self._client is not None:
            try:
                await self._client.close()
            except Exception as error:  # uvloop refuses what nats-py still writes on a broken connection
                _log.debug("broker %s: not closed in order: %s", self.name, error)

    async def _connect(self) -> None:
        self._closed.clear()
        client = _Client()
        self._client = client
        await client.connect(
            servers=list(self._broker.urls),
            name="broker-auth",
            nkeys_seed_str=self._seed.reveal(),
            tls=self._tls,
            max_reconnect_attempts=-1,
            reconnect_time_wait=_RETRY_SECONDS,  # seconds, fractions work
            ping_interval=_PING_SECONDS,
            error_cb=self._on_error,
            disconnected_cb=self._on_disconnected,
            reconnected_cb=self._on_reconnected,
            closed_cb=self._on_closed,
        )

        # Requests last: once they come, everything else is in place.
        for interest in self._interests:
            await client.subscribe(interest.subject, queue=interest.queue, cb=self._bound(interest.handler))
        self._subscription = await client.subscribe(SUBJECT, queue=QUEUE, cb=self._bound(self._handler))
        await round_trip(client)
        self._check_account(client)
        self._last_error = ""
        self.subscribed.set()
        _log.info("broker %s: subscribed at %s", self.name, _where(client))
        self._check_version(client)

    def _check_account(self, client: _Client) -> None:
        """A service whose nkey the broker does not know is itself called out for, and may even be admitted."""
        if client.account in self._others:
            raise OperationError(
                f"taken for an ordinary connection, into account {client.account}: the nkey of nkey_seed_file is not "
                "among the broker's auth_users; render its configuration anew"
            )

    def _check_version(self, client: _Client) -> None:
        """Warn of a nats-server that does not hold what is decided; refusing it would lock its clients out."""
        version = str(client._server_info.get("version", ""))[:32]
        if reason := unsafe(version):
            _log.warning("broker %s: upgrade nats-server %r: %s", self.name, version, reason)

    def _bound(self, handler: Handler) -> Callable[[Msg], Awaitable[None]]:
        async def handle(message: Msg) -> None:
            await handler(self, message)

        return handle

    def _report(self, error: Exception) -> None:
        """Log a state, not each attempt: the same error twice in a row is one line."""
        text = str(error) or type(error).__name__
        if text != self._last_error:
            _log.warning("broker %s: %s", self.name, text)
            self._last_error = text

    async def _on_error(self, error: Exception) -> None:
        self._report(error)

    async def _on_disconnected(self) -> None:
        if self.subscribed.is_set() and not self._draining:
            _log.warning("broker %s: disconnected", self.name)
        self.subscribed.clear()

    async def _on_reconnected(self) -> None:
        if self._client is not None:
            try:
                await round_trip(self._client)
                self._check_account(self._client)
            except (NatsError, OSError, TimeoutError, OperationError) as error:
                self._report(error)
                await self._client.close()  # and :meth:`keep` begins anew
                return
        self._last_error = ""
        self.subscribed.set()
        _log.info("broker %s: subscribed again at %s", self.name, _where(self._client))

    async def _on_closed(self) -> None:
        self._closed.set()


async def round_trip(client: Client) -> None:
    """Return once the server has processed everything said so far.

    nats-py writes the PING of ``flush`` at once, ahead of commands that still wait for its flusher; the
    second PING comes after them.

    Raises:
        nats.errors.Error: the connection is closed or does not answer.
    """
    await client.flush()
    await client.flush()


def _where(client: Client | None) -> str:
    url = client.connected_url if client else None
    return url.netloc if url else "?"
