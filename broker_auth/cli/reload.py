"""``broker-auth reload``: reload the configuration of the running service, and report the result."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path
from typing import Final

import click

from broker_auth.cli import options, output
from broker_auth.cli.replay import audit_files, replay_files
from broker_auth.daemon.pidfile import Running, running
from broker_auth.daemon.supervisor import TAKEOVER_SECONDS
from broker_auth.errors import ConfigurationError, InputError, OperationError
from broker_auth.operate.replay.show import SHOWN, conclusion, lines
from broker_auth.settings.load import check
from broker_auth.settings.model import Settings

_DEADLINE: Final = TAKEOVER_SECONDS + 15  # seconds; the old workers drain before a reload ends
_START_SECONDS: Final = 10.0
_POLL_SECONDS: Final = 0.05
DAY_SECONDS: Final = 24 * 3600.0  # replayed before a reload


@click.command(
    "reload",
    epilog=options.example(
        "broker-auth reload --config /etc/broker-auth/broker.conf",
        "broker-auth reload --config /etc/broker-auth/broker.conf --unless-denies 0",
        "systemctl reload broker-auth",
    ),
)
@options.config_option
@click.option(
    "--unless-denies",
    "limit",
    metavar="N",
    type=click.IntRange(0),
    help="Do nothing if more than N identities that were admitted within the last day would be denied.",
)
def reload_command(config: Path, limit: int | None) -> None:
    """Reload the configuration of the service on this machine.

    Everything is read again: signers, issuers, passwords, CAs, seeds, brokers. A configuration with any
    problem changes nothing. Finds the service by `plugin.broker_auth.pid_file`; with systemd,
    `systemctl reload` does the same without that file.

    With --unless-denies, replays the requests of the last day from the service's audit files first, as 'replay'
    does: plugin.broker_auth.audit.requests has to be set.
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
    if limit is not None:
        running(path)  # without a service there is nothing to wait for
        _require_few_denials(report.settings, limit)
    before = _started(path)
    os.kill(before.pid, signal.SIGHUP)
    accepted, refused, waiting = _outcome(path, before)
    unserved = [zone.name for zone in report.settings.served_zones if zone.name not in running(path).zones]
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


def _require_few_denials(settings: Settings, limit: int) -> None:
    """Require that at most ``limit`` identities of the last day would be denied.

    Raises:
        InputError: there are no stored requests to be replayed.
        OperationError: more would be denied, or they cannot be counted.
    """
    summary = replay_files(settings, audit_files(settings), time.time() - DAY_SECONDS).summary
    if len(summary.denied()) > limit or not summary.complete:
        for line in lines(summary, None, ()):
            output.note(line)
        raise OperationError(f"not reloaded: {conclusion(summary)}, and --unless-denies allows {limit}")
    if unknown := summary.unknown():
        shown = ", ".join(unknown[:SHOWN]) + (", …" if len(unknown) > SHOWN else "")
        output.warning(f"of {len(unknown)} identities it is not known whether they would be denied: {shown}")
    output.note(f"replayed {summary.decided} requests of the last day: {conclusion(summary)}")


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
