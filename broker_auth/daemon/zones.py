"""Runs one process for each zone, which reads only that zone's keys; this process reads no keys.

Therefore neither a worker of an edge nor its parent ever has a key in memory that the fleet trusts, and a zone never
waits for another one, for example for its reload or its dying workers.
"""

from __future__ import annotations

import asyncio
import logging
import signal
import socket
from collections.abc import Callable, Sequence
from typing import Final

import msgspec

from broker_auth.daemon.child import Child
from broker_auth.daemon.slot import Cause, ProcessSpec, Slot, watch
from broker_auth.daemon.spawn import die_with_parent
from broker_auth.daemon.state import ZoneState
from broker_auth.daemon.supervisor import DRAIN_DEADLINE, Supervisor
from broker_auth.daemon.tasks import LongTasks
from broker_auth.errors import BrokerAuthError, ConfigurationError

# A zone's process reads files on reload and may wait for a slow disk; its workers continue meanwhile.
HEARTBEAT_TIMEOUT: Final = 20.0
_HEARTBEAT_SECONDS: Final = 1.0
_MAX_UNREAD: Final = 256 * 1024  # bytes of heartbeats buffered for a parent that does not read
_log = logging.getLogger(__name__)

Start = Callable[[str, Callable[[], None]], Child[ZoneState]]
"""Starts the process of a zone; the second argument is called after each of its heartbeats. Raises OSError."""


class Zones:
    """The zones of a service, each served by a process until stopped.

    Attributes:
        tasks: background tasks that run until this process is stopped.
    """

    def __init__(self, names: Sequence[str], start: Start, names_now: Callable[[], Sequence[str]]) -> None:
        """Start nothing yet.

        Args:
            names: names of the zones.
            start: see :data:`Start`; the process runs :func:`supervise`.
            names_now: reads the names of the zones from the configuration on a reload; may raise a BrokerAuthError.
        """
        self._start = start
        self._names_now = names_now
        self._names = tuple(names)
        self._slots: dict[str, Slot[ZoneState]] = {}
        self._ended: dict[str, ZoneState] = {}
        self._changed = asyncio.Event()
        self.tasks = LongTasks(self._on_change)
        self._stop = asyncio.Event()
        self._reload_wanted = asyncio.Event()

    @property
    def stopping(self) -> bool:
        """Whether the service is stopping."""
        return self._stop.is_set()

    @property
    def ready(self) -> bool:
        """Whether all workers of every zone are subscribed at every broker."""
        return all(_is_complete(state) for state in self.states())

    def states(self) -> tuple[ZoneState, ...]:
        """Return the state of every zone, the fleet's first."""
        first, *others = (self._state(name) for name in self._names)
        own = msgspec.structs.replace(first, task_failures=first.task_failures + self.tasks.failures)
        return (own, *others)

    def _state(self, name: str) -> ZoneState:
        slot, earlier = self._slots.get(name), self._ended.get(name, ZoneState(zone=name))
        child = slot.child if slot else None
        if child is None or child.heartbeat is None:
            return earlier.down()
        state = child.heartbeat.after(earlier)
        silent = asyncio.get_running_loop().time() - child.last_seen > HEARTBEAT_TIMEOUT
        return state.down() if silent else state

    async def wait_for_change(self) -> None:
        """Wait for the next change of state; a heartbeat is a change."""
        await self._changed.wait()

    async def run(self) -> None:
        """Run until SIGTERM or SIGINT, then drain every zone; SIGHUP reloads each zone, SIGUSR1 reopens their files.

        Raises:
            ConfigurationError: a zone could not start; lists the problems of all zones.
        """
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._stop.set)
        loop.add_signal_handler(signal.SIGHUP, self._reload_wanted.set)
        loop.add_signal_handler(signal.SIGUSR1, self._forward, signal.SIGUSR1)
        loop.add_signal_handler(signal.SIGCHLD, self._reap)
        for name in self._names:
            self._add(name)
        watching = LongTasks(self._on_change)  # runs until the end, because a stuck process does not drain
        watching.start("watchdog", lambda: watch(lambda: self._slots.values()))
        try:
            await self._started()
            self.tasks.start("reload", self._reload_on_demand)
            self.tasks.start("announcement", self._announce, once=True)
            await self._stop.wait()
            self._on_change()
        finally:
            await self.tasks.cancel()
            await asyncio.gather(*(slot.retire() for slot in self._slots.values()))
            await watching.cancel()
        _log.info("stopped; every request of a reachable broker is answered")

    def _add(self, name: str) -> None:
        spec = ProcessSpec(
            title=f"process of zone {name}",
            start=lambda: self._start(name, self._on_change),
            timeout=HEARTBEAT_TIMEOUT,
            drain=DRAIN_DEADLINE + 2,
            on_end=lambda child: self._on_end(name, child),
            on_replace=self._on_replace,
        )
        self._slots[name] = Slot(spec)

    async def _started(self) -> None:
        """Wait until each zone has read its configuration.

        Raises:
            ConfigurationError: a zone could not.
        """
        await self._until(lambda: self.stopping or all(self._is_known(name) for name in self._names))
        problems = [problem for state in self._ended.values() for problem in state.problems]
        if problems:
            raise ConfigurationError(tuple(dict.fromkeys(problems)))

    def _is_known(self, name: str) -> bool:
        child = self._slots[name].child
        return name in self._ended or (
            child is not None and child.heartbeat is not None and not child.heartbeat.problems
        )

    async def _announce(self) -> None:
        await self._until(lambda: self.ready)
        brokers = [broker for state in self.states() for broker in state.brokers]
        _log.info("ready brokers=%s", ",".join(brokers))

    async def _reload_on_demand(self) -> None:
        while True:
            await self._reload_wanted.wait()
            self._reload_wanted.clear()
            try:
                names = tuple(self._names_now())
            except BrokerAuthError:
                self._forward(signal.SIGHUP)
                continue  # each zone logs the problems
            self._forward(signal.SIGHUP, names)  # a zone that was removed cannot reload
            for name in names:
                if name not in self._slots:
                    _log.info("zone %s is new", name)
                    self._add(name)
            gone = [name for name in self._slots if name not in names]
            self._names = names
            for name in gone:
                _log.info("zone %s has been removed", name)
                await self._slots[name].retire()  # remove it afterwards, so that its end is noticed
                del self._slots[name]

    async def _until(self, true: Callable[[], bool]) -> None:
        while not true():
            await self.wait_for_change()

    def _on_change(self) -> None:
        changed, self._changed = self._changed, asyncio.Event()
        changed.set()

    def _on_end(self, name: str, child: Child[ZoneState]) -> None:
        """Add the process's counts to the totals, and log why it did not start."""
        state = child.heartbeat or ZoneState(zone=name)
        for problem in state.problems:
            _log.error("zone %s: %s", name, problem)
        self._ended[name] = state.after(self._ended.get(name, ZoneState(zone=name)))
        self._on_change()

    def _on_replace(self, _: Cause) -> None:
        self._on_change()

    def _forward(self, number: signal.Signals, names: Sequence[str] | None = None) -> None:
        for name, slot in self._slots.items():
            if slot.child is not None and (names is None or name in names):
                slot.child.signal(number)

    def _reap(self) -> None:
        for slot in self._slots.values():
            if slot.child is not None:
                slot.child.reap()


