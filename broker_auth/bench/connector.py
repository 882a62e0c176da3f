"""Plays unprovisioned nodes: real TLS connections to a real nats-server, each with a token.

A process of its own (``python -m broker_auth.bench.connector``): one JSON line in, :class:`Task`; one
out, :class:`Connected`. In a storm the connections are then kept until standard input ends, so that
the memory of everybody can be looked at.
"""

from __future__ import annotations

import asyncio
import random
import ssl
import sys
import time
from dataclasses import dataclass, field
from typing import Final

import msgspec

from broker_auth.bench.measure import percentile
from broker_auth.errors import OperationError

GIVE_UP: Final = 120.0  # seconds after which a storm is over, whoever is still out
_RETRY: Final = 1.0  # seconds a node waits on average before it tries again, as clients do


class Task(msgspec.Struct, kw_only=True):
    """What to do.

    Attributes:
        port: of the nats-server on 127.0.0.1.
        ca: file of its CA.
        token: presented by every node.
        seconds: connect and disconnect for that long, ``at_once`` at a time; 0: a storm.
        at_once: connections at a time, or in the storm.
        timeout: seconds a node waits for one connection.
    """

    port: int
    ca: str
    token: str
    seconds: float = 0.0
    at_once: int = 64
    timeout: float = 10.0


class Connected(msgspec.Struct, kw_only=True):
    """What happened. Times are of single connections that succeeded, in milliseconds.

    Attributes:
        connections: how many got in.
        failed_first: how many did not at the first try.
        missing: how many never did.
        seconds: from the first try to the last success.
        cpu_seconds: of this process.
    """

    connections: int
    failed_first: int
    missing: int
    seconds: float
    p50_ms: float
    p99_ms: float
    cpu_seconds: float


@dataclass(slots=True)
class _Tally:
    times: list[float] = field(default_factory=list)
    failed: int = 0
    last: float = 0.0
    kept: list[asyncio.StreamWriter] = field(default_factory=list)


class Connector:
    """Connects nodes, each with a name of its own."""

    def __init__(self, task: Task) -> None:
        self._task = task
        self._context = ssl.create_default_context(cafile=task.ca)
        self._names = 0
        self.tally = _Tally()

    async def for_some_time(self) -> None:
        """Connect and disconnect, ``at_once`` nodes side by side."""
        end = time.perf_counter() + self._task.seconds

        async def node() -> None:
            while time.perf_counter() < end:
                writer = await self._try()
                if writer is not None:
                    await _close(writer)

        await asyncio.gather(*(node() for _ in range(self._task.at_once)))

    async def storm(self) -> None:
        """Connect ``at_once`` nodes at the same moment and keep them; who fails tries again."""
        end = time.perf_counter() + GIVE_UP

        async def node() -> None:
            writer = await self._try()
            while writer is None and time.perf_counter() < end:
                await asyncio.sleep(random.uniform(0, 2 * _RETRY))  # noqa: S311 - spreads retries only
                writer = await self._try(again=True)
            if writer is not None:
                self.tally.kept.append(writer)

        await asyncio.gather(*(node() for _ in range(self._task.at_once)))

    async def _try(self, *, again: bool = False) -> asyncio.StreamWriter | None:
        started = time.perf_counter()
        try:
            async with asyncio.timeout(self._task.timeout):
                writer = await self._connect()
        except (OSError, TimeoutError, EOFError, ssl.SSLError):
            self.tally.failed += not again
            return None
        self.tally.last = time.perf_counter()
        self.tally.times.append(self.tally.last - started)
        return writer

    async def _connect(self) -> asyncio.StreamWriter:
        reader, writer = await asyncio.open_connection("127.0.0.1", self._task.port)
        try:
            await reader.readuntil(b"\r\n")  # INFO, before TLS
            await writer.start_tls(self._context, server_hostname="127.0.0.1")
            self._names += 1
            login = {"auth_token": self._task.token, "name": f"node{self._names}.example.net", "tls_required": True}
            login |= {"lang": "go", "version": "1.40.0", "verbose": False, "protocol": 1}
            writer.write(b"CONNECT " + msgspec.json.encode(login) + b"\r\nPING\r\n")
            while not (line := await reader.readuntil(b"\r\n")).startswith(b"PONG"):
                if line.startswith(b"-ERR"):
                    raise ConnectionRefusedError(line.decode("ascii", "replace"))
        except BaseException:
            writer.transport.abort()
            raise
        return writer


async def _close(writer: asyncio.StreamWriter) -> None:
    writer.transport.abort()  # no farewell of TLS: what is measured is connecting


async def _run(task: Task) -> None:
    connector = Connector(task)
    started, cpu = time.perf_counter(), time.process_time()
    await (connector.for_some_time() if task.seconds else connector.storm())
    tally = connector.tally
    result = Connected(
        connections=len(tally.times),
        failed_first=tally.failed,
        missing=0 if task.seconds else task.at_once - len(tally.kept),
        seconds=tally.last - started,
        p50_ms=percentile(tally.times, 0.5) * 1000,
        p99_ms=percentile(tally.times, 0.99) * 1000,
        cpu_seconds=time.process_time() - cpu,
    )
    if not tally.times:
        raise OperationError("nobody got in")
    print(msgspec.json.encode(result).decode(), flush=True)
    if tally.kept:
        await asyncio.to_thread(sys.stdin.read)
        for writer in tally.kept:
            await _close(writer)


def main() -> None:
    """Do the task on standard input."""
    task = msgspec.json.decode(sys.stdin.readline(), type=Task)
    try:
        import uvloop

        uvloop.run(_run(task))
    except ImportError:  # the `fast` extra is optional
        asyncio.run(_run(task))


if __name__ == "__main__":
    main()
