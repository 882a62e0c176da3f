"""Logins at a steady rate, each attempted once, and long sessions that should not be interrupted."""

from __future__ import annotations

import asyncio
import ssl
import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

import nats
from nats.aio.client import Client

from broker_auth.errors import OperationError
from broker_auth.operate.doctor.probe import ProbeTarget, Verdict, attempt

IN_TIME: Final = 2.0  # seconds; docs/nats-server.md fact 10
_SLOW: Final = 0.25  # seconds; a longer login is abnormal


@dataclass
class Row:
    """The results of the logins started during one disturbance.

    Attributes:
        lost: refused or unanswered logins, by server.
        down: refused or unanswered logins at a server that was down.
        abnormal: seconds from the start of the disturbance to the last lost or slow login.
        readiness: successive statuses of each service host.
    """

    name: str
    began: float = field(default_factory=time.monotonic)
    asked: int = 0
    lost: Counter[str] = field(default_factory=Counter)
    down: int = 0
    late: int = 0
    cut: int = 0
    slowest: float = 0.0
    abnormal: float = 0.0
    readiness: dict[str, list[str]] = field(default_factory=dict)

    def __str__(self) -> str:
        ready = ", ".join(f"{host}: {' → '.join(seen)}" for host, seen in self.readiness.items())
        cells = (self.name, self.asked, sum(self.lost.values()), self.late, self.down, self.cut)
        times = f"{self.slowest:.2f} s | {self.abnormal:.1f} s"
        return f"| {' | '.join(map(str, cells))} | {times} | {ready} |"


class Load:
    """A client that connects to one server after the other.

    Attributes:
        rows: one for each disturbance; the last is the current disturbance.
        down: servers that the disturbance stopped.
    """

    def __init__(self, fleet: Mapping[str, str], edges: Mapping[str, str], tls: ssl.SSLContext, token: str) -> None:
        self.rows: list[Row] = []
        self.down: set[str] = set()
        self._fleet = [(name, ProbeTarget(url)) for name, url in fleet.items()]
        self._edges = [(name, ProbeTarget(url)) for name, url in edges.items()]
        self._tls = tls
        self._token = token
        self._tasks: set[asyncio.Task[None]] = set()
        self._sessions: list[Client] = []

    async def run(self, fleet_rate: float, node_rate: float) -> None:
        """Log in until cancelled."""
        await asyncio.gather(
            self._pump(self._fleet, fleet_rate, {}),
            self._pump(self._edges, node_rate, {"auth_token": self._token, "name": "node1.example.net"}),
        )

    async def settle(self) -> None:
        """Wait until all started logins have ended."""
        await asyncio.gather(*self._tasks)

    async def hold_sessions(self, each: int) -> None:
        """Open ``each`` sessions at every server."""
        places: list[tuple[tuple[str, ProbeTarget], dict[str, str]]] = [(one, {}) for one in self._fleet]
        places += [(one, {"token": self._token, "name": "node1.example.net"}) for one in self._edges]
        for (_, target), options in places * each:
            session = await nats.connect(
                target.url, tls=self._tls, allow_reconnect=False, closed_cb=self._on_cut, error_cb=_quiet, **options
            )
            self._sessions.append(session)

    async def end_sessions(self) -> None:
        """Close the remaining sessions."""
        self.rows.append(Row("end"))
        for session in self._sessions:
            await session.close()

    async def _on_cut(self) -> None:
        self.rows[-1].cut += 1

    async def _pump(self, targets: list[tuple[str, ProbeTarget]], rate: float, options: dict[str, str]) -> None:
        number, began = 0, time.monotonic()
        while True:
            name, target = targets[number % len(targets)]
            task = asyncio.create_task(self._log_in(self.rows[-1], name, target, options))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
            number += 1
            await asyncio.sleep(max(0.0, began + number / rate - time.monotonic()))

    async def _log_in(self, row: Row, name: str, target: ProbeTarget, options: dict[str, str]) -> None:
        row.asked += 1
        down_before = name in self.down
        began = time.monotonic()
        try:
            outcome = await attempt(target, self._tls, options, seconds=4.0)
            verdict, seconds = outcome.verdict, outcome.seconds
        except (OperationError, OSError):
            verdict, seconds = Verdict.SILENT, time.monotonic() - began
        if verdict is Verdict.ADMITTED and seconds <= _SLOW:
            row.slowest = max(row.slowest, seconds)
            return
        if down_before or name in self.down:
            row.down += 1
            return
        row.abnormal = max(row.abnormal, began - row.began)
        if verdict is not Verdict.ADMITTED:
            row.lost[name] += 1
            return
        row.slowest = max(row.slowest, seconds)
        row.late += seconds > IN_TIME


async def _quiet(_: Exception) -> None:
    """Ignore an error, because :class:`Load` counts sessions that end."""
