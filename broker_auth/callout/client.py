"""The NATS client of the service: a broker that floods it or does not read cannot make it grow or wait.

In nats-py (2.16) ``publish`` waits for the socket without a timeout once 2 MiB are unsent, closing waits for the peer
to read unsent data, and a failed reader leaves a connection that looks alive. This client aborts a connection on any
problem, and :class:`~.connection.BrokerConnection` makes a new connection.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from typing import Any, Final

from nats.aio.subscription import Subscription
from nats.errors import ConnectionClosedError, MaxPayloadError, OutboundBufferLimitError, ProtocolError
from nats.protocol import command
from nats.protocol.parser import PERMISSIONS_ERR

from broker_auth.callout.parser import TappingParser
from broker_auth.natsio.client import SecuredClient

MAX_UNSENT_BYTES: Final = 8 * 1024 * 1024  # answers of about two seconds; clients do not wait longer
STALL_SECONDS: Final = 10.0  # without sending a byte although some are pending
DEAD_CHECKS: Final = 24  # unanswered PINGs, one at each check: 12 s
MAX_SUBJECT: Final = 1024  # characters of a reply subject; nats-server's have 50

Tap = Callable[[bytes, bytes, "bytes | None"], None]
"""Handles a message when it is read; arguments: reply subject, message, headers. Must not raise."""


class BrokerClient(SecuredClient):
    """A client that sends without waiting, in bounded memory, and never reconnects by itself.

    Attributes:
        proven: when the last answered PING was sent, on the loop's clock.
        taps: handlers of subscriptions' messages, by subscription id.
        refusals: number of permission violations.
        reads: number of times that bytes were received.
    """

    def __init__(self, on_drop: Callable[[str, int], None] | None = None) -> None:
        """Create a client; ``on_drop`` is called with the reason of a drop and the number of lost messages."""
        super().__init__()
        self._on_drop = on_drop
        self._sizes: deque[int] = deque(maxlen=MAX_UNSENT_BYTES // 256)  # of the messages sent last, in bytes
        self._sent_bytes = 0
        self._progress = (0, 0.0)  # bytes that were sent, and when that was noticed
        self._dropped: asyncio.Task[None] | None = None
        self._writing = False  # whether :meth:`_write` is about to be called
        self.proven = float("-inf")
        self.refusals = 0
        self.reads = 0
        self.taps: dict[bytes, Tap] = {}
        self._ps = TappingParser(self)
        self._unanswered = 0
        self._probes: dict[asyncio.Future[bool], float] = {}  # unanswered PINGs, and when they were sent

    def tap(self, subscription: Subscription, tap: Tap) -> None:
        """Pass the messages of a subscription to ``tap`` immediately, instead of queueing them."""
        self.taps[b"%d" % subscription._id] = tap

    def untap(self, subscription: Subscription) -> None:
        """Undo :meth:`tap`, after the subscription has ended."""
        self.taps.pop(b"%d" % subscription._id, None)

    def send(self, subject: str, payload: bytes) -> None:
        """Publish without waiting.

        Raises:
            nats.errors.Error: the connection is closed or was dropped because the broker does not read, or the
                message is too large.
        """
        if not self.is_connected or self._dropped is not None:
            raise ConnectionClosedError
        if len(payload) > self._max_payload or len(subject) > MAX_SUBJECT:
            raise MaxPayloadError
        data = command.pub_cmd(subject, "", payload)
        if self.unsent + len(data) > MAX_UNSENT_BYTES:
            self.drop(f"does not read: {self.unsent} bytes of answers are pending")
            raise OutboundBufferLimitError
        self._pending.append(data)
        self._pending_data_size += len(data)
        self._sizes.append(len(data))
        self._sent_bytes += len(data)
        if not self._writing:
            self._writing = True
            asyncio.get_running_loop().call_soon(self._write)

    def _write(self) -> None:
        """Write everything that was sent in this iteration of the loop at once: fewer TLS records and system calls."""
        self._writing = False
        if not self._pending:
            return
        writer = self._writer()
        if writer is None:  # a WebSocket, which only nats-py's flusher writes to
            assert self._flush_queue is not None  # set while connected
            if self._flush_queue.empty():
                self._flush_queue.put_nowait(asyncio.get_running_loop().create_future())
            return
        data = b"".join(self._pending)
        self._pending = []
        self._pending_data_size = 0
        try:
            writer.write(data)
        except Exception:  # the transport has ended; the reader notices that too
            self.abort()

    def check(self, now: float) -> None:
        """Drop the connection if the broker does not read or does not answer PINGs; call it twice a second.

        Args:
            now: seconds on a monotonic clock.
        """
        unsent = self.unsent
        left, since = self._progress
        if not unsent or not since or self._sent_bytes - unsent > left:
            self._progress = (self._sent_bytes - unsent, now)
        elif now - since > STALL_SECONDS and self.is_connected and self._dropped is None:
            self.drop(f"has not read for {now - since:.0f} s")
        if self.is_connected and self._dropped is None:
            self._probe(now)

    def _probe(self, now: float) -> None:
        """Send a PING. Messages that are read after its answer were sent after the PING."""
        if self._unanswered >= DEAD_CHECKS:
            self.drop(f"has answered none of {self._unanswered} PINGs")
            return
        self._unanswered += 1
        answered = asyncio.get_running_loop().create_future()
        self._probes[answered] = now
        self._pongs.append(answered)
        assert self._transport is not None  # connected
        self._transport.write(b"PING\r\n")

    async def _process_pong(self) -> None:
        """Note when the answered PING was sent, before later messages are read."""
        sent = self._probes.pop(self._pongs[0], None) if self._pongs else None
        if sent is not None:
            self.proven, self._unanswered = sent, 0
        await super()._process_pong()

    def drop(self, reason: str) -> None:
        """Abort the connection immediately, discarding unsent messages."""
        unsent, lost = self.unsent, 0
        while self._sizes and unsent > 0:
            unsent -= self._sizes.pop()
            lost += 1
        self.abort()
        if self._on_drop is not None:
            self._on_drop(reason, lost)
        self._dropped = asyncio.get_running_loop().create_task(self.close())

    async def _process_msg(self, sid: int, subject: bytes, reply: bytes, data: bytes, headers: bytes | None) -> None:
        """Pass a tapped message on immediately; queue any other in its subscription."""
        tap = self.taps.get(b"%d" % sid)
        if tap is None:
            await super()._process_msg(sid, subject, reply, data, headers)  # type: ignore[arg-type]  # None for none
        else:
            tap(reply, data, headers)

    async def _process_err(self, err_msg: str) -> None:
        self.refusals += PERMISSIONS_ERR in err_msg
        await super()._process_err(err_msg)

    async def _process_op_err(self, e: Exception) -> None:
        """Abort a broken connection instead of waiting for it."""
        if not self.is_closed:
            self.abort()
        await super()._process_op_err(e)

    async def _read_loop(self) -> None:
        """Read until the connection ends; nats-py leaves it open without reading if a message cannot be parsed."""
        await super()._read_loop()
        if not self.is_closed:
            await self._process_op_err(ProtocolError())

    def before_info(self, info: dict[str, Any], initial: bool) -> None:
        """Discard advertised addresses: only the configured ones are used."""
        super().before_info(info, initial)
        info.pop("connect_urls", None)
