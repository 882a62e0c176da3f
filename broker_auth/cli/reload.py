"""``broker-auth reload``: reload the configuration of the running service, and report the result."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path
from typing import Final

import click

from broker_auth.cli import output
from broker_auth.cli.options import config_option
from broker_auth.daemon.pidfile import Running, running
from broker_auth.daemon.supervisor import TAKEOVER_SECONDS
from broker_auth.errors import ConfigurationError, InputError, OperationError
from broker_auth.settings.load import check

_DEADLINE: Final = TAKEOVER_SECONDS + 15  # seconds; the old workers drain before a reload ends
_START_SECONDS: Final = 10.0
_POLL_SECONDS: Final = 0.05


@click.command(
    "reload",
    epilog="\b\nExample:\n  broker-auth reload --config /etc/broker-auth/broker.conf\n  systemctl reload broker-auth",
)
@config_option
def reload_command(config: Path) -> None:
    """Reload the configuration of the service on this machine.

    Everything is read again: signers, issuers, passwords, CAs, seeds, brokers. A configuration with any
    problem changes nothing. Finds the service by `plugin.broker_auth.pid_file`; with systemd,
    `systemctl reload` does the same without that file.
    """
    report = check(config, os.environ, serving=True, remote=True)
    if report.settings is None:
        raise ConfigurationError(report.problems)
    path = report.settings.pid_file
    if path is None:
        raise InputError(
            f"{config}: plugin.broker_auth.pid_file is not set, so the service cannot be found; "
            "set it and restart, or send SIGHUP to the service (systemctl reload)"
        )
    before = _started(path)
    os.kill(before.pid, signal.SIGHUP)
    accepted, refused, waiting = _outcome(path, before)
    unserved = [zone.name for zone in report.settings.zones if zone.name not in running(path).zones]
    if accepted and (refused or waiting):
        output.note(f"reloaded in {_named(accepted)}")
    if refused:
        raise OperationError(
            f"the service refused the configuration in {_named(refused)} and keeps the old one there; see its log"
        )
    if waiting:
        raise OperationError(
            f"the service did not finish reloading {_named(waiting)} within {_DEADLINE:g} s; see its log"
        )
    if unserved:
        output.warning(f"the service on this host does not serve {_named(unserved)}: restart it if it should")
    output.note(f"reloaded {config}")


def _started(path: Path) -> Running:
    """Wait until the service reports its zones, shortly after its start, and return it."""
    deadline = time.monotonic() + _START_SECONDS
    while not (service := running(path)).zones and time.monotonic() < deadline:
        time.sleep(_POLL_SECONDS)
    if not service.zones:
        raise OperationError(f"the service has not read its configuration within {_START_SECONDS:g} s; see its log")
    return service


def _outcome(path: Path, before: Running) -> tuple[list[str], list[str], list[str]]:
    """Return the zones that accepted, those that refused, and those that did not finish in time."""
    accepted: list[str] = []
    refused: list[str] = []
    waiting = list(before.zones)
    deadline = time.monotonic() + _DEADLINE
    while waiting and time.monotonic() < deadline:
        time.sleep(_POLL_SECONDS)
        after = running(path)
        for zone in list(waiting):
            now, then = after.zones.get(zone), before.zones[zone]
            if now is None or now[0] > then[0]:  # a zone that was removed has finished
                accepted.append(zone)
            elif now[1] > then[1]:
                refused.append(zone)
            else:
                continue
            waiting.remove(zone)
    return accepted, refused, waiting


def _named(zones: list[str]) -> str:
    return f"zone{'s' if len(zones) > 1 else ''} {', '.join(zones)}"
