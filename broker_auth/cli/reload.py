"""``broker-auth reload``: have the running service read its configuration again, and say how that went."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path
from typing import Final

import click

from broker_auth.callout.pidfile import Running, running
from broker_auth.callout.supervisor import TAKEOVER_SECONDS
from broker_auth.cli import output
from broker_auth.cli.options import config_option
from broker_auth.errors import ConfigurationError, InputError, OperationError
from broker_auth.settings.load import check

_PATIENCE: Final = TAKEOVER_SECONDS + 15  # seconds; the old workers drain before a reload is over
_POLL_SECONDS: Final = 0.05


@click.command(
    "reload",
    epilog="\b\nExample:\n  broker-auth reload --config /etc/broker-auth/broker.conf\n  systemctl reload broker-auth",
)
@config_option
def reload_command(config: Path) -> None:
    """Have the service on this machine read its configuration again.

    Everything is read anew: signers, issuers, passwords, CAs, seeds, brokers. A configuration that is
    not usable as a whole changes nothing, here or in the service. Finds the service by
    `plugin.broker_auth.pid_file`; with systemd, `systemctl reload` does the same without one.
    """
    report = check(config, os.environ, serving=True)
    if report.settings is None:
        raise ConfigurationError(report.problems)
    path = report.settings.pid_file
    if path is None:
        raise InputError(
            f"{config}: plugin.broker_auth.pid_file is not set, so the service cannot be found; "
            "set it and restart, or send SIGHUP to the service (systemctl reload)"
        )
    before = running(path)
    os.kill(before.pid, signal.SIGHUP)
    if not _accepted(path, before):
        raise OperationError("the service refused the configuration and keeps the old one; its log says why")
    output.note(f"reloaded {config}")


def _accepted(path: Path, before: Running) -> bool:
    """Wait for the outcome."""
    deadline = time.monotonic() + _PATIENCE
    while time.monotonic() < deadline:
        after = running(path)
        if after.refused > before.refused:
            return False
        if after.accepted > before.accepted:
            return True
        time.sleep(_POLL_SECONDS)
    raise OperationError(f"the service did not finish reloading within {_PATIENCE:g} s; look at its log")
