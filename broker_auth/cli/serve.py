"""``broker-auth serve``: the callout service, until it is told to stop."""

from __future__ import annotations

import logging
import os
import sys
from pathlib import Path
from typing import Final

import click

from broker_auth.callout.process import run
from broker_auth.errors import ConfigurationError
from broker_auth.observe.audit import LogAudit
from broker_auth.settings.load import check
from broker_auth.settings.own_keys import MAX_WORKERS

LEVELS: Final = ("debug", "info", "warning", "error")


@click.command("serve", epilog="\b\nExample:\n  broker-auth serve --config /etc/broker-auth/broker.conf --workers 2")
@click.option(
    "--config",
    "config",
    required=True,
    envvar="BROKER_AUTH_CONFIG",
    type=click.Path(path_type=Path, dir_okay=False),
    help="The configuration.",
)
@click.option("--workers", type=click.IntRange(1, MAX_WORKERS), help="Service processes; by default as configured.")
@click.option("--log-level", type=click.Choice(LEVELS), default="info", show_default=True)
def serve_command(config: Path, workers: int | None, log_level: str) -> None:
    """Answer the brokers' authorization requests.

    Prints `ready brokers=…` on standard error once every broker is subscribed. SIGTERM and SIGINT
    answer what was received and exit; SIGHUP reads the configuration again.
    """
    set_up_logging(log_level)
    report = check(config, os.environ, serving=True)
    if report.settings is None:
        raise ConfigurationError(report.problems)
    for warning in report.warnings:
        logging.getLogger(__name__).warning("%s", warning)
    run(config, report.settings, LogAudit())


def set_up_logging(level: str) -> None:
    """One line an event on standard error: time, level, where from, what."""
    logging.basicConfig(
        stream=sys.stderr,
        level=level.upper(),
        format="%(asctime)s %(levelname)s %(name)s: %(message)s",
        force=True,
    )
    logging.getLogger("asyncio").setLevel(logging.WARNING)
