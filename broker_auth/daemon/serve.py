"""``broker-auth serve``: every zone of a configuration, or one, and everything that tells the world about it."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import logging
import os
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Final

from prometheus_client import CollectorRegistry

from broker_auth.daemon.child import Child
from broker_auth.daemon.health import Endpoint, Health, listen
from broker_auth.daemon.metrics import ServiceCollector
from broker_auth.daemon.pidfile import PidFile
from broker_auth.daemon.state import ZoneState
from broker_auth.daemon.supervisor import Supervisor
from broker_auth.daemon.systemd import Notifier
from broker_auth.daemon.tasks import LongTasks
from broker_auth.daemon.troubles import TroubleCode, troubles
from broker_auth.daemon.worker import Prepared, prepare
from broker_auth.daemon.zones import Zones, supervise
from broker_auth.errors import ConfigurationError
from broker_auth.settings.keys.broker import BROKER
from broker_auth.settings.keys.zone import ZONE
from broker_auth.settings.load import check, outline
from broker_auth.settings.model import FLEET_ZONE, Settings
from broker_auth.settings.problems import Problem

# A broker that is down must not make the service manager start us over and over: after this many
# seconds the service counts as started, whichever brokers it serves by then.
_START_SECONDS: Final = 20.0
_TROUBLE_SECONDS: Final = 2.0  # between looks for what is wrong
_log = logging.getLogger(__name__)


def serve(config: Path, workers: int | None = None, zone: str | None = None) -> None:
    """Serve until SIGTERM or SIGINT.

    Args:
        config: the configuration; read again on SIGHUP.
        workers: how many processes answer in each zone, by default as configured.
        zone: the only zone to serve; nothing of the others is read. By default all of them, each in
            processes of its own.

    Raises:
        ConfigurationError: it is not usable; with every problem.
        BrokerAuthError: something it names cannot be used.
    """
    outlined = _outline(config, zone)
    names = [found.name for found in outlined.zones]
    with contextlib.ExitStack() as stack:
        pid_file = None
        if outlined.pid_file is not None:
            pid_file = PidFile(outlined.pid_file)
            stack.callback(pid_file.remove)
        host = _host(config, outlined, names if zone is None else [zone], workers)
        front = _Front(host, Notifier(), pid_file)
        # Not uvloop's: this process forks inside its loop.
        asyncio.run(front.run(outlined.metrics_listen))


def _outline(config: Path, zone: str | None) -> Settings:
    """Return the settings without secrets; if they cannot be used, everything that is wrong is said, not half."""
    try:
        return outline(config, os.environ)
    except ConfigurationError as error:
        report = check(config, os.environ, zone=zone)
        raise ConfigurationError(report.problems or error.problems) from error


def _host(config: Path, outlined: Settings, names: list[str], workers: int | None) -> Supervisor | Zones:
    """Return what runs the zones: one alone needs no process between this one and its workers."""
    if len(names) == 1:
        (name,) = names
        alone = len(outlined.zones) == 1
        return Supervisor(_load(config, name), lambda: _reload(config, outlined, name, alone=alone), workers)

    def start(name: str, on_beat: Callable[[], None]) -> Child[ZoneState]:
        def make() -> Supervisor:
            return Supervisor(
                _load(config, name), lambda: _reload(config, outlined, name), workers, label=f"zone {name}"
            )

        return Child(functools.partial(supervise, make, name), ZoneState, on_beat)

    return Zones(names, start, lambda: [zone.name for zone in outline(config, os.environ).zones])


def _load(config: Path, zone: str) -> Prepared:
    report = check(config, os.environ, zone=zone)
    if report.settings is None:
        raise ConfigurationError(report.problems)
    for warning in report.warnings:
        if zone == FLEET_ZONE or _is_about(warning, report.settings, zone):
            _log.warning("%s", warning)
    return prepare(report.settings.serving(zone))


def _is_about(warning: Problem, settings: Settings, zone: str) -> bool:
    """Return whether a warning is about this zone itself; the fleet's process logs those about all zones."""
    names = [BROKER.replace("<name>", broker.name) for broker in settings.brokers]
    return (warning.key or "").startswith((*names, ZONE.replace("<name>", zone)))


def _reload(config: Path, first: Settings, zone: str, *, alone: bool = False) -> Prepared:
    """Read the configuration again; ``alone``: this process started as the only zone's, and starts no others."""
    prepared = _load(config, zone)
    if alone and (others := [found.name for found in outline(config, os.environ).zones if found.name != zone]):
        _log.error("zone %s is new and not served by this process: restart the service", ", ".join(others))
    for name in ("metrics_listen", "pid_file"):
        if getattr(prepared.settings, name) != getattr(first, name):
            key = f"plugin.broker_auth.{name}".replace("metrics_", "metrics.")
            _log.warning("%s has changed, which needs a restart: until then the old one counts", key)
    return prepared


