"""``broker-auth serve``: the callout service."""

from __future__ import annotations

from pathlib import Path
from typing import Final

import click

from broker_auth.cli.options import config_option
from broker_auth.daemon.serve import serve
from broker_auth.logs import setup as logs
from broker_auth.natsio import natspy
from broker_auth.settings.keys.own import MAX_WORKERS

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
def serve_command(config: Path, workers: int | None, zone: str | None, log_level: str) -> None:
    """Answer the brokers' authorization requests.

    Prints `ready brokers=…` on standard error once every broker is subscribed. SIGTERM and SIGINT
    answer pending requests and exit; SIGHUP reloads the configuration without interruption, or keeps the
    old one, separately in each zone; SIGUSR1 opens the audit files again.
    """
    logs.set_up(log_level)
    natspy.check()
    serve(config, workers, zone)
