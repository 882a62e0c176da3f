"""Keeps the workers of one zone running: replaces dead and stuck workers, and all of them on a reload, without a gap.

Workers share each broker's requests through its queue group, so there may temporarily be too many of them, but never
too few. A reload replaces a generation: the supervisor loads the new configuration and forks new workers with it; once
they are subscribed wherever the old workers are, the old workers are drained. If a step fails, the old workers stay.
"""

from __future__ import annotations

import asyncio
import functools
import logging
import signal
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Final, TypeVar

from broker_auth.callout.draining import DRAIN_SECONDS
from broker_auth.callout.stats import Snapshot
from broker_auth.daemon.child import Child
from broker_auth.daemon.counting import Counting
from broker_auth.daemon.crl_files import state_of
from broker_auth.daemon.expiry import Expiry, expiries
from broker_auth.daemon.prepared import Prepared
from broker_auth.daemon.revocations import POLL_SECONDS, RevocationFeed
from broker_auth.daemon.slot import Cause, ProcessSpec, Slot, watch
from broker_auth.daemon.state import ZoneState
from broker_auth.daemon.synchronizing import Synchronization
from broker_auth.daemon.tasks import LongTasks
from broker_auth.daemon.worker import Heartbeat, work
from broker_auth.errors import BrokerAuthError, ConfigurationError
from broker_auth.logs import setup as logs
from broker_auth.settings.model import ServingSettings, Settings

V = TypeVar("V", int, float)
Worker = Child[Heartbeat]
Start = Callable[[Prepared, Callable[[], None]], Worker]
"""Starts a worker; the second argument is called after each of its heartbeats. Raises OSError."""

OLDEST_SECONDS: Final = 5.0  # requests are answered or dropped within 1.5, so a worker with an older request is stuck
HEARTBEAT_TIMEOUT: Final = 3.0  # seconds; a stuck worker delays its share of all connections (fact 12)
TAKEOVER_SECONDS: Final = 15.0  # for new workers to be subscribed wherever the old ones are
DRAIN_DEADLINE: Final = DRAIN_SECONDS + 2  # seconds for a worker to end
_log = logging.getLogger(__name__)

Reload = Callable[[], Prepared]
"""Reads and loads the configuration again; raises a BrokerAuthError if it is not completely usable."""


def is_late(heartbeat: Heartbeat) -> bool:
    """Return whether a heartbeat reports a request that has waited for too long."""
    return heartbeat.oldest > OLDEST_SECONDS


def fork_worker(prepared: Prepared, on_heartbeat: Callable[[], None]) -> Worker:
    """Return a worker in a separate process."""
    return Child(functools.partial(work, prepared), Heartbeat, on_heartbeat)