class _Front:
    """Shows the state of the zones to the service manager, to Prometheus and in the pid file."""

    def __init__(self, host: Supervisor | Zones, notifier: Notifier, pid_file: PidFile | None) -> None:
        self._host = host
        self._notifier = notifier
        self._pid_file = pid_file

    async def run(self, metrics_listen: str | None) -> None:
        async with self._observers(metrics_listen):
            await self._host.run()

    @contextlib.asynccontextmanager
    async def _observers(self, metrics_listen: str | None) -> AsyncIterator[None]:
        notifier, pid_file = self._notifier, self._pid_file
        tasks = LongTasks(self._host.tasks.count_failure)
        tasks.start("service manager", self._tell, once=True)
        if notifier.watchdog is not None:
            seconds = notifier.watchdog
            tasks.start("sign of life", lambda: self._sign_of_life(seconds))
        tasks.start("troubles", self._tell_troubles)
        if pid_file is not None:
            tasks.start("pid file", lambda: self._keep_pid_file(pid_file))
        if metrics_listen is not None:
            registry = CollectorRegistry()
            registry.register(ServiceCollector(self._host.states, time.time))
            endpoint = Endpoint(registry, self._health)
            listeners = [listen(metrics_listen)]  # here, so that an address that is taken ends the start
            tasks.start(
                "metrics and health",
                lambda: endpoint.serve(listeners.pop() if listeners else listen(metrics_listen)),
            )
        try:
            yield
        finally:
            await tasks.cancel()

    @property
    def _main(self) -> ZoneState:
        """The fleet's zone, or the only one: by it the service as a whole is judged."""
        return self._host.states()[0]

    async def _tell(self) -> None:
        """Tell the service manager of each change of state, once."""
        host, notifier = self._host, self._notifier
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_START_SECONDS):
                while not (host.ready or host.stopping):
                    await host.news()
        notifier.ready(self._status())
        told, announced, done = self._status(), False, 0
        while not host.stopping:
            await host.news()
            state = self._main
            finished = state.accepted + state.refused
            if (state.reloading or finished > done) and not announced:
                notifier.reloading()
                announced = True
            if finished > done and not state.reloading:  # a refusal may be over before it was seen
                notifier.ready(self._status())
                announced, done = False, finished
            elif told != (told := self._status()):
                notifier.status(told)
        notifier.stopping()

    async def _tell_troubles(self) -> None:
        """Log each trouble when it begins and when it is over."""
        known: dict[tuple[str, TroubleCode], str] = {}
        while True:
            now = time.time()
            found = {
                (state.zone, trouble.code): trouble.text
                for state in self._host.states()
                for trouble in reversed(troubles(state, now))
            }
            for zone, code in found.keys() - known.keys():
                _log.error("zone %s: %s", zone, found[zone, code])
            for zone, code in known.keys() - found.keys():
                _log.info("zone %s: %s: over", zone, code)
            known = found
            await asyncio.sleep(_TROUBLE_SECONDS)

    async def _keep_pid_file(self, pid_file: PidFile) -> None:
        """Write how reloads went, for ``broker-auth reload``."""
        written: dict[str, tuple[int, int]] = {}
        while True:
            await self._host.news()
            counts = {state.zone: (state.accepted, state.refused) for state in self._host.states()}
            if counts != written:
                pid_file.write(counts)
                written = counts

    async def _sign_of_life(self, seconds: float) -> None:
        """Only while workers live: a supervisor that cannot keep any is as good as dead."""
        while True:
            if self._main.alive:
                self._notifier.alive()
            await asyncio.sleep(seconds)

    def _status(self) -> str:
        parts = []
        for state in self._host.states():
            up = ", ".join(f"{name} {count}" for name, count in state.brokers.items())
            parts.append(f"zone {state.zone}: workers {len(state.resident)}/{state.wanted}; subscribed: {up}")
        return "; ".join(parts)

    def _health(self, zone: str | None) -> Health | None:
        """Return the health of one zone, by default of the main one; None if it is not served here."""
        states = self._host.states()
        found = next((state for state in states if zone in (None, state.zone)), None)
        if found is None:
            return None
        detail: dict[str, object] = {
            "zone": found.zone,
            "workers": len(found.resident),
            "wanted": found.wanted,
            "brokers": found.brokers,
            "zones": {state.zone: {"alive": state.alive, "ready": state.ready} for state in states},
            "troubles": [trouble.text for trouble in troubles(found, time.time())],
        }
        return Health(alive=found.alive, ready=found.ready, detail=detail)
