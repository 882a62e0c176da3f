"""``broker-auth serve``: the callout service."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Final

import click

from broker_auth.cli.options import config_option
from broker_auth.daemon.serve import serve
from broker_auth.errors import BrokerAuthError, ConfigurationError
from broker_auth.logs import setup as logs
from broker_auth.logs.formats import LogFormat
from broker_auth.natsio import natspy
from broker_auth.settings.keys.own import MAX_WORKERS

_log = logging.getLogger(__name__)
LEVELS: Final = ("debug", "info", "warning", "error")


@click.command("serve", epilog="\b\nExample:\n  broker-auth serve --config /etc/broker-auth/broker.conf --workers 2")
@config_option
@click.option(
    "--workers",
    type=click.IntRange(1, MAX_WORKERS),
    help="Number of worker processes of each zone; by default as configured.",
)
@click.option("--zone", metavar="NAME", help="Serve only this zone, and read only its secrets. Default: all zones.")
@click.option("--log-level", type=click.Choice(LEVELS), default="info", show_default=True)
@click.option(
    "--log-format",
    type=click.Choice([item.value for item in LogFormat]),
    default=LogFormat.TEXT.value,
    show_default=True,
    help="Format of the log, on standard error.",
)
@click.pass_context
def serve_command(
    context: click.Context, *, config: Path, workers: int | None, zone: str | None, log_level: str, log_format: str
) -> None:
    """Answer the brokers' authorization requests.

    Prints `ready brokers=…` on standard error once every broker is subscribed. SIGTERM and SIGINT
    answer pending requests and exit; SIGHUP reloads the configuration without interruption, or keeps the
    old one, separately in each zone; SIGUSR1 opens the audit files again.
    """
    logs.set_up(log_level, LogFormat(log_format))
    try:
        natspy.check()
        serve(config, workers, zone)
    except BrokerAuthError as error:
        if log_format == LogFormat.TEXT:
            raise
        for problem in error.problems if isinstance(error, ConfigurationError) else [error]:
            _log.error("%s", problem)
        context.exit(1)
