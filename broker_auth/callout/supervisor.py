"""Keeps workers running: replaces the dead and the stuck, and on reload all of them without a gap.

Workers share each broker's requests by its queue group, so there may be too many of them for a
moment, never too few. A reload therefore is a change of generation: the new configuration is read
and loaded here, new workers are forked with it, and when they serve what the old ones serve, those
are drained. Whatever fails on the way leaves the old ones as they were.
"""

from __future__ import annotations

import asyncio
import logging
import signal
from collections.abc import Callable, Sequence
from enum import StrEnum
from typing import Final

from broker_auth.callout.link import DRAIN_SECONDS
from broker_auth.callout.process import Prepared
from broker_auth.callout.worker import Worker
from broker_auth.errors import BrokerAuthError, ConfigurationError
from broker_auth.observe.stats import Snapshot
from broker_auth.settings.model import Settings

SILENCE_SECONDS: Final = 3.0  # after which a worker is stuck: half of all connections wait for it (NATS_FACTS 12)
TAKEOVER_SECONDS: Final = 15.0  # within which new workers must serve what old ones do
_TICK_SECONDS: Final = 0.5
_PATIENCE: Final = DRAIN_SECONDS + 2
_BACKOFF: Final = (0.0, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0)  # seconds, by failures in a row
_RESTART_SECONDS: Final = 1.0
_STEADY_SECONDS: Final = 30.0  # a worker that ran this long had not failed to start
_log = logging.getLogger(__name__)

Reload = Callable[[], Prepared]
"""Reads and loads the configuration anew; raises a BrokerAuthError if it is not usable as a whole."""


class Cause(StrEnum):
    """Why a worker had to be replaced."""

    DIED = "died"
    STUCK = "stuck"


class _Slot:
    """One worker after the other, until retired."""

    def __init__(self, supervisor: Supervisor, prepared: Prepared) -> None:
        self.worker: Worker | None = None
        self._supervisor = supervisor
        self._prepared = prepared
        self._retired = False
        self._stuck = False
        self._failures = 0
        self._task = asyncio.create_task(self._keep())

    async def retire(self) -> None:
        """Drain the worker and start no other."""
        self._retired = True
        if self.worker is None:
            self._task.cancel()  # it waits to start the next one
        else:
            worker = self.worker
            if not await worker.end(_PATIENCE):
                _log.warning("worker %d did not drain (status %s)", worker.pid, worker.status)
        await asyncio.gather(self._task, return_exceptions=True)

    def check(self, now: float) -> None:
        """Kill the worker if it has not been heard for too long."""
        worker = self.worker
        if worker is not None and worker.status is None and now - worker.heard > SILENCE_SECONDS:
            _log.error("worker %d said nothing for %.1f s and is killed", worker.pid, now - worker.heard)
            self._stuck = True
            worker.heard = now
            worker.signal(signal.SIGKILL)

    async def _keep(self) -> None:
        while not self._retired:
            worker = await self._started()
            await worker.ended.wait()
            await worker.last_words()
            self.worker = None
            self._supervisor.buried(worker)
            if not self._retired:
                await self._mourn(worker)

    async def _started(self) -> Worker:
        """A new worker, once the system has what it takes: one that ran out of memory or descriptors may recover."""
        while True:
            try:
                self.worker = Worker(self._prepared, self._supervisor.changed)
            except OSError as error:
                _log.error("worker cannot be started: %s; tried again in %g s", error.strerror, _RESTART_SECONDS)
                await asyncio.sleep(_RESTART_SECONDS)
            else:
                return self.worker

    async def _mourn(self, worker: Worker) -> None:
        cause = Cause.STUCK if self._stuck else Cause.DIED
        self._stuck = False
        lived = asyncio.get_running_loop().time() - worker.started
        self._failures = 1 if lived > _STEADY_SECONDS else self._failures + 1
        delay = _BACKOFF[min(self._failures, len(_BACKOFF)) - 1]
        self._supervisor.replaced[cause] += 1
        self._supervisor.changed()
        _log.error("worker %d %s (status %s); replaced in %g s", worker.pid, cause, worker.status, delay)
        await asyncio.sleep(delay)


