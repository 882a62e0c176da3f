"""Keeps the workers of one zone running: replaces the dead and the stuck, on reload all of them without a gap.

Workers share each broker's requests by its queue group, so there may be too many of them for a
moment, never too few. A reload therefore is a change of generation: the new configuration is read
and loaded here, new workers are forked with it, and when they serve what the old ones serve, those
are drained. Whatever fails on the way leaves the old ones as they were.
"""

from __future__ import annotations

import asyncio
import functools
import logging
import signal
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Final

from broker_auth.callout.connection import DRAIN_SECONDS
from broker_auth.callout.stats import Snapshot
from broker_auth.daemon.child import Child
from broker_auth.daemon.expiry import Expiry, expiries
from broker_auth.daemon.slot import Cause, Kind, Slot, watch
from broker_auth.daemon.state import ZoneState
from broker_auth.daemon.tasks import LongTasks
from broker_auth.daemon.worker import Beat, Prepared, work
from broker_auth.errors import BrokerAuthError, ConfigurationError
from broker_auth.logs import setup as logs
from broker_auth.settings.model import ServingSettings, Settings

Worker = Child[Beat]
Start = Callable[[Prepared, Callable[[], None]], Worker]
"""Starts a worker; the second argument is called after each of its heartbeats. Raises OSError."""

OLDEST_SECONDS: Final = 5.0  # a request is answered or dropped within 1.5: a worker that lets one wait is stuck
SILENCE_SECONDS: Final = 3.0  # after which a worker is stuck: half of all connections wait for it (fact 12)
TAKEOVER_SECONDS: Final = 15.0  # within which new workers must serve what old ones do
DRAIN_DEADLINE: Final = DRAIN_SECONDS + 2  # seconds a worker has to end
_log = logging.getLogger(__name__)

Reload = Callable[[], Prepared]
"""Reads and loads the configuration anew; raises a BrokerAuthError if it is not usable as a whole."""


def is_late(beat: Beat) -> bool:
    """Return whether a heartbeat tells of a request that has waited for too long."""
    return beat.oldest > OLDEST_SECONDS


def fork_worker(prepared: Prepared, on_beat: Callable[[], None]) -> Worker:
    """Return a worker in a process of its own."""
    return Child(functools.partial(work, prepared), Beat, on_beat)


