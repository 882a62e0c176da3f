"""The connection to a broker, which is maintained for as long as the service runs."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import ssl
from collections.abc import Awaitable, Callable, Collection, Sequence
from typing import Final

from nats.aio.client import Client
from nats.errors import ConnectionClosedError, SlowConsumerError
from nats.errors import Error as NatsError

from broker_auth.callout.broker_log import BrokerLog
from broker_auth.callout.client import BrokerClient
from broker_auth.callout.copies import Copies
from broker_auth.callout.draining import unsubscribed, while_responsive
from broker_auth.callout.extra_subscriptions import ExtraSubscription, ExtraSubscriptions
from broker_auth.callout.hedging import Held
from broker_auth.callout.intake import Intake
from broker_auth.certificates.certificate import CertificateError, parse_certificate
from broker_auth.errors import OperationError
from broker_auth.natsio.client import round_trip
from broker_auth.natsio.subjects import AUTH_REQUEST_SUBJECT
from broker_auth.natsio.versions import unsafe
from broker_auth.printable import printable
from broker_auth.secret import Secret
from broker_auth.settings.model import BrokerSettings

PONG_SECONDS: Final = 5.0  # without an answer to a PING, after which the broker is considered unreachable
_RETRY_SECONDS: Final = 1.0
_CHECK_SECONDS: Final = 0.5
_NOT_PERMITTED: Final = (
    "its configuration was rendered by an older version, so other workers cannot answer for this one if it hangs; "
    "render it again and restart nats-server"
)

RequestHandler = Callable[["BrokerConnection", str, bytes, "bytes | None"], None]
"""Handles a request when it is read; arguments: connection, reply subject, message, headers."""

_log = logging.getLogger(__name__)


class BrokerConnection:
    """A maintained subscription to the authorization requests of one broker.

    Attributes:
        subscribed: set while subscribed to requests.
        intake: the subscription to requests.
        certificate_expiry: when the certificate of the connected server expires, in Unix seconds; None if unknown.
    """

    def __init__(
        self,
        broker: BrokerSettings,
        seed: Secret,
        handler: RequestHandler,
        extra_subscriptions: Sequence[ExtraSubscription] = (),
        others: Collection[str] = (),
        tls: ssl.SSLContext | None = None,
        on_drop: Callable[[BrokerConnection, int], None] = lambda *_: None,
        on_overflow: Callable[[], None] = lambda: None,
        on_leave: Callable[[BrokerConnection], None] = lambda _: None,
    ) -> None:
        """Create the connection without connecting.

        Args:
            broker: the broker.
            seed: the nkey seed to log in with.
            handler: called with each authorization request.
            extra_subscriptions: further subscriptions.
            others: accounts without requests: being placed in one of them is an error.
            tls: certificate to present, and CA to verify the broker with.
            on_drop: called with the number of lost messages when the connection was dropped because the broker did
                not read.
            on_overflow: called for each message that was lost because a queue was full.
            on_leave: called when this worker unsubscribes from requests.
        """
        self.name = broker.name
        self.role = broker.role
        self.subscribed = asyncio.Event()
        self._broker = broker
        self._seed = seed
        self._handler = handler
        self._log = BrokerLog(_log, self.name)
        self._extra = ExtraSubscriptions(self.name, extra_subscriptions, self._log)
        self._others = frozenset(others)
        self._tls = tls
        self._draining = False
        self._on_drop = on_drop
        self._on_overflow = on_overflow
        self.intake = Intake(self._log, self._on_request, lambda: on_leave(self))
        self.certificate_expiry: float | None = None
        self._copies: Copies | None = None
        self._reported_refusal = False
        self._subscribed_before = False
        self._client: BrokerClient | None = None
        self._closed = asyncio.Event()

    async def run(self) -> None:
        """Connect, and reconnect whenever the connection ends (docs/nats-server.md fact 25).

        Runs until cancelled, or until a connection ends while draining.
        """
        while not self._draining:
            try:
                await self._connect()
                await self._until_closed()
            except Exception as error:  # retry after any error: the endpoint may be a broker the next time
                self._log.report(error)
            self._lost()
            await self.close()
            await asyncio.sleep(_RETRY_SECONDS)

    def reply(self, subject: str, answer: bytes) -> None:
        """Send an answer without waiting for the broker to read it.

        Raises:
            nats.errors.Error: the connection is closed, or was dropped because the broker does not read.
        """
        if self._client is None:
            raise ConnectionClosedError
        self._client.send(subject, answer)

    @property
    def ready(self) -> bool:
        """Whether this worker is subscribed and the broker has answered a PING recently."""
        if self._client is None or asyncio.get_running_loop().time() - self._client.proven > PONG_SECONDS:
            return False
        return self.subscribed.is_set() and not self.intake.away

    @property
    def unsent(self) -> int:
        """Bytes that have not been sent to the broker yet."""
        return 0 if self._client is None else self._client.unsent

    async def drain(self) -> None:
        """Unsubscribe, and pass on every request that was received (docs/nats-server.md fact 12).

        Call :meth:`settle` when these are answered, and :meth:`close` last. A broker that does not respond is dropped,
        so that it does not delay the others.
        """
        self._draining = True
        self.intake.end()
        client, subscription = self._client, self.intake.subscription
        if self._copies is not None:
            self._copies.retire()
        if client is None or not client.is_connected:
            _log.warning("broker %s: not connected while stopping, nothing to drain", self.name)
        elif subscription is not None:
            # By then, requests that the broker sent before it processed this have been read and passed on.
            await self._finish(client, lambda: unsubscribed(client, subscription))

    async def settle(self) -> None:
        """Wait until the broker has processed every answer; drop it if it does not respond."""
        if self._copies is not None:
            self._copies.leave()
        client = self._client
        if client is not None and client.is_connected:
            await self._finish(client, lambda: round_trip(client))

    async def _finish(self, client: BrokerClient, step: Callable[[], Awaitable[None]]) -> None:
        """Take a step of draining; log why and drop the broker if it fails."""
        try:
            await while_responsive(client, step)
        except (NatsError, OSError, TimeoutError) as error:
            reason = printable(str(error)) or type(error).__name__
            _log.warning("broker %s: not drained: %s; requests that it has not delivered are lost", self.name, reason)
            self.subscribed.clear()
            if client.is_connected:
                client.drop("did not answer while draining")

    async def close(self) -> None:
        """Close the connection in any state; must not raise, because the loop of :meth:`run` has to survive."""
        self.intake.close()
        if self._client is not None:
            try:
                await self._client.close()
            except Exception as error:  # uvloop raises when nats-py writes to a broken connection
                _log.debug("broker %s: not closed in order: %s", self.name, error)

    async def _connect(self) -> None:
        self._closed.clear()
        client = BrokerClient(self._on_dropped)
        self._client, self._copies = client, None
        self.intake.begin(client)
        self.certificate_expiry = None
        await client.connect(
            servers=list(self._broker.urls),
            name="broker-auth",
            nkeys_seed_str=self._seed.reveal(),
            tls=self._tls,
            allow_reconnect=False,  # :meth:`run` does: nats-py keeps stale answers and waits for a peer to read them
            max_reconnect_attempts=-1,
            reconnect_time_wait=_RETRY_SECONDS,  # seconds, fractions work
            error_cb=self._on_error,
            closed_cb=self._on_closed,
        )

        self.certificate_expiry = _expiry(client.certificate)
        # Subscribe to requests last, when everything else is ready.
        await self._extra.start(client, self)
        self._copies = Copies(client, AUTH_REQUEST_SUBJECT, lambda: round_trip(client))
        await self._copies.start()
        self._check_account(client)
        if self._draining:
            return  # connected too late to take requests
        self._log.forget_error()
        if not self._copies.permitted and not self._reported_refusal:
            self._reported_refusal = True
            self._log.line(logging.WARNING, _NOT_PERMITTED)
        await self.intake.start(client, self._copies)
        self.subscribed.set()
        self._log.line(logging.INFO, f"subscribed{' again' if self._subscribed_before else ''} at {_where(client)}")
        self._subscribed_before = True
        self._check_version(client)

    async def _until_closed(self) -> None:
        """Wait until the connection has ended; drop it if the broker does not read."""
        client, clock = self._client, asyncio.get_running_loop().time
        assert client is not None  # connected before
        while not client.is_closed:
            client.check(clock())
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._closed.wait(), _CHECK_SECONDS)

    def _check_account(self, client: BrokerClient) -> None:
        """Raise an error if the broker does not know the service's nkey and admitted it as a client."""
        if client.account in self._others:
            raise OperationError(
                f"the broker authenticated this service as an ordinary client (account {client.account}): the nkey of "
                "nkey_seed_file is not in its auth_users; render its configuration again"
            )

    def _check_version(self, client: BrokerClient) -> None:
        """Warn of a nats-server with security defects; refusing to serve it would lock its clients out."""
        if reason := unsafe(client.server_version):
            self._log.line(logging.WARNING, f"upgrade nats-server {client.server_version!r}: {reason}")

    def is_answered(self, subject: str) -> bool:
        """Return whether another worker has answered a request while this one was suspended or busy."""
        return self._copies is not None and self._copies.permitted and self._copies.peers.is_answered(subject)

    def mark_answered(self, subject: str) -> None:
        """Tell the other workers that they need not answer a request."""
        if self._copies is not None and self._copies.permitted:
            self._copies.peers.settle(subject)

    def tick(self) -> None:
        """Send due messages to the other workers; called ten times a second."""
        if self._copies is not None and not self._draining:
            self._copies.tick()

    def due(self, count: int) -> list[Held]:
        """Return requests that other workers have not answered in time."""
        if self._copies is None or not self._copies.permitted or self._draining:
            return []
        return self._copies.peers.due(asyncio.get_running_loop().time(), count)

    def shed(self) -> None:
        """Drop all copies of other workers' requests."""
        if self._copies is not None:
            self._copies.peers.shed()

    def _on_request(self, reply: bytes, data: bytes, headers: bytes | None) -> None:
        try:
            self._handler(self, reply.decode(), data, headers)
        except Exception as error:  # one message must not end the connection
            self._log.report(error)

    def _lost(self) -> None:
        """Handle the end of a connection."""
        if self.subscribed.is_set() and not self._draining:
            self._log.line(logging.WARNING, "disconnected")
        self.subscribed.clear()

    def _on_dropped(self, reason: str, lost: int) -> None:
        self._log.line(logging.ERROR, f"{reason}; the connection is dropped, and {lost} messages are lost")
        self._on_drop(self, lost)

    async def _on_error(self, error: Exception) -> None:
        if isinstance(error, SlowConsumerError):
            self._on_overflow()
        elif not self._extra.refused(error):
            self._log.report(error)

    async def _on_closed(self) -> None:
        self._closed.set()


def _expiry(certificate: bytes | None) -> float | None:
    try:
        return None if certificate is None else parse_certificate(certificate).not_after
    except CertificateError:  # OpenSSL accepts more than this parser
        return None


def _where(client: Client | None) -> str:
    url = client.connected_url if client else None
    return url.netloc if url else "?"