class Supervisor:
    """The supervisor of one zone, which runs its workers and replaces them on each reload.

    Attributes:
        prepared: the current configuration.
        replaced: number of replaced workers, by cause.
        reloads: number of reloads, by whether they were accepted.
        reloading: whether new workers are currently taking over.
        tasks: background tasks that run until the supervisor is stopped.
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
            prepared: the configuration of one zone.
            reload: see :data:`Reload`.
            workers: number of workers, overrides the configuration.
            label: label of the zone in the log, if there are several zones.
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
        self._slots: list[Slot[Heartbeat]] = []
        self._old: list[Slot[Heartbeat]] = []
        self._feed = self._old_feed = RevocationFeed(prepared)
        self._ended_stats = Snapshot()
        self._audit_lost = 0
        self._log_lost = 0
        self._changed = asyncio.Event()
        self._known: tuple[Prepared, tuple[Expiry, ...]] | None = None
        self.tasks = LongTasks(self.changed)
        self._watching = LongTasks(self.changed)
        self._synchronization = Synchronization(self.changed, self.tasks.count_failure)
        self._counting = Counting(self.changed, self.tasks.count_failure)
        self._stop = asyncio.Event()
        self._reload_wanted = asyncio.Event()

    # -- state for observers ------------------------------------------------------------------

    @property
    def workers(self) -> Sequence[Worker]:
        """The running workers of the current generation."""
        return [slot.child for slot in self._slots if slot.child is not None]

    @property
    def expected_workers(self) -> int:
        """Configured number of workers."""
        return self._count(self.prepared.settings)

    @property
    def stopping(self) -> bool:
        """Whether the supervisor is stopping."""
        return self._stop.is_set()

    @property
    def brokers_up(self) -> dict[str, int]:
        """Number of workers subscribed at each broker."""
        workers = self.workers
        return {
            broker.name: sum(broker.name in subscribed(worker) for worker in workers)
            for broker in self.prepared.settings.brokers
        }

    @property
    def ready(self) -> bool:
        """Whether all workers are subscribed at every broker."""
        return all(up == self.expected_workers for up in self.brokers_up.values())

    @property
    def counted(self) -> Snapshot:
        """Totals since the start, including workers that have ended."""
        total = self._ended_stats
        for worker in self._all():
            if worker.heartbeat is not None:
                total += worker.heartbeat.stats
        return total

    @property
    def audit_lost(self) -> int:
        """Audit records lost since the start."""
        return self._audit_lost + sum(worker.heartbeat.audit_lost for worker in self._all() if worker.heartbeat)

    @property
    def log_lost(self) -> int:
        """Log lines lost since the start, including those of this process."""
        return (
            self._log_lost + logs.lost() + sum(worker.heartbeat.log_lost for worker in self._all() if worker.heartbeat)
        )

    @property
    def alive(self) -> bool:
        """Whether a worker runs and has sent a heartbeat recently."""
        now = asyncio.get_running_loop().time()
        return any(now - worker.last_seen <= HEARTBEAT_TIMEOUT for worker in self.workers)

    def states(self) -> tuple[ZoneState, ...]:
        """Return the state of the supervised zone."""
        heartbeats = [worker.heartbeat for worker in self.workers if worker.heartbeat is not None]
        up = self.brokers_up
        state = ZoneState(
            zone=self.zone,
            serves=self.prepared.policy.serves,
            alive=self.alive,
            ready=self.alive and all(up.values()) and not self.stopping,
            expected_workers=self.expected_workers,
            brokers=up,
            counted=self.counted,
            pending=sum(heartbeat.pending for heartbeat in heartbeats),
            resident=tuple(heartbeat.resident for heartbeat in heartbeats),
            replaced={cause.value: count for cause, count in self.replaced.items()},
            accepted=self.reloads[True],
            refused=self.reloads[False],
            reloading=self.reloading,
            audit_lost=self.audit_lost,
            log_lost=self.log_lost,
            oldest=max((heartbeat.oldest for heartbeat in heartbeats), default=0.0),
            audit_trouble=next((heartbeat.audit_trouble for heartbeat in heartbeats if heartbeat.audit_trouble), ""),
            skews=_chosen((heartbeat.skews for heartbeat in heartbeats), lambda values: max(values, key=abs)),
            waiting=_chosen((heartbeat.waiting for heartbeat in heartbeats), max),
            asked=_chosen((heartbeat.asked for heartbeat in heartbeats), max),
            certificates=_chosen((heartbeat.certificates for heartbeat in heartbeats), min),
            task_failures=self.tasks.failures + self._watching.failures,
            expiries=self._expiries(),
            revocations=self._confirmed(),
            revoked=self._feed.current.count,
            revocation_trouble=self._feed.trouble,
            crls=tuple(map(state_of, self._feed.crls.crls)),
            crl_troubles=tuple(self._feed.crls.troubles.values()),
            synchronized=self._synchronization.last,
            sync_trouble=self._synchronization.trouble,
            counting_trouble=self._counting.trouble,
        )
        return (state,)

    def _expiries(self) -> tuple[Expiry, ...]:
        """Return the certificates' expiry times, which are read once for each configuration."""
        if self._known is None or self._known[0] is not self.prepared:
            self._known = (self.prepared, expiries(self.prepared.settings))
        return self._known[1]

    # -- lifecycle ----------------------------------------------------------------------------

    async def run(self) -> None:
        """Supervise until SIGTERM or SIGINT, then drain every worker; SIGHUP reloads, SIGUSR1 reopens files."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._stop.set)
        loop.add_signal_handler(signal.SIGHUP, self._reload_wanted.set)
        loop.add_signal_handler(signal.SIGUSR1, self._forward, signal.SIGUSR1)
        loop.add_signal_handler(signal.SIGCHLD, self._reap)
        self._watching.start("watchdog of companions", lambda: watch(self._companions))
        self._counting.begin(self.prepared)
        await self._synchronization.begin(self.prepared, lambda: self.stopping)
        self._feed.look()  # workers start with what was revoked while this service did not run
        self._slots = self._fork(self._feed)
        # Runs until the end, because a stuck worker does not drain.
        self._watching.start("watchdog", lambda: watch(lambda: (*self._slots, *self._old)))
        self.tasks.start("reload", self._reload_on_demand)
        self.tasks.start("announcement", self._announce, once=True)
        self.tasks.start("revocations", self._follow_revocations)
        await self._stop.wait()
        self.changed()
        await self.tasks.cancel()
        await asyncio.gather(*(slot.retire() for slot in (*self._slots, *self._old)))
        await self._counting.end()
        await self._synchronization.leave()
        await self._watching.cancel()
        _log.info("stopped; every request of a reachable broker is answered%s", self._label)

    def stop(self) -> None:
        """Stop as on SIGTERM."""
        self._stop.set()

    def reload(self) -> None:
        """Reload as on SIGHUP."""
        self._reload_wanted.set()

    def changed(self) -> None:
        """Notify observers of a change of state."""
        changed, self._changed = self._changed, asyncio.Event()
        changed.set()

    async def wait_for_change(self) -> None:
        """Wait for the next change of state; a heartbeat is a change."""
        await self._changed.wait()

    def _ended(self, worker: Worker) -> None:
        """Add the final counts of an ended worker to the totals."""
        if worker.heartbeat is not None:
            self._ended_stats += worker.heartbeat.stats
            self._audit_lost += worker.heartbeat.audit_lost
            self._log_lost += worker.heartbeat.log_lost

    def _replaced(self, cause: Cause) -> None:
        self.replaced[cause] += 1
        self.changed()

    def _fork(self, feed: RevocationFeed) -> list[Slot[Heartbeat]]:
        spec = ProcessSpec(
            title="worker",
            start=lambda: self._start(feed.prepared(), self.changed),
            timeout=HEARTBEAT_TIMEOUT,
            drain=DRAIN_DEADLINE,
            on_end=self._ended,
            on_replace=self._replaced,
            is_late=is_late,
        )
        return [Slot(spec) for _ in range(self._count(feed.prepared().settings))]

    def _count(self, settings: ServingSettings) -> int:
        return self._workers or settings.served.workers

    def _all(self) -> list[Worker]:
        return [slot.child for slot in (*self._slots, *self._old) if slot.child is not None]

    def _companions(self) -> Sequence[Slot[Any]]:
        """Return the processes beside the workers."""
        return (*self._synchronization.slots(), *self._counting.slots())

    def _reap(self) -> None:
        for worker in self._all():
            worker.reap()
        self._synchronization.reap()
        self._counting.reap()

    def _forward(self, number: signal.Signals) -> None:
        for worker in self._all():
            worker.signal(number)

    async def _announce(self) -> None:
        """Log once that all workers are subscribed at every broker."""
        await self._until(lambda: self.ready)
        names = ",".join(broker.name for broker in self.prepared.settings.brokers)
        if self._label:
            _log.info("serving %s%s", names, self._label)
        else:
            _log.info("ready brokers=%s", names)

    async def _until(self, true: Callable[[], bool]) -> None:
        """Wait until ``true`` returns true; check it on each change of state."""
        while not true():
            await self.wait_for_change()

    # -- revocations --------------------------------------------------------------------------

    async def _follow_revocations(self) -> None:
        while True:
            self._tell_revocations(self._feed, self._slots)
            if self._old_feed is not self._feed:
                self._tell_revocations(self._old_feed, self._old)
            busy = self._feed.crls.busy or self._old_feed.crls.busy
            await asyncio.sleep(0 if busy else POLL_SECONDS)

    def _tell_revocations(self, feed: RevocationFeed, slots: Sequence[Slot[Heartbeat]]) -> None:
        before = feed.trouble, dict(feed.crls.troubles)
        lines = feed.look()
        if lines:
            for slot in slots:
                if slot.child is not None:
                    slot.child.send(lines)
        if lines or (feed.trouble, feed.crls.troubles) != before:
            self.changed()

    def _confirmed(self) -> str:
        """Return the version of the revocations by which every worker decides; empty while they differ."""
        current = self._feed.current.version
        heartbeats = [worker.heartbeat for worker in self._all()]
        complete = len(self.workers) == self.expected_workers
        held = complete and all(heartbeat and heartbeat.revocations == current for heartbeat in heartbeats)
        return current if held else ""

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
                _log.exception("not reloaded%s: internal error; the old configuration stays", self._label)
                accepted = False
                await self._discard_old()
            finally:
                self.reloading = False
            self.reloads[accepted] += 1
            self.changed()

    async def _change(self) -> bool:
        """Replace the configuration and all workers, or neither; return whether they were replaced."""
        try:
            prepared = self._reload()
        except BrokerAuthError as error:
            for problem in error.problems if isinstance(error, ConfigurationError) else [error]:
                _log.error("not reloaded%s: %s", self._label, problem)
            return False
        self._old_feed = RevocationFeed(prepared)
        slots = self._old = self._fork(self._old_feed)  # from now on watched and reaped together with the others
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
        self._feed, self._old_feed = self._old_feed, self._feed
        self.prepared = prepared
        self.changed()
        await self._discard_old()
        await self._synchronization.renew(prepared)
        await self._counting.renew(prepared)
        _log.info("reloaded %s%s", prepared.settings.path, self._label)
        return True

    async def _discard_old(self) -> None:
        """Retire the workers of the previous or of a refused configuration."""
        await asyncio.gather(*(slot.retire() for slot in self._old))
        self._old, self._old_feed = [], self._feed

    def _can_take_over(self, slots: Sequence[Slot[Heartbeat]], settings: Settings) -> bool:
        """Return whether each new worker is subscribed at every broker where an old one is."""
        if not all(slot.child is not None and slot.child.heartbeat is not None for slot in slots):
            return False
        served = {name for name, up in self.brokers_up.items() if up}
        needed = served & {broker.name for broker in settings.brokers}
        return all(slot.child is not None and needed <= subscribed(slot.child) for slot in slots)

    def _missing(self, slots: Sequence[Slot[Heartbeat]]) -> str:
        served = {name for name, up in self.brokers_up.items() if up}
        reached = [subscribed(slot.child) if slot.child else frozenset() for slot in slots]
        names = sorted(name for name in served if not all(name in brokers for brokers in reached))
        return f"workers cannot subscribe at {', '.join(names)}" if names else "workers do not start"


def _chosen(measured: Iterable[Mapping[str, V]], choose: Callable[[list[V]], V]) -> dict[str, V]:
    """Return one of the values that the workers measured, for each key."""
    values: dict[str, list[V]] = {}
    for mapping in measured:
        for key, value in mapping.items():
            values.setdefault(key, []).append(value)
    return {key: choose(items) for key, items in values.items()}


def subscribed(worker: Worker) -> frozenset[str]:
    """Return the brokers at which a worker is subscribed."""
    return frozenset(name for name, up in worker.heartbeat.brokers.items() if up) if worker.heartbeat else frozenset()
