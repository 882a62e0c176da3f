"""Plays nats-server's side of the callout: sends signed requests as fast as asked and times the answers.

A separate process (``python -m broker_auth.bench.flooder``), so that its CPU time is measured separately: one JSON
line in, :class:`FloodTask`; one out, :class:`FloodResult`. It speaks NATS itself, because a client
library would cost as much as the service under test.
"""

from __future__ import annotations

import asyncio
import secrets
import sys
import time
from pathlib import Path
from typing import Final

import msgspec

from broker_auth.bench.measure import percentile
from broker_auth.callout.request import XKEY_HEADER
from broker_auth.errors import OperationError
from broker_auth.natsio.subjects import AUTH_REQUEST_SUBJECT

USER: Final = "flooder"
IN_TIME: Final = 2.0  # seconds; fact 10: answers that come later let nobody in
_TICK: Final = 0.002  # seconds between bursts when sending at a rate


class Pool(msgspec.Struct, kw_only=True):
    """A pool of requests to send repeatedly; ``xkey`` is their server's if they are sealed."""

    requests: list[bytes]
    xkey: str | None = None


class FloodTask(msgspec.Struct, kw_only=True):
    """A task of the flooder.

    Attributes:
        port: of the nats-server on 127.0.0.1.
        password: of :data:`USER`.
        pool: file of a :class:`Pool`, MessagePack.
        seconds: for how long.
        in_flight: unanswered requests at a time; each answer sends the next.
        rate: instead of that, requests per second, answered or not.
    """

    port: int
    password: str
    pool: str
    seconds: float
    in_flight: int = 64
    rate: int = 0


class FloodResult(msgspec.Struct, kw_only=True):
    """The result of a flood. Latencies are those of answered requests, in milliseconds.

    Attributes:
        seconds: from the first request to the last answer that counts.
        in_time: answers within :data:`IN_TIME`.
    """

    sent: int
    answered: int
    in_time: int
    seconds: float
    p50_ms: float
    p99_ms: float


class Flooder(asyncio.Protocol):
    """One connection that sends a pool's requests."""

    def __init__(self, pool: Pool, password: str) -> None:
        self.ready = asyncio.get_running_loop().create_future()
        self.sent = 0
        self.latencies: list[float] = []
        # Reply subjects as unique as nats-server's: what the service may answer to is counted by them.
        self._inbox = f"_INBOX.{secrets.token_hex(8)}"
        self._frames = [_frame(request, pool.xkey, self._inbox) for request in pool.requests]
        self._sent_at: list[float] = []
        self._answers_send = False
        self._buffer = bytearray()
        self._password = password

    # -- sending

    def send(self, count: int) -> None:
        """Send the next ``count`` requests, unless the server takes no more."""
        parts: list[bytes] = []
        for number in range(self.sent, self.sent + count):
            verb, rest = self._frames[number % len(self._frames)]
            parts += (verb, b"%d" % number, rest)
        self._transport.write(b"".join(parts))
        self._sent_at += [time.perf_counter()] * count
        self.sent += count

    async def keep_in_flight(self, count: int, seconds: float) -> None:
        """Keep ``count`` requests unanswered for some time."""
        self._answers_send = True
        self.send(count)
        await asyncio.sleep(seconds)
        self._answers_send = False

    async def keep_rate(self, rate: int, seconds: float) -> None:
        """Send at a rate, whatever is answered; what the server does not take is not sent."""
        started, offered = time.perf_counter(), 0
        while (elapsed := time.perf_counter() - started) < seconds:
            due = int(elapsed * rate) - offered
            offered += due
            if due and self._transport.get_write_buffer_size() < 1 << 20:
                self.send(due)
            await asyncio.sleep(_TICK)

    # -- receiving

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Log in and subscribe to the answers."""
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        login = {"user": USER, "pass": self._password, "verbose": False, "headers": True, "lang": "bench"}
        connect = b"CONNECT " + msgspec.json.encode(login)
        transport.write(connect + f"\r\nSUB {self._inbox}.* 1\r\nPING\r\n".encode())

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - asyncio's signature
        """Report that the login failed, if it has not succeeded."""
        if not self.ready.done():
            self.ready.set_exception(OperationError("the flooder was not let in by nats-server"))

    def data_received(self, data: bytes) -> None:
        """Take whole protocol messages off the buffer."""
        self._buffer += data
        position, now = 0, time.perf_counter()
        while (end := self._buffer.find(b"\r\n", position)) >= 0:
            line = bytes(self._buffer[position:end])
            following = end + 2
            if line.startswith(b"MSG "):
                _, subject, _, size = line.split(b" ")
                following += int(size) + 2
                if following > len(self._buffer):
                    break
                self._answered(int(subject.rpartition(b".")[2]), now)
            elif line == b"PING":
                self._transport.write(b"PONG\r\n")
            elif line == b"PONG" and not self.ready.done():
                self.ready.set_result(None)
            position = following
        del self._buffer[:position]

    def _answered(self, number: int, now: float) -> None:
        self.latencies.append(now - self._sent_at[number])
        if self._answers_send:
            self.send(1)


def _frame(request: bytes, xkey: str | None, inbox: str) -> tuple[bytes, bytes]:
    """Return the protocol message before and after the number in the reply subject."""
    where = f"{AUTH_REQUEST_SUBJECT} {inbox}."
    if xkey is None:
        return f"PUB {where}".encode(), f" {len(request)}\r\n".encode() + request + b"\r\n"
    headers = f"NATS/1.0\r\n{XKEY_HEADER}: {xkey}\r\n\r\n".encode()
    sizes = f" {len(headers)} {len(headers) + len(request)}\r\n".encode()
    return f"HPUB {where}".encode(), sizes + headers + request + b"\r\n"


async def flood(task: FloodTask, pool: Pool) -> FloodResult:
    """Do a task with what is in its pool.

    Raises:
        OperationError: nats-server does not let the flooder in.
    """
    loop = asyncio.get_running_loop()
    transport, flooder = await loop.create_connection(lambda: Flooder(pool, task.password), "127.0.0.1", task.port)
    try:
        await asyncio.wait_for(flooder.ready, 10)
        started = time.perf_counter()
        if task.rate:
            await flooder.keep_rate(task.rate, task.seconds)
        else:
            await flooder.keep_in_flight(task.in_flight, task.seconds)
        seconds = time.perf_counter() - started
        await _quiet(flooder)
    finally:
        transport.close()
    return _outcome(flooder, seconds)


async def _quiet(flooder: Flooder) -> None:
    """Wait until all is answered, or nothing more comes."""
    before = -1
    while len(flooder.latencies) not in (before, flooder.sent):
        before = len(flooder.latencies)
        await asyncio.sleep(0.2)


def _outcome(flooder: Flooder, seconds: float) -> FloodResult:
    times = flooder.latencies
    return FloodResult(
        sent=flooder.sent,
        answered=len(times),
        in_time=sum(latency <= IN_TIME for latency in times),
        seconds=seconds,
        p50_ms=percentile(times, 0.5) * 1000,
        p99_ms=percentile(times, 0.99) * 1000,
    )


def main() -> None:
    """Do the task on standard input."""
    task = msgspec.json.decode(sys.stdin.readline(), type=FloodTask)
    pool = msgspec.msgpack.decode(Path(task.pool).read_bytes(), type=Pool)
    sys.stdout.buffer.write(msgspec.json.encode(asyncio.run(flood(task, pool))) + b"\n")


if __name__ == "__main__":
    main()
