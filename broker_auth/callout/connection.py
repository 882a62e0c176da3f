"""One broker's connection: kept for as long as the service runs, whatever happens to the broker."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import ssl
import time
from collections.abc import Awaitable, Callable, Collection, Sequence
from dataclasses import dataclass
from typing import Final

from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.aio.subscription import Subscription
from nats.errors import ConnectionClosedError, SlowConsumerError
from nats.errors import Error as NatsError

from broker_auth.callout.client import BrokerClient
from broker_auth.callout.copies import Copies
from broker_auth.callout.freshness import Age, Freshness
from broker_auth.callout.hedging import Held
from broker_auth.errors import OperationError
from broker_auth.logs.limit import LogLimit
from broker_auth.natsio.client import round_trip
from broker_auth.natsio.natspy import unsubscribe
from broker_auth.natsio.subjects import AUTH_QUEUE, AUTH_REQUEST_SUBJECT
from broker_auth.natsio.versions import unsafe
from broker_auth.printable import printable
from broker_auth.secret import Secret
from broker_auth.settings.model import BrokerSettings

DRAIN_SECONDS: Final = 10.0
HEARD_SECONDS: Final = 5.0  # without an answer to a PING, after which the broker does not count as reached
RETURN_SECONDS: Final = 5.0  # until a worker that left asks for work again, to see whether it can answer now
_EXPIRED_IN_A_ROW: Final = 3  # requests, after which it leaves
_RETRY_SECONDS: Final = 1.0
_CHECK_SECONDS: Final = 0.5
_STEP_SECONDS: Final = 1.0  # by which a clock must be set to count as set
_MAX_PENDING: Final = 8192  # messages of one subscription that are not handed over yet, and their bytes
_MAX_PENDING_BYTES: Final = 8 * 1024 * 1024
_NOT_PERMITTED: Final = (
    "its configuration was rendered by an older version: other workers cannot answer for this one should it fall "
    "silent; render it again and restart nats-server"
)
_VIOLATION: Final = "permissions violation for subscription"
_SHOWN: Final = 256  # characters of an error that a broker sent
_LOG_BURST: Final = 20  # lines about one broker at once; it can make us write them by coming and going

Handler = Callable[["BrokerLink", Msg], Awaitable[None]]
RequestHandler = Callable[["BrokerLink", str, bytes, "bytes | None"], None]
"""Takes a request as it is read: its reply subject, the message and its headers."""


@dataclass(frozen=True, slots=True)
class Interest:
    """An additional, best-effort subscription.

    Attributes:
        brokers: names of the brokers to subscribe at; None for all.
        if_refused: what to log where the broker's configuration does not allow it.
    """

    subject: str
    handler: Handler
    queue: str = ""
    brokers: Collection[str] | None = None
    if_refused: str = ""


_log = logging.getLogger(__name__)


class BrokerLink:
    """Subscribes to one broker's authorization requests and stays subscribed.

    Attributes:
        subscribed: set while the broker can reach this service.
        away: why this worker asks for no requests; "" while it does.
    """

    def __init__(
        self,
        broker: BrokerSettings,
        seed: Secret,
        handler: RequestHandler,
        interests: Sequence[Interest] = (),
        others: Collection[str] = (),
        tls: ssl.SSLContext | None = None,
        on_drop: Callable[[BrokerLink, int], None] = lambda *_: None,
        on_overflow: Callable[[], None] = lambda: None,
        on_leave: Callable[[BrokerLink], None] = lambda _: None,
    ) -> None:
        """Connects nowhere yet.

        Args:
            broker: where to connect.
            seed: whom to log in as.
            handler: takes each authorization request.
            interests: what else to subscribe to.
            others: accounts in which no request ever arrives: getting in there is a failure.
            tls: what is presented to the broker, and what it is known by.
            on_drop: is told when the connection was dropped because the broker did not read, and how many
                messages were lost.
            on_overflow: is told of each message that came faster than it could be handed over.
            on_leave: is told when this worker asks for no more requests.
        """
        self.name = broker.name
        self.role = broker.role
        self.subscribed = asyncio.Event()
        self._broker = broker
        self._seed = seed
        self._handler = handler
        self._interests = tuple(item for item in interests if item.brokers is None or self.name in item.brokers)
        self._refused: set[str] = set()
        self._others = frozenset(others)
        self._tls = tls
        self._draining = False
        self._on_drop = on_drop
        self._on_overflow = on_overflow
        self._on_leave = on_leave
        self.away = ""
        self._freshness = Freshness()
        self._expired = 0
        self._returning: asyncio.Task[None] | None = None
        self._copies: Copies | None = None
        self._told_refusal = False
        self._subscribed_before = False
        self._lines = LogLimit(_LOG_BURST)
        self._client: BrokerClient | None = None
        self._subscription: Subscription | None = None
        self._closed = asyncio.Event()
        self._last_error = ""

    async def run(self) -> None:
        """Connect, and connect again whenever the connection ends (docs/nats-server.md fact 25).

        Ends by cancellation only.
        """
        while True:
            try:
                await self._connect()
                await self._until_closed()
            except Exception as error:  # whatever answers there may be a broker the next time
                self._report(error)
            self._lost()
            await self.close()
            await asyncio.sleep(_RETRY_SECONDS)

    def reply(self, subject: str, answer: bytes) -> None:
        """Send an answer, without waiting for the broker to read it.

        Raises:
            nats.errors.Error: the connection is closed, or was dropped because the broker does not read.
        """
        if self._client is None:
            raise ConnectionClosedError
        self._client.send(subject, answer)

    @property
    def ready(self) -> bool:
        """Whether the broker can ask this worker, as far as is known: it has answered a PING lately."""
        heard = self._client is not None and asyncio.get_running_loop().time() - self._client.proven <= HEARD_SECONDS
        return self.subscribed.is_set() and not self.away and heard

    @property
    def unsent(self) -> int:
        """Bytes that wait for the broker to read others."""
        return 0 if self._client is None else self._client.unsent

    async def drain(self) -> None:
        """Stop receiving, and hand over what was received (docs/nats-server.md fact 12).

        :meth:`settle` comes after it is answered, and :meth:`close` last. A broker that does not take part is
        dropped, so that it does not delay the others.
        """
        self._draining = True
        client, subscription = self._client, self._subscription
        if self._copies is not None:
            self._copies.retire()
        if client is None:
            return
        try:
            if client.is_connected and subscription is not None:
                async with asyncio.timeout(DRAIN_SECONDS):
                    # What was sent before the broker knew is read, and handed over, by then.
                    await unsubscribe(client, subscription)
                    await round_trip(client)
        except (NatsError, OSError, TimeoutError) as error:
            _log.warning("broker %s: not drained: %s", self.name, printable(str(error)) or type(error).__name__)
            if client.is_connected:
                client.drop("did not answer while draining")

    async def settle(self) -> None:
        """Wait until the broker has processed every answer."""
        if self._copies is not None:
            self._copies.leave()
        try:
            if self._client is not None and self._client.is_connected:
                async with asyncio.timeout(DRAIN_SECONDS):
                    await round_trip(self._client)
        except (NatsError, OSError, TimeoutError) as error:
            _log.warning("broker %s: not drained: %s", self.name, error or type(error).__name__)

    async def close(self) -> None:
        """Close the connection, whatever state it is in; must not raise: the loop of :meth:`run` has to survive."""
        if self._returning is not None:
            self._returning.cancel()
        if self._client is not None:
            try:
                await self._client.close()
            except Exception as error:  # uvloop refuses what nats-py still writes on a broken connection
                _log.debug("broker %s: not closed in order: %s", self.name, error)

    async def _connect(self) -> None:
        self._closed.clear()
        self._forget()
        client = BrokerClient(self._on_dropped)
        self._client = client
        await client.connect(
            servers=list(self._broker.urls),
            name="broker-auth",
            nkeys_seed_str=self._seed.reveal(),
            tls=self._tls,
            allow_reconnect=False,  # :meth:`run` does: nats-py keeps stale answers, and waits for a peer to read them
            max_reconnect_attempts=-1,
            reconnect_time_wait=_RETRY_SECONDS,  # seconds, fractions work
            error_cb=self._on_error,
            closed_cb=self._on_closed,
        )

        # Requests last: once they come, everything else is in place.
        for interest in self._interests:
            await self._subscribe(client, interest.subject, interest.queue, interest.handler)
        self._copies = Copies(client, AUTH_REQUEST_SUBJECT, lambda: round_trip(client))
        await self._copies.start()
        self._check_account(client)
        self._last_error = ""
        if not self._copies.permitted and not self._told_refusal:
            self._told_refusal = True
            self._say(logging.WARNING, _NOT_PERMITTED)
        await self._ask(client)
        self.subscribed.set()
        self._say(logging.INFO, f"subscribed{' again' if self._subscribed_before else ''} at {_where(client)}")
        self._subscribed_before = True
        self._check_version(client)

    async def _ask(self, client: BrokerClient) -> None:
        """Subscribe to requests."""
        subscription = await client.subscribe(AUTH_REQUEST_SUBJECT, queue=AUTH_QUEUE)
        client.tap(subscription, self._on_request)
        self._subscription = subscription
        client.check(asyncio.get_running_loop().time())
        await round_trip(client)

    async def _subscribe(self, client: Client, subject: str, queue: str, handler: Handler) -> Subscription:
        return await client.subscribe(
            subject,
            queue=queue,
            cb=self._bound(handler),
            pending_msgs_limit=_MAX_PENDING,
            pending_bytes_limit=_MAX_PENDING_BYTES,
        )

    async def _until_closed(self) -> None:
        """Return when the connection has ended; end it if the broker does not read."""
        client, clock = self._client, asyncio.get_running_loop().time
        assert client is not None  # connected before
        while not client.is_closed:
            client.check(clock())
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._closed.wait(), _CHECK_SECONDS)

    def _check_account(self, client: BrokerClient) -> None:
        """A service whose nkey the broker does not know is itself called out for, and may even be admitted."""
        if client.account in self._others:
            raise OperationError(
                f"taken for an ordinary connection, into account {client.account}: the nkey of nkey_seed_file is not "
                "among the broker's auth_users; render its configuration anew"
            )

    def _check_version(self, client: BrokerClient) -> None:
        """Warn of a nats-server that does not hold what is decided; refusing it would lock its clients out."""
        if reason := unsafe(client.server_version):
            self._say(logging.WARNING, f"upgrade nats-server {client.server_version!r}: {reason}")

    def _bound(self, handler: Handler) -> Callable[[Msg], Awaitable[None]]:
        async def handle(message: Msg) -> None:
            await handler(self, message)

        return handle

    # -- requests -----------------------------------------------------------------------------

    def judge(self, issued: int, expires: int) -> Age:
        """Judge a request read now by its ``iat`` and ``exp``, and leave if the clocks make all of them late."""
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

    def is_answered(self, subject: str) -> bool:
        """Return whether another worker has answered a request, while this one stood still or was busy."""
        return self._copies is not None and self._copies.permitted and self._copies.peers.is_answered(subject)

    def done_with(self, subject: str) -> None:
        """Tell the other workers that a request needs no answer of theirs."""
        if self._copies is not None and self._copies.permitted:
            self._copies.peers.settle(subject)

    def tick(self) -> None:
        """Say to the other workers what there is to say; called ten times a second."""
        if self._copies is not None and not self._draining:
            self._copies.tick()

    def due(self, count: int) -> list[Held]:
        """Return requests that others have not answered in time."""
        if self._copies is None or not self._copies.permitted or self._draining:
            return []
        return self._copies.peers.due(asyncio.get_running_loop().time(), count)

    def shed(self) -> None:
        """Drop what is kept in case others do not answer."""
        if self._copies is not None:
            self._copies.peers.shed()

    def _on_request(self, reply: bytes, data: bytes, headers: bytes | None) -> None:
        try:
            self._handler(self, reply.decode(), data, headers)
        except Exception as error:  # one message must not end the connection
            self._report(error)

    def _return(self, why: str) -> None:
        """Count as able to answer again."""
        self._expired = 0
        self._set_able(True)
        if self.away:
            self.away = ""
            self._say(logging.INFO, f"{why}: asks for requests again")

    def _set_able(self, able: bool) -> None:
        if self._copies is not None and self._copies.peers.able is not able:
            self._copies.peers.able = able
            self._copies.tick()  # at once: whoever takes over has the copies

    def _leave(self, difference: float) -> None:
        """Ask for no more requests, and try again later."""
        if not self.away:
            self.away = "clock"
            self._say(
                logging.ERROR,
                f"its requests have expired when they arrive: its clock and ours differ, by some {difference:.0f} s; "
                "asks for no more requests until they agree",
            )
            self._on_leave(self)
        client, subscription, self._subscription = self._client, self._subscription, None
        if client is not None and subscription is not None:
            self._returning = asyncio.create_task(self._pause(client, subscription))

    async def _pause(self, client: BrokerClient, subscription: Subscription) -> None:
        try:
            await subscription.unsubscribe()
            client.untap(subscription)
            offset = time.time() - time.monotonic()
            for _ in range(int(RETURN_SECONDS / _CHECK_SECONDS)):
                await asyncio.sleep(_CHECK_SECONDS)
                if abs(time.time() - time.monotonic() - offset) > _STEP_SECONDS:
                    # The clock was set. Where nobody asks, nothing else would tell that it is right now.
                    self._return("this machine's clock was set")
                    break
        except NatsError as error:
            self._report(error)
        if client is self._client and client.is_connected and not self._draining:
            with contextlib.suppress(NatsError, OSError):
                await self._ask(client)

    def _forget(self) -> None:
        """Forget what was true of the last connection."""
        self.away, self._expired = "", 0
        self._freshness = Freshness()
        self._copies = None

    def _report(self, error: Exception) -> None:
        """Log a state, not each attempt: the same error twice in a row is one line."""
        text = printable(str(error) or type(error).__name__, _SHOWN)
        if text != self._last_error:
            self._say(logging.WARNING, text)
            self._last_error = text

    def _say(self, level: int, text: str) -> None:
        if self._lines.due():
            _log.log(level, "broker %s: %s", self.name, text)

    def _lost(self) -> None:
        """Note the end of a connection."""
        if self.subscribed.is_set() and not self._draining:
            self._say(logging.WARNING, "disconnected")
        self.subscribed.clear()

    def _on_dropped(self, reason: str, lost: int) -> None:
        self._say(logging.ERROR, f"{reason}; the connection is dropped and {lost} messages with it")
        self._on_drop(self, lost)

    async def _on_error(self, error: Exception) -> None:
        if isinstance(error, SlowConsumerError):
            self._on_overflow()
        elif refused := self._refused_subscription(error):
            if refused not in self._refused:
                self._refused.add(refused)
                self._say(logging.WARNING, refused)
        else:
            self._report(error)

    def _refused_subscription(self, error: Exception) -> str:
        """Return what to log if the broker refuses a subscription that can be done without; else nothing."""
        text = str(error).lower()
        if _VIOLATION not in text:
            return ""
        return next((item.if_refused for item in self._interests if f'"{item.subject.lower()}"' in text), "")

    async def _on_closed(self) -> None:
        self._closed.set()


def _where(client: Client | None) -> str:
    url = client.connected_url if client else None
    return url.netloc if url else "?"