class Supervisor:
    """Runs the workers of one configuration, and of the next one after each reload.

    Attributes:
        prepared: the configuration in force.
        replaced: workers that had to be replaced, by cause.
        reloads: changes of configuration, by whether they were accepted.
        reloading: whether new workers are taking over just now.
    """

    def __init__(self, prepared: Prepared, reload: Reload, workers: int | None = None) -> None:
        """``workers`` overrides what the configuration says."""
        self.prepared = prepared
        self.replaced = dict.fromkeys(Cause, 0)
        self.reloads = {True: 0, False: 0}
        self.reloading = False
        self._reload = reload
        self._workers = workers
        self._slots: list[_Slot] = []
        self._old: list[_Slot] = []
        self._buried = Snapshot()
        self._audit_lost = 0
        self._changed = asyncio.Event()
        self._stop = asyncio.Event()
        self._reload_wanted = asyncio.Event()

    # -- what observers see -------------------------------------------------------------------

    @property
    def workers(self) -> Sequence[Worker]:
        """The workers in charge that run now."""
        return [slot.worker for slot in self._slots if slot.worker is not None]

    @property
    def wanted(self) -> int:
        """How many there should be."""
        return self._count(self.prepared.settings)

    @property
    def stopping(self) -> bool:
        """Whether it was told to stop."""
        return self._stop.is_set()

    @property
    def brokers_up(self) -> dict[str, int]:
        """Workers subscribed at each broker."""
        workers = self.workers
        return {
            broker.name: sum(broker.name in worker.subscribed for worker in workers)
            for broker in self.prepared.settings.brokers
        }

    @property
    def ready(self) -> bool:
        """Whether every broker can reach every worker there should be."""
        return all(up == self.wanted for up in self.brokers_up.values())

    @property
    def counted(self) -> Snapshot:
        """Everything counted since the start, by workers that ended too."""
        total = self._buried
        for worker in self._all():
            if worker.beat is not None:
                total += worker.beat.stats
        return total

    @property
    def audit_lost(self) -> int:
        """Audit records lost since the start."""
        return self._audit_lost + sum(worker.beat.audit_lost for worker in self._all() if worker.beat)

    # -- life ---------------------------------------------------------------------------------

    async def run(self) -> None:
        """Supervise until SIGTERM or SIGINT, then drain every worker; SIGHUP reloads, SIGUSR1 reopens files."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._stop.set)
        loop.add_signal_handler(signal.SIGHUP, self._reload_wanted.set)
        loop.add_signal_handler(signal.SIGUSR1, self._forward, signal.SIGUSR1)
        loop.add_signal_handler(signal.SIGCHLD, self._reap)
        self._slots = self._fork(self.prepared)
        watch = asyncio.create_task(self._watch())  # to the end: who is stuck does not drain
        tasks = [asyncio.create_task(work) for work in (self._reload_on_demand(), self._announce())]
        await self._stop.wait()
        self.changed()
        await _cancelled(*tasks)
        await asyncio.gather(*(slot.retire() for slot in (*self._slots, *self._old)))
        await _cancelled(watch)
        _log.info("drained, every request received is answered")

    def changed(self) -> None:
        """Something an observer may show has changed."""
        changed, self._changed = self._changed, asyncio.Event()
        changed.set()

    async def news(self) -> None:
        """Return when something has changed; a beat of a worker is a change."""
        await self._changed.wait()

    def buried(self, worker: Worker) -> None:
        """Keep what an ended worker counted."""
        if worker.beat is not None:
            self._buried += worker.beat.stats
            self._audit_lost += worker.beat.audit_lost

    def _fork(self, prepared: Prepared) -> list[_Slot]:
        return [_Slot(self, prepared) for _ in range(self._count(prepared.settings))]

    def _count(self, settings: Settings) -> int:
        return self._workers or settings.workers

    def _all(self) -> list[Worker]:
        return [slot.worker for slot in (*self._slots, *self._old) if slot.worker is not None]

    def _reap(self) -> None:
        for worker in self._all():
            worker.reap()

    def _forward(self, number: signal.Signals) -> None:
        for worker in self._all():
            worker.signal(number)

    async def _watch(self) -> None:
        loop = asyncio.get_running_loop()
        before = loop.time()
        while True:
            await asyncio.sleep(_TICK_SECONDS)
            now = loop.time()
            if now - before > 2 * _TICK_SECONDS:
                # It was us who did not listen (suspended, or the machine was): everybody gets a fresh start.
                for worker in self._all():
                    worker.heard = now
            for slot in (*self._slots, *self._old):
                slot.check(now)
            before = now

    async def _announce(self) -> None:
        """One line in the log once every broker reaches every worker, at the start."""
        await self._until(lambda: self.ready)
        _log.info("ready brokers=%s", ",".join(broker.name for broker in self.prepared.settings.brokers))

    async def _until(self, true: Callable[[], bool]) -> None:
        """Wait for a condition that changes can make true."""
        while not true():
            await self.news()

    # -- reload -------------------------------------------------------------------------------

    async def _reload_on_demand(self) -> None:
        while True:
            await self._reload_wanted.wait()
            self._reload_wanted.clear()
            self.reloading = True
            self.changed()
            accepted = await self._change()
            self.reloading = False
            self.reloads[accepted] += 1
            self.changed()

    async def _change(self) -> bool:
        """Replace the configuration and every worker, or neither; whether it did."""
        try:
            prepared = self._reload()
        except BrokerAuthError as error:
            for problem in error.problems if isinstance(error, ConfigurationError) else [error]:
                _log.error("not reloaded: %s", problem)
            return False
        slots = self._old = self._fork(prepared)  # watched and reaped with the others from now on
        try:
            async with asyncio.timeout(TAKEOVER_SECONDS):
                await self._until(lambda: self._can_take_over(slots, prepared.settings))
        except TimeoutError:
            _log.error("not reloaded: with the new configuration %s; the old one stays", self._missing(slots))
            await asyncio.gather(*(slot.retire() for slot in slots))
            self._old = []
            return False
        self._slots, self._old = slots, self._slots
        self.prepared = prepared
        self.changed()
        await asyncio.gather(*(slot.retire() for slot in self._old))
        self._old = []
        _log.info("reloaded %s", prepared.settings.path)
        return True

    def _can_take_over(self, slots: Sequence[_Slot], settings: Settings) -> bool:
        """Whether each new worker is reached by every broker that reaches an old one now."""
        if not all(slot.worker is not None and slot.worker.beat is not None for slot in slots):
            return False
        served = {name for name, up in self.brokers_up.items() if up}
        needed = served & {broker.name for broker in settings.brokers}
        return all(slot.worker is not None and needed <= slot.worker.subscribed for slot in slots)

    def _missing(self, slots: Sequence[_Slot]) -> str:
        served = {name for name, up in self.brokers_up.items() if up}
        reached = [slot.worker.subscribed if slot.worker else frozenset() for slot in slots]
        names = sorted(name for name in served if not all(name in subscribed for subscribed in reached))
        return f"workers do not get subscribed at {', '.join(names)}" if names else "workers do not start"


async def _cancelled(*tasks: asyncio.Task[None]) -> None:
    """Cancel tasks and wait until they are."""
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