class Supervisor:
    """Runs the workers of one configuration, and of the next one after each reload.

    Attributes:
        prepared: the configuration in force.
        replaced: workers that had to be replaced, by cause.
        reloads: changes of configuration, by whether they were accepted.
        reloading: whether new workers are taking over just now.
        tasks: what runs beside the workers until the supervisor is told to stop.
    """

    def __init__(
        self,
        prepared: Prepared,
        reload: Reload,
        workers: int | None = None,
        *,
        label: str = "",
        start: Start = fork_worker,
    ) -> None:
        """Start nothing yet.

        Args:
            prepared: what to run, of one zone.
            reload: see :data:`Reload`.
            workers: overrides what the configuration says.
            label: of this zone in the log, where it is not the only one.
            start: see :data:`Start`.
        """
        self.prepared = prepared
        self.zone = prepared.settings.served.name
        self._label = f" ({label})" if label else ""
        self.replaced = dict.fromkeys(Cause, 0)
        self.reloads = {True: 0, False: 0}
        self.reloading = False
        self._reload = reload
        self._start = start
        self._workers = workers
        self._slots: list[Slot[Beat]] = []
        self._old: list[Slot[Beat]] = []
        self._buried = Snapshot()
        self._audit_lost = 0
        self._log_lost = 0
        self._changed = asyncio.Event()
        self._known: tuple[Prepared, tuple[Expiry, ...]] | None = None
        self.tasks = LongTasks(self.changed)
        self._watching = LongTasks(self.changed)
        self._stop = asyncio.Event()
        self._reload_wanted = asyncio.Event()

    # -- what observers see -------------------------------------------------------------------

    @property
    def workers(self) -> Sequence[Worker]:
        """The workers in charge that run now."""
        return [slot.child for slot in self._slots if slot.child is not None]

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
            broker.name: sum(broker.name in subscribed(worker) for worker in workers)
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

    @property
    def log_lost(self) -> int:
        """Log lines lost since the start, this process's too."""
        return self._log_lost + logs.lost() + sum(worker.beat.log_lost for worker in self._all() if worker.beat)

    @property
    def alive(self) -> bool:
        """Whether a worker runs and has been heard lately."""
        now = asyncio.get_running_loop().time()
        return any(now - worker.heard <= SILENCE_SECONDS for worker in self.workers)

    def states(self) -> tuple[ZoneState, ...]:
        """Return the state of the one zone that is supervised here."""
        beats = [worker.beat for worker in self.workers if worker.beat is not None]
        up = self.brokers_up
        state = ZoneState(
            zone=self.zone,
            alive=self.alive,
            ready=self.alive and all(up.values()) and not self.stopping,
            wanted=self.wanted,
            brokers=up,
            counted=self.counted,
            pending=sum(beat.pending for beat in beats),
            resident=tuple(beat.resident for beat in beats),
            replaced={cause.value: count for cause, count in self.replaced.items()},
            accepted=self.reloads[True],
            refused=self.reloads[False],
            reloading=self.reloading,
            audit_lost=self.audit_lost,
            log_lost=self.log_lost,
            oldest=max((beat.oldest for beat in beats), default=0.0),
            audit_trouble=next((beat.audit_trouble for beat in beats if beat.audit_trouble), ""),
            skews=_most(beat.skews for beat in beats),
            task_failures=self.tasks.failures + self._watching.failures,
            expiries=self._expiries(),
        )
        return (state,)

    def _expiries(self) -> tuple[Expiry, ...]:
        """Return what is read once for each configuration."""
        if self._known is None or self._known[0] is not self.prepared:
            self._known = (self.prepared, expiries(self.prepared.settings))
        return self._known[1]

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
        # To the end: a stuck worker does not drain.
        self._watching.start("watchdog", lambda: watch(lambda: (*self._slots, *self._old)))
        self.tasks.start("reload", self._reload_on_demand)
        self.tasks.start("announcement", self._announce, once=True)
        await self._stop.wait()
        self.changed()
        await self.tasks.cancel()
        await asyncio.gather(*(slot.retire() for slot in (*self._slots, *self._old)))
        await self._watching.cancel()
        _log.info("drained, every request received is answered%s", self._label)

    def stop(self) -> None:
        """Stop as on SIGTERM."""
        self._stop.set()

    def reload(self) -> None:
        """Reload as on SIGHUP."""
        self._reload_wanted.set()

    def changed(self) -> None:
        """Something an observer may show has changed."""
        changed, self._changed = self._changed, asyncio.Event()
        changed.set()

    async def news(self) -> None:
        """Return when something has changed; a beat of a worker is a change."""
        await self._changed.wait()

    def _ended(self, worker: Worker) -> None:
        """Keep what an ended worker counted."""
        if worker.beat is not None:
            self._buried += worker.beat.stats
            self._audit_lost += worker.beat.audit_lost
            self._log_lost += worker.beat.log_lost

    def _replaced(self, cause: Cause) -> None:
        self.replaced[cause] += 1
        self.changed()

    def _fork(self, prepared: Prepared) -> list[Slot[Beat]]:
        kind = Kind(
            title="worker",
            start=lambda: self._start(prepared, self.changed),
            silence=SILENCE_SECONDS,
            drain=DRAIN_DEADLINE,
            on_end=self._ended,
            on_replace=self._replaced,
            is_late=is_late,
        )
        return [Slot(kind) for _ in range(self._count(prepared.settings))]

    def _count(self, settings: ServingSettings) -> int:
        return self._workers or settings.served.workers

    def _all(self) -> list[Worker]:
        return [slot.child for slot in (*self._slots, *self._old) if slot.child is not None]

    def _reap(self) -> None:
        for worker in self._all():
            worker.reap()

    def _forward(self, number: signal.Signals) -> None:
        for worker in self._all():
            worker.signal(number)

    async def _announce(self) -> None:
        """One line in the log once every broker reaches every worker, at the start."""
        await self._until(lambda: self.ready)
        names = ",".join(broker.name for broker in self.prepared.settings.brokers)
        if self._label:
            _log.info("serving %s%s", names, self._label)
        else:
            _log.info("ready brokers=%s", names)

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
            try:
                accepted = await self._change()
            except Exception:
                _log.exception("not reloaded%s: an error in this program; the old configuration stays", self._label)
                accepted = False
                await self._discard_old()
            finally:
                self.reloading = False
            self.reloads[accepted] += 1
            self.changed()

    async def _change(self) -> bool:
        """Replace the configuration and every worker, or neither; whether it did."""
        try:
            prepared = self._reload()
        except BrokerAuthError as error:
            for problem in error.problems if isinstance(error, ConfigurationError) else [error]:
                _log.error("not reloaded%s: %s", self._label, problem)
            return False
        slots = self._old = self._fork(prepared)  # watched and reaped with the others from now on
        try:
            async with asyncio.timeout(TAKEOVER_SECONDS):
                await self._until(lambda: self._can_take_over(slots, prepared.settings))
        except TimeoutError:
            _log.error(
                "not reloaded%s: with the new configuration %s; the old one stays", self._label, self._missing(slots)
            )
            await self._discard_old()
            return False
        self._slots, self._old = slots, self._slots
        self.prepared = prepared
        self.changed()
        await self._discard_old()
        _log.info("reloaded %s%s", prepared.settings.path, self._label)
        return True

    async def _discard_old(self) -> None:
        """Retire the workers that are not in charge, be they of the old or of a refused configuration."""
        await asyncio.gather(*(slot.retire() for slot in self._old))
        self._old = []

    def _can_take_over(self, slots: Sequence[Slot[Beat]], settings: Settings) -> bool:
        """Whether each new worker is reached by every broker that reaches an old one now."""
        if not all(slot.child is not None and slot.child.beat is not None for slot in slots):
            return False
        served = {name for name, up in self.brokers_up.items() if up}
        needed = served & {broker.name for broker in settings.brokers}
        return all(slot.child is not None and needed <= subscribed(slot.child) for slot in slots)

    def _missing(self, slots: Sequence[Slot[Beat]]) -> str:
        served = {name for name, up in self.brokers_up.items() if up}
        reached = [subscribed(slot.child) if slot.child else frozenset() for slot in slots]
        names = sorted(name for name in served if not all(name in brokers for brokers in reached))
        return f"workers do not get subscribed at {', '.join(names)}" if names else "workers do not start"


def _most(skews: Iterable[Mapping[str, float]]) -> dict[str, float]:
    """Return by server the largest skew that any worker measured."""
    found: dict[str, float] = {}
    for measured in skews:
        for server, skew in measured.items():
            found[server] = max(skew, found.get(server, skew), key=abs)
    return found


def subscribed(worker: Worker) -> frozenset[str]:
    """Return the brokers that a worker can be reached through."""
    return frozenset(name for name, up in worker.beat.brokers.items() if up) if worker.beat else frozenset()
