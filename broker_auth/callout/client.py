"""The NATS client of the service: nothing that a broker sends, or does not read, makes it grow or wait.

What nats-py does and this must not (2.16): ``publish`` waits for the socket without a deadline once 2 MiB are
unsent; closing waits for the peer to read what is unsent; a reader that fails leaves a connection that looks
alive. Whatever is wrong with a connection here, it is aborted, and :class:`~.link.BrokerLink` makes a new one.
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

MAX_UNSENT_BYTES: Final = 8 * 1024 * 1024  # answers of some two seconds, after which nobody waits for them
STALL_SECONDS: Final = 10.0  # without a byte sent although some wait
DEAD_CHECKS: Final = 24  # PINGs without an answer, one at each check: 12 s
_MAX_SUBJECT: Final = 1024  # characters of a reply subject; nats-server's own are 50

Tap = Callable[[bytes, bytes, "bytes | None"], None]
"""Takes a message as it is read: its reply subject, the message and its headers. Must not raise."""


class BrokerClient(SecuredClient):
    """Sends without waiting, in bounded memory, and never reconnects by itself.

    Attributes:
        proven: when the last PING was sent that was answered, on the loop's clock.
        taps: what takes the messages of a subscription, by its number on the wire.
        refusals: of what this client said, because the server does not permit it.
    """

    def __init__(self, on_drop: Callable[[str, int], None] | None = None) -> None:
        """``on_drop`` is told why a connection was dropped, and how many messages were lost with it."""
        super().__init__()
        self._on_drop = on_drop
        self._sizes: deque[int] = deque(maxlen=MAX_UNSENT_BYTES // 256)  # of what was sent last, in bytes
        self._sent_bytes = 0
        self._progress = (0, 0.0)  # bytes that had left, and when that was noticed
        self._dropped: asyncio.Task[None] | None = None
        self.proven = float("-inf")
        self.refusals = 0
        self.taps: dict[bytes, Tap] = {}
        self._ps = TappingParser(self)
        self._unanswered = 0
        self._probes: dict[asyncio.Future[bool], float] = {}  # PINGs that are not answered, and when they were sent

    def tap(self, subscription: Subscription, tap: Tap) -> None:
        """Give the messages of a subscription to ``tap`` at once, instead of letting them wait in it."""
        self.taps[b"%d" % subscription._id] = tap

    def untap(self, subscription: Subscription) -> None:
        """Undo :meth:`tap`, after the subscription has ended."""
        self.taps.pop(b"%d" % subscription._id, None)

    def send(self, subject: str, payload: bytes) -> None:
        """Publish without waiting for anything.

        Raises:
            nats.errors.Error: the connection is closed, or was dropped because the broker does not read; or the
                message can never be sent.
        """
        if not self.is_connected or self._dropped is not None:
            raise ConnectionClosedError
        if len(payload) > self._max_payload or len(subject) > _MAX_SUBJECT:
            raise MaxPayloadError
        data = command.pub_cmd(subject, "", payload)
        if self.unsent + len(data) > MAX_UNSENT_BYTES:
            self.drop(f"does not read: {self.unsent} bytes of answers wait")
            raise OutboundBufferLimitError
        self._pending.append(data)
        self._pending_data_size += len(data)
        self._sizes.append(len(data))
        self._sent_bytes += len(data)
        assert self._flush_queue is not None  # connected, hence made
        if self._flush_queue.empty():
            self._flush_queue.put_nowait(asyncio.get_running_loop().create_future())

    def check(self, now: float) -> None:
        """Drop the connection if bytes have waited too long or nothing comes; to be called twice a second or so.

        Args:
            now: seconds on any steady clock.
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
        """Send a PING. What was sent before its answer is read is not older than the PING."""
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
        """Note when the PING was sent, before what follows its answer is read."""
        sent = self._probes.pop(self._pongs[0], None) if self._pongs else None
        if sent is not None:
            self.proven, self._unanswered = sent, 0
        await super()._process_pong()

    def drop(self, reason: str) -> None:
        """Abort the connection at once, whatever waits to be sent."""
        unsent, lost = self.unsent, 0
        while self._sizes and unsent > 0:
            unsent -= self._sizes.pop()
            lost += 1
        self.abort()
        if self._on_drop is not None:
            self._on_drop(reason, lost)
        self._dropped = asyncio.get_running_loop().create_task(self.close())

    async def _process_msg(self, sid: int, subject: bytes, reply: bytes, data: bytes, headers: bytes | None) -> None:
        """Hand a tapped message over at once; any other waits in its subscription."""
        tap = self.taps.get(b"%d" % sid)
        if tap is None:
            await super()._process_msg(sid, subject, reply, data, headers)  # type: ignore[arg-type]  # None for none
        else:
            tap(reply, data, headers)

    async def _process_err(self, err_msg: str) -> None:
        self.refusals += PERMISSIONS_ERR in err_msg
        await super()._process_err(err_msg)

    async def _process_op_err(self, e: Exception) -> None:
        """Give up a broken connection: nothing on it is worth waiting for."""
        if not self.is_closed:
            self.abort()
        await super()._process_op_err(e)

    async def _read_loop(self) -> None:
        """Read until the connection ends; nats-py leaves one open, and deaf, if a message cannot be parsed."""
        await super()._read_loop()
        if not self.is_closed:
            await self._process_op_err(ProtocolError())

    def before_info(self, info: dict[str, Any], initial: bool) -> None:
        """Forget other addresses: the configuration says where brokers are."""
        super().before_info(info, initial)
        info.pop("connect_urls", None)
