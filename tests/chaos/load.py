"""Logins at a steady rate, each tried once, and long sessions that should not notice anything."""

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
_SLOW: Final = 0.25  # a login that takes longer is not normal


@dataclass
class Row:
    """What became of the logins begun during one disturbance.

    Attributes:
        lost: by server, refused or without an answer.
        down: of these, at a server that was itself down.
        abnormal: seconds from the beginning to the last login that was lost or slow.
        readiness: statuses of each service host, as they changed.
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
    """Connects to every server in turn.

    Attributes:
        rows: one for each disturbance, the last being the current one.
        down: servers that are down by the disturbance itself.
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
        """Wait for the logins that were begun."""
        await asyncio.gather(*self._tasks)

    async def hold_sessions(self, each: int) -> None:
        """Open sessions at every server."""
        places: list[tuple[tuple[str, ProbeTarget], dict[str, str]]] = [(one, {}) for one in self._fleet]
        places += [(one, {"token": self._token, "name": "node1.example.net"}) for one in self._edges]
        for (_, target), said in places * each:
            session = await nats.connect(
                target.url, tls=self._tls, allow_reconnect=False, closed_cb=self._on_cut, error_cb=_quiet, **said
            )
            self._sessions.append(session)

    async def end_sessions(self) -> None:
        """Close what is left of them."""
        self.rows.append(Row("end"))
        for session in self._sessions:
            await session.close()

    async def _on_cut(self) -> None:
        self.rows[-1].cut += 1

    async def _pump(self, targets: list[tuple[str, ProbeTarget]], rate: float, said: dict[str, str]) -> None:
        number, began = 0, time.monotonic()
        while True:
            name, target = targets[number % len(targets)]
            task = asyncio.create_task(self._log_in(self.rows[-1], name, target, said))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
            number += 1
            await asyncio.sleep(max(0.0, began + number / rate - time.monotonic()))

    async def _log_in(self, row: Row, name: str, target: ProbeTarget, said: dict[str, str]) -> None:
        row.asked += 1
        down_before = name in self.down
        began = time.monotonic()
        try:
            outcome = await attempt(target, self._tls, said, seconds=4.0)
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
    """Sessions that end are counted."""
