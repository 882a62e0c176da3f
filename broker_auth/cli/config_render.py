"""``broker-auth config render``."""

from __future__ import annotations

import os
from pathlib import Path

import click

from broker_auth.cli import options, output
from broker_auth.deploy.members import write_all
from broker_auth.deploy.render import render, select_broker
from broker_auth.settings.load import load
from broker_auth.settings.model import Role

_EPILOG = options.example(
    "broker-auth config render broker.conf --all /etc/nats",
    "broker-auth config render broker.conf --role fleet > fleet.conf",
    "broker-auth config render broker.conf --role edge --broker edge2 > edge2.conf",
)


@click.command("render", epilog=_EPILOG)
@options.config_argument
@click.option(
    "--all",
    "directory",
    metavar="DIR",
    type=click.Path(path_type=Path, file_okay=False),
    help="Write the configuration of every nats-server into this directory, over those that are there.",
)
@click.option("--role", type=click.Choice([role.value for role in Role]), help="Role of the nats-server.")
@click.option("--broker", metavar="NAME", help="Name of the broker, if several have that role.")
def render_command(file: Path, *, directory: Path | None, role: str | None, broker: str | None) -> None:
    """Print the nats-server configuration of one broker, or write those of all.

    They do not contain secrets, but those of a static fleet hashes of two passwords: keep them private.

    With --all each is named after its broker, and each member of a cluster after its host. Without it the
    members of a cluster differ by environment, as in BROKER_AUTH_BROKER_FLEET_SERVER_NAME=fleet2.
    """
    if (directory is None) == (role is None):
        raise click.UsageError("give either --all DIR or --role ROLE")
    if directory is not None and broker is not None:
        raise click.UsageError("--broker selects one of a --role; leave it out with --all")
    settings = load(file, os.environ, serving=True, remote=True)
    if role is not None:
        click.echo(render(settings, select_broker(settings, Role(role), broker)), nl=False)
    elif directory is not None:
        for path in write_all(settings, Path.cwd() / directory):
            output.note(f"Wrote {path}")
