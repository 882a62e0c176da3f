"""A steady stream of real connects, each counted as admitted or lost, with the cause."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import Counter
from collections.abc import AsyncIterator
from dataclasses import dataclass, field

from nats.errors import Error as NatsError

from tests.callout.deployment import FleetDeployment

RATE = 40  # connects a second, over all brokers together, unless this machine is too slow for it
AT_ONCE = 16  # connects that are not decided yet, besides bursts
BURST = 30
_TRY_SECONDS = 15.0  # after which a connect counts as lost; the server decides within 10


@dataclass
class Tally:
    """Results of the connects begun in one phase.

    Attributes:
        lost: by cause.
        slowest: longest seconds until an admission.
    """

    name: str
    admitted: int = 0
    lost: Counter[str] = field(default_factory=Counter)
    slowest: float = 0.0

    def __str__(self) -> str:
        causes = ", ".join(f"{count} {cause}" for cause, count in self.lost.items()) or "none"
        total = self.admitted + sum(self.lost.values())
        return f"| {self.name} | {total} | {sum(self.lost.values())} | {causes} | {self.slowest * 1000:.0f} ms |"


class Stream:
    """A fleet member that connects to the brokers by rotation, once each time."""

    def __init__(self, deployment: FleetDeployment) -> None:
        self.tallies: list[Tally] = []
        self._deployment = deployment
        self._attempts: set[asyncio.Task[None]] = set()

    @contextlib.asynccontextmanager
    async def phase(self, name: str, brokers: tuple[str, ...] | None = None) -> AsyncIterator[Tally]:
        """Connect during the block; return when every connect begun in it has ended."""
        tally = Tally(name)
        self.tallies.append(tally)
        pump = asyncio.create_task(self._pump(tally, brokers or tuple(self._deployment.ports)))
        try:
            yield tally
        finally:
            pump.cancel()
            await asyncio.gather(pump, return_exceptions=True)
            await asyncio.gather(*self._attempts)

    async def burst(self, tally: Tally) -> None:
        """Begin many connects at once; return when some have ended, which is a bad time to stop a service."""
        for number in range(BURST):
            self._begin(tally, tuple(self._deployment.ports)[number % 2])
        while len(self._attempts) > BURST * 2 // 3:
            await asyncio.wait(self._attempts, return_when=asyncio.FIRST_COMPLETED)

    async def _pump(self, tally: Tally, brokers: tuple[str, ...]) -> None:
        number = 0
        while True:
            if len(self._attempts) < AT_ONCE:
                self._begin(tally, brokers[number % len(brokers)])
                number += 1
            await asyncio.sleep(1 / RATE)

    def _begin(self, tally: Tally, broker: str) -> None:
        attempt = asyncio.create_task(self._attempt(tally, broker))
        self._attempts.add(attempt)
        attempt.add_done_callback(self._attempts.discard)

    async def _attempt(self, tally: Tally, broker: str) -> None:
        began = time.monotonic()
        try:
            async with asyncio.timeout(_TRY_SECONDS):
                client = await self._deployment.connect(broker, name=f"stream-{broker}")
        except (NatsError, OSError, TimeoutError) as error:
            tally.lost[str(error) or type(error).__name__] += 1
            return
        tally.admitted += 1
        tally.slowest = max(tally.slowest, time.monotonic() - began)
        await client.close()
