"""The process that counts the nodes of tokens, beside the fleet's workers, for all workers of this host."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Final

import msgspec

from broker_auth.daemon.companion import Companion, run_companion
from broker_auth.daemon.prepared import Prepared
from broker_auth.daemon.spawn import die_with_parent
from broker_auth.errors import OperationError
from broker_auth.hosts.counter_server import CounterServer, bind
from broker_auth.hosts.node_counter import NodeCounter
from broker_auth.settings.model import FLEET_ZONE, ServingSettings

_RETRY_SECONDS: Final = 1.0


class CountHeartbeat(msgspec.Struct, frozen=True):
    """The state of the counter: why nodes are not counted; empty if they are."""

    trouble: str = ""


def wants_counting(settings: ServingSettings) -> bool:
    """Return whether a zone counts nodes for its host: the fleet's does, if hosts share buckets."""
    return (
        settings.counter_socket is not None and settings.served.name == FLEET_ZONE and settings.main_broker is not None
    )


class Counting:
    """The process, and what is known of it, for the supervisor of a zone.

    Attributes:
        trouble: why nodes are not counted; empty if they are, and without such a process.
    """

    def __init__(self, on_change: Callable[[], None], on_failure: Callable[[], None]) -> None:
        """Start nothing yet.

        Args:
            on_change: called after each heartbeat.
            on_failure: called before the process is replaced because it died or was stuck.
        """
        self.trouble = ""
        self._on_change = on_change
        self._on_failure = on_failure
        self._process = Companion("counter of nodes", _count, CountHeartbeat, self._on_heartbeat, self._failed)
        self.slots = self._process.slots
        self.reap = self._process.reap
        self.end = self._process.retire

    def begin(self, prepared: Prepared) -> None:
        """Start the process, if the zone wants it."""
        self.trouble = ""
        if wants_counting(prepared.settings):
            self._process.start(prepared)

    async def renew(self, prepared: Prepared) -> None:
        """Replace the process after a reload; workers ask again meanwhile."""
        await self._process.retire()
        self.begin(prepared)

    def _on_heartbeat(self, heartbeat: CountHeartbeat) -> None:
        self.trouble = heartbeat.trouble
        self._on_change()

    def _failed(self) -> None:
        self.trouble = "the process that counts them has ended, and is replaced; see the log"
        self._on_failure()


def _count(prepared: Prepared, channel: socket.socket) -> None:
    die_with_parent()
    asyncio.run(_run(prepared, channel))


async def _run(prepared: Prepared, channel: socket.socket) -> None:
    settings, broker = prepared.settings, prepared.settings.main_broker
    assert broker is not None
    assert settings.counter_socket is not None
    changed = asyncio.Event()
    counter = NodeCounter(changed.set)
    server = _Server(CounterServer(counter, prepared.policy), changed.set)
    tls = prepared.contexts[broker.name]
    await run_companion(
        channel,
        [counter.run(broker.urls, settings.served.nkey_seed, tls), server.run(settings.counter_socket)],
        lambda: CountHeartbeat(server.trouble or counter.trouble),
        changed,
    )


class _Server:
    """The socket, which is made again until that works.

    Attributes:
        trouble: why it could not be made.
    """

    def __init__(self, server: CounterServer, on_change: Callable[[], None]) -> None:
        self.trouble = ""
        self._server = server
        self._on_change = on_change

    async def run(self, path: Path) -> None:
        """Serve at a path until cancelled."""
        while True:
            try:
                listener = bind(path)
            except OperationError as error:
                self.trouble = str(error)
                self._on_change()
                await asyncio.sleep(_RETRY_SECONDS)
            else:
                self.trouble = ""
                self._on_change()
                await self._server.serve(listener)
