"""``broker-auth serve``: serves all zones of a configuration, or one, and reports their state."""

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
from broker_auth.daemon.pidfile import PidFile, ZoneLine
from broker_auth.daemon.prepared import Prepared
from broker_auth.daemon.state import ZoneState
from broker_auth.daemon.supervisor import Supervisor
from broker_auth.daemon.systemd import Notifier
from broker_auth.daemon.tasks import LongTasks
from broker_auth.daemon.troubles import TroubleCode, troubles
from broker_auth.daemon.worker import prepare
from broker_auth.daemon.zones import Zones, supervise
from broker_auth.errors import ConfigurationError
from broker_auth.settings.keys.broker import BROKER
from broker_auth.settings.keys.zone import ZONE
from broker_auth.settings.load import check, outline
from broker_auth.settings.model import FLEET_ZONE, Settings
from broker_auth.settings.problems import Problem

# A broker that is down must not make the service manager restart the service forever: after this many seconds the
# service reports that it is ready, even if it is not subscribed at every broker.
_START_SECONDS: Final = 20.0
_TROUBLE_SECONDS: Final = 2.0  # between checks
_log = logging.getLogger(__name__)


def serve(config: Path, workers: int | None = None, zone: str | None = None) -> None:
    """Serve until SIGTERM or SIGINT.

    Args:
        config: the configuration; read again on SIGHUP.
        workers: number of worker processes in each zone, by default as configured.
        zone: the only zone to serve, without reading files of others. By default all zones, each in a separate
            process.

    Raises:
        ConfigurationError: the configuration is not usable; lists every problem.
        BrokerAuthError: a file that it names cannot be used.
    """
    outlined = _outline(config, zone)
    names = [item.name for item in outlined.served_zones]
    with contextlib.ExitStack() as stack:
        pid_file = None
        if outlined.pid_file is not None:
            pid_file = PidFile(outlined.pid_file)
            stack.callback(pid_file.remove)
        host = _host(config, outlined, names if zone is None else [zone], workers, apart=zone is not None)
        front = _Front(host, Notifier(), pid_file)
        # Not uvloop: this process forks inside its loop.
        asyncio.run(front.run(outlined.metrics_listen))


def _outline(config: Path, zone: str | None) -> Settings:
    """Return the settings without secrets; if they cannot be used, raise an error with every problem."""
    try:
        return outline(config, os.environ)
    except ConfigurationError as error:
        report = check(config, os.environ, zone=zone, apart=zone is not None)
        raise ConfigurationError(report.problems or error.problems) from error


def _host(
    config: Path, outlined: Settings, names: list[str], workers: int | None, *, apart: bool
) -> Supervisor | Zones:
    """Return the supervisor of a single zone, or the processes of several zones.

    With a static fleet even a single edge gets a separate process, so that a reload can add the fleet's zone.
    """
    main = outlined.served_zones[0].name
    if len(names) == 1 and (names != [main] or not outlined.fleet_is_static):
        (name,) = names
        alone = len(outlined.zones) == 1
        first = _load(config, name, main, apart=apart)
        return Supervisor(first, lambda: _reload(config, outlined, name, alone=alone, apart=apart), workers)

    def start(name: str, on_beat: Callable[[], None]) -> Child[ZoneState]:
        def make() -> Supervisor:
            return Supervisor(
                _load(config, name, main, apart=apart),
                lambda: _reload(config, outlined, name, apart=apart),
                workers,
                label=f"zone {name}",
            )

        return Child(functools.partial(supervise, make, name), ZoneState, on_beat)

    return Zones(names, start, lambda: [zone.name for zone in outline(config, os.environ).served_zones])


def _load(config: Path, zone: str, main: str = FLEET_ZONE, *, apart: bool = False) -> Prepared:
    report = check(config, os.environ, zone=zone, apart=apart)
    if report.settings is None:
        raise ConfigurationError(report.problems)
    for warning in report.warnings:
        if zone == main or _is_about(warning, report.settings, zone):
            _log.warning("%s", warning)
    return prepare(report.settings.serving(zone))


def _is_about(warning: Problem, settings: Settings, zone: str) -> bool:
    """Return whether a warning is about this zone itself; the main zone's process logs those about all zones."""
    names = [BROKER.replace("<name>", broker.name) for broker in settings.brokers]
    return (warning.key or "").startswith((*names, ZONE.replace("<name>", zone)))