def _is_complete(state: ZoneState) -> bool:
    return bool(state.brokers) and all(up == state.expected_workers for up in state.brokers.values())


def supervise(make: Callable[[], Supervisor], zone: str, channel: socket.socket) -> None:
    """Run the supervisor of one zone in this process, and send its state to the parent until either ends.

    Args:
        make: reads the zone's configuration; may raise a BrokerAuthError, which is reported to the parent.
        zone: name of the zone.
        channel: the channel to the parent.
    """
    die_with_parent()
    # Remember a reload that is requested while the configuration is being read; it would be lost otherwise.
    early: list[int] = []
    signal.signal(signal.SIGHUP, lambda number, _: early.append(number))
    try:
        supervisor = make()
    except BrokerAuthError as error:
        problems = error.problems if isinstance(error, ConfigurationError) else (error,)
        state = ZoneState(zone=zone, problems=tuple(str(problem) for problem in problems))
        channel.sendall(msgspec.json.encode(state) + b"\n")
        return
    if early:
        supervisor.reload()
    asyncio.run(_supervise(supervisor, channel))


async def _supervise(supervisor: Supervisor, channel: socket.socket) -> None:
    reader, writer = await asyncio.open_unix_connection(sock=channel)
    tasks = [
        asyncio.create_task(_stop_with_parent(reader, supervisor)),
        asyncio.create_task(_report(supervisor, writer)),
    ]
    try:
        await supervisor.run()
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        _send(supervisor, writer)
        writer.close()


async def _stop_with_parent(reader: asyncio.StreamReader, supervisor: Supervisor) -> None:
    """Stop when the channel ends, on which the parent sends nothing."""
    await reader.read()
    supervisor.stop()


async def _report(supervisor: Supervisor, writer: asyncio.StreamWriter) -> None:
    while True:
        _send(supervisor, writer)
        try:
            async with asyncio.timeout(_HEARTBEAT_SECONDS):
                await supervisor.wait_for_change()
        except TimeoutError:
            continue


def _send(supervisor: Supervisor, writer: asyncio.StreamWriter) -> None:
    if writer.transport.get_write_buffer_size() > _MAX_UNREAD:
        return  # the parent is busy or suspended; a later heartbeat contains the same and more
    (state,) = supervisor.states()
    writer.write(msgspec.json.encode(state) + b"\n")
