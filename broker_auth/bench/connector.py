"""Plays nodes and members: real TLS connections to a real broker, each with a token or a certificate.

A separate process (``python -m broker_auth.bench.connector``): reads a :class:`ConnectTask` from each line of standard
input, and writes a :class:`Connected` line. The connections of a storm are kept until standard input ends, so that the
memory of all processes can be measured.
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

from broker_auth.errors import OperationError

GIVE_UP: Final = 120.0  # seconds after which a storm is over, whoever is still out
_RETRY: Final = 1.0  # seconds a node waits on average before it tries again, as clients do


class ConnectTask(msgspec.Struct, kw_only=True):
    """A task of the connector.

    Attributes:
        port: of the broker on 127.0.0.1.
        ca: file of its CA.
        token: presented by every client, if there is one.
        certificate: file of the certificate that every client presents, if there is one.
        key: file of its key.
        seconds: connect and disconnect for that long; 0: a storm.
        at_once: clients at a time, or in the storm.
        rate: instead of that, connections begun per second.
        timeout: seconds a client waits for one connection.
    """

    port: int
    ca: str
    token: str = ""
    certificate: str = ""
    key: str = ""
    seconds: float = 0.0
    at_once: int = 64
    rate: int = 0
    timeout: float = 10.0


class Connected(msgspec.Struct, kw_only=True):
    """The result of a task.

    Attributes:
        times_ms: of each connection that succeeded.
        failed_first: how many did not at the first try.
        missing: how many never did.
        seconds: from the first try to the last success.
        cpu_seconds: of this process.
    """

    times_ms: list[float]
    failed_first: int
    missing: int
    seconds: float
    cpu_seconds: float


@dataclass(slots=True)
class _Tally:
    times: list[float] = field(default_factory=list)
    failed: int = 0
    last: float = 0.0
    kept: list[asyncio.StreamWriter] = field(default_factory=list)


class Connector:
    """A connector of clients, each with another name."""

    def __init__(self, task: ConnectTask) -> None:
        self._task = task
        self._context = ssl.create_default_context(cafile=task.ca)
        if task.certificate:
            self._context.load_cert_chain(task.certificate, task.key)
        self._names = 0
        self.tally = _Tally()

    async def for_some_time(self) -> None:
        """Connect and disconnect, ``at_once`` clients side by side."""
        end = time.perf_counter() + self._task.seconds

        async def client() -> None:
            while time.perf_counter() < end:
                await self._once()

        await asyncio.gather(*(client() for _ in range(self._task.at_once)))

    async def at_rate(self) -> None:
        """Connect and disconnect, ``rate`` clients per second, however long each takes."""
        started = time.perf_counter()

        async def client(due: float) -> None:
            await asyncio.sleep(started + due - time.perf_counter())
            await self._once()

        rate = self._task.rate
        await asyncio.gather(*(client(number / rate) for number in range(int(self._task.seconds * rate))))

    async def _once(self) -> None:
        writer = await self._try()
        if writer is not None:
            await _close(writer)

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
            login: dict[str, object] = {"name": f"node{self._names}.example.net", "tls_required": True}
            if self._task.token:
                login["auth_token"] = self._task.token
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


async def _run(task: ConnectTask) -> tuple[Connected, Connector]:
    connector = Connector(task)
    started, cpu = time.perf_counter(), time.process_time()
    if not task.seconds:
        await connector.storm()
    elif task.rate:
        await connector.at_rate()
    else:
        await connector.for_some_time()
    tally = connector.tally
    if not tally.times:
        raise OperationError("nobody got in")
    done = Connected(
        times_ms=[seconds * 1000 for seconds in tally.times],
        failed_first=tally.failed,
        missing=0 if task.seconds else task.at_once - len(tally.kept),
        seconds=tally.last - started,
        cpu_seconds=time.process_time() - cpu,
    )
    return done, connector


async def _serve() -> None:
    while line := await asyncio.to_thread(sys.stdin.readline):
        done, connector = await _run(msgspec.json.decode(line, type=ConnectTask))
        print(msgspec.json.encode(done).decode(), flush=True)
        del done
        if connector.tally.kept:
            await asyncio.to_thread(sys.stdin.read)
            for writer in connector.tally.kept:
                await _close(writer)


def main() -> None:
    """Do the tasks on standard input."""
    try:
        import uvloop

        uvloop.run(_serve())
    except ImportError:  # the `fast` extra is optional
        asyncio.run(_serve())


if __name__ == "__main__":
    main()
