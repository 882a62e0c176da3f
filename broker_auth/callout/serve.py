"""``broker-auth serve``: the supervisor with everything that tells the world about it."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Final

from prometheus_client import CollectorRegistry

from broker_auth.callout.pidfile import PidFile
from broker_auth.callout.process import Prepared, prepare
from broker_auth.callout.supervisor import SILENCE_SECONDS, Supervisor
from broker_auth.errors import ConfigurationError
from broker_auth.observe.expiry import Expiry, expiries
from broker_auth.observe.health import Endpoint, Health, listen
from broker_auth.observe.metrics import ServiceCollector, State
from broker_auth.observe.notify import Notifier
from broker_auth.settings.load import check
from broker_auth.settings.model import Settings

# A broker that is down must not make the service manager start us over and over: after this many
# seconds the service counts as started, whichever brokers it serves by then.
_START_SECONDS: Final = 20.0
_log = logging.getLogger(__name__)


def serve(config: Path, workers: int | None = None) -> None:
    """Serve until SIGTERM or SIGINT.

    Args:
        config: the configuration; read again on SIGHUP.
        workers: how many processes answer, by default as configured.

    Raises:
        ConfigurationError: it is not usable; with every problem.
        BrokerAuthError: something it names cannot be used.
    """
    prepared = _load(config)
    with contextlib.ExitStack() as stack:
        settings = prepared.settings
        pid_file = None
        if settings.pid_file is not None:
            pid_file = PidFile(settings.pid_file)
            stack.callback(pid_file.remove)
        front = _Front(Supervisor(prepared, lambda: _reload(config, settings), workers), Notifier(), pid_file)
        # Not uvloop's: this process forks inside its loop.
        asyncio.run(front.run(settings.metrics_listen))


def _load(config: Path) -> Prepared:
    report = check(config, os.environ, serving=True)
    if report.settings is None:
        raise ConfigurationError(report.problems)
    for warning in report.warnings:
        _log.warning("%s", warning)
    return prepare(report.settings)


def _reload(config: Path, first: Settings) -> Prepared:
    prepared = _load(config)
    for name in ("metrics_listen", "pid_file"):
        if getattr(prepared.settings, name) != getattr(first, name):
            key = f"plugin.broker_auth.{name}".replace("metrics_", "metrics.")
            _log.warning("%s has changed, which needs a restart: until then the old one counts", key)
    return prepared


class _Front:
    """Shows the supervisor's state to the service manager, to Prometheus and in the pid file."""

    def __init__(self, supervisor: Supervisor, notifier: Notifier, pid_file: PidFile | None) -> None:
        self._supervisor = supervisor
        self._notifier = notifier
        self._pid_file = pid_file
        self._known: tuple[Prepared, tuple[Expiry, ...]] | None = None

    async def run(self, metrics_listen: str | None) -> None:
        async with self._observers(metrics_listen):
            await self._supervisor.run()

    @contextlib.asynccontextmanager
    async def _observers(self, metrics_listen: str | None) -> AsyncIterator[None]:
        tasks = [asyncio.create_task(self._tell())]
        if self._notifier.watchdog is not None:
            tasks.append(asyncio.create_task(self._sign_of_life(self._notifier.watchdog)))
        if metrics_listen is not None:
            registry = CollectorRegistry()
            registry.register(ServiceCollector(self._state, time.time))
            endpoint = Endpoint(registry, self._health)
            tasks.append(asyncio.create_task(endpoint.serve(listen(metrics_listen))))
        try:
            yield
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _tell(self) -> None:
        """Tell the service manager of each change of state, once."""
        supervisor, notifier = self._supervisor, self._notifier
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_START_SECONDS):
                while not (supervisor.ready or supervisor.stopping):
                    await supervisor.news()
        notifier.ready(self._status())
        told, announced, done = self._status(), False, 0
        while not supervisor.stopping:
            await supervisor.news()
            finished = sum(supervisor.reloads.values())
            if (supervisor.reloading or finished > done) and not announced:
                notifier.reloading()
                announced = True
            if finished > done and not supervisor.reloading:  # a refusal may be over before it was seen
                self._reloaded()
                announced, done = False, finished
            elif told != (told := self._status()):
                notifier.status(told)
        notifier.stopping()

    def _reloaded(self) -> None:
        self._notifier.ready(self._status())
        if self._pid_file is not None:
            self._pid_file.write(self._supervisor.reloads[True], self._supervisor.reloads[False])

    async def _sign_of_life(self, seconds: float) -> None:
        """Only while workers live: a supervisor that cannot keep any is as good as dead."""
        while True:
            if self._health().alive:
                self._notifier.alive()
            await asyncio.sleep(seconds)

    def _status(self) -> str:
        supervisor = self._supervisor
        up = ", ".join(f"{name} {count}" for name, count in supervisor.brokers_up.items())
        return f"workers {len(supervisor.workers)}/{supervisor.wanted}; subscribed: {up}"

    def _health(self) -> Health:
        supervisor, now = self._supervisor, asyncio.get_running_loop().time()
        up = supervisor.brokers_up
        alive = any(now - worker.heard <= SILENCE_SECONDS for worker in supervisor.workers)
        return Health(
            alive=alive,
            ready=alive and all(up.values()) and not supervisor.stopping,
            detail={"workers": len(supervisor.workers), "wanted": supervisor.wanted, "brokers": up},
        )

    def _state(self) -> State:
        supervisor = self._supervisor
        beats = [worker.beat for worker in supervisor.workers if worker.beat is not None]
        return State(
            counted=supervisor.counted,
            wanted=supervisor.wanted,
            brokers=supervisor.brokers_up,
            pending=sum(beat.pending for beat in beats),
            resident=tuple(beat.resident for beat in beats),
            replaced={cause.value: count for cause, count in supervisor.replaced.items()},
            reloads={"accepted": supervisor.reloads[True], "refused": supervisor.reloads[False]},
            audit_lost=supervisor.audit_lost,
            expiries=self._expiries(supervisor.prepared),
        )

    def _expiries(self, prepared: Prepared) -> tuple[Expiry, ...]:
        """Read once for each configuration."""
        if self._known is None or self._known[0] is not prepared:
            self._known = (prepared, expiries(prepared.settings))
        return self._known[1]