def _reload(config: Path, first: Settings, zone: str, *, alone: bool = False, apart: bool = False) -> Prepared:
    """Read the configuration again; with ``alone`` this process serves one zone and cannot start others."""
    prepared = _load(config, zone, first.served_zones[0].name, apart=apart)
    if alone and (others := [item.name for item in outline(config, os.environ).served_zones if item.name != zone]):
        _log.error("zone %s is new and not served by this process; restart the service", ", ".join(others))
    for name in ("metrics_listen", "pid_file"):
        if getattr(prepared.settings, name) != getattr(first, name):
            key = f"plugin.broker_auth.{name}".replace("metrics_", "metrics.")
            _log.warning("%s has changed; restart the service to apply the new value", key)
    return prepared


class _Front:
    """The reporter of the zones' state to the service manager, to Prometheus and in the pid file."""

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
        tasks.start("service manager", self._notify, once=True)
        if notifier.watchdog is not None:
            seconds = notifier.watchdog
            tasks.start("watchdog", lambda: self._ping_watchdog(seconds))
        tasks.start("troubles", self._log_troubles)
        if pid_file is not None:
            tasks.start("pid file", lambda: self._update_pid_file(pid_file))
        if metrics_listen is not None:
            registry = CollectorRegistry()
            registry.register(ServiceCollector(self._host.states, time.time))
            endpoint = Endpoint(registry, self._health)
            listeners = [listen(metrics_listen)]  # opened here, so that an address in use fails the start
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
        """The fleet's zone, or the only one; its state is the state of the service as a whole."""
        return self._host.states()[0]

    async def _notify(self) -> None:
        """Report each change of state to the service manager once."""
        host, notifier = self._host, self._notifier
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_START_SECONDS):
                while not (host.ready or host.stopping):
                    await host.wait_for_change()
        notifier.ready(self._status())
        status, announced, done = self._status(), False, 0
        while not host.stopping:
            await host.wait_for_change()
            state = self._main
            finished = state.accepted + state.refused
            if (state.reloading or finished > done) and not announced:
                notifier.reloading()
                announced = True
            if finished > done and not state.reloading:  # a refused reload may end before it is noticed
                notifier.ready(self._status())
                announced, done = False, finished
            elif status != (status := self._status()):
                notifier.status(status)
        notifier.stopping()

    async def _log_troubles(self) -> None:
        """Log each trouble when it begins and when it ends."""
        known: dict[tuple[str, TroubleCode], str] = {}
        while True:
            now = time.time()
            current = {
                (state.zone, trouble.code): trouble.text
                for state in self._host.states()
                for trouble in reversed(troubles(state, now))
            }
            for zone, code in current.keys() - known.keys():
                _log.error("zone %s: %s", zone, current[zone, code])
            for zone, code in known.keys() - current.keys():
                _log.info("zone %s: %s: over", zone, code)
            known = current
            await asyncio.sleep(_TROUBLE_SECONDS)

    async def _update_pid_file(self, pid_file: PidFile) -> None:
        """Write the reload counts and the revocations in force, for ``broker-auth reload`` and ``revoke``."""
        written: dict[str, ZoneLine] = {}
        while True:
            await self._host.wait_for_change()
            lines = {
                state.zone: ZoneLine(state.accepted, state.refused, state.revocations) for state in self._host.states()
            }
            if lines != written:
                pid_file.write(lines)
                written = lines

    async def _ping_watchdog(self, seconds: float) -> None:
        """Notify systemd's watchdog while workers are alive: without workers, systemd should restart the service."""
        while True:
            if self._main.alive:
                self._notifier.alive()
            await asyncio.sleep(seconds)

    def _status(self) -> str:
        parts = []
        for state in self._host.states():
            up = ", ".join(f"{name} {count}" for name, count in state.brokers.items())
            parts.append(f"zone {state.zone}: workers {len(state.resident)}/{state.expected_workers}; subscribed: {up}")
        return "; ".join(parts)

    def _health(self, zone: str | None) -> Health | None:
        """Return the health of a zone, by default of the main one; None if it is not served here."""
        states = self._host.states()
        selected = next((state for state in states if zone in (None, state.zone)), None)
        if selected is None:
            return None
        detail: dict[str, object] = {
            "zone": selected.zone,
            "workers": len(selected.resident),
            "wanted": selected.expected_workers,
            "brokers": selected.brokers,
            "zones": {state.zone: {"alive": state.alive, "ready": state.ready} for state in states},
            "troubles": [trouble.text for trouble in troubles(selected, time.time())],
        }
        return Health(alive=selected.alive, ready=selected.ready, detail=detail)
