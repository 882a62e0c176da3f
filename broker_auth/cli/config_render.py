"""``broker-auth config render``."""

from __future__ import annotations

import os
from pathlib import Path

import click

from broker_auth.cli import options
from broker_auth.deploy.render import render, select_broker
from broker_auth.settings.load import load
from broker_auth.settings.model import Role

_EPILOG = options.example(
    "broker-auth config render broker.conf --role fleet > fleet.conf",
    "broker-auth config render broker.conf --role edge --broker edge2 > edge2.conf",
)


@click.command("render", epilog=_EPILOG)
@click.argument("file", type=options.FILE)
@click.option(
    "--role", type=click.Choice([role.value for role in Role]), required=True, help="Role of the nats-server."
)
@click.option("--broker", metavar="NAME", help="Name of the broker, if several have that role.")
def render_command(file: Path, *, role: str, broker: str | None) -> None:
    """Print the nats-server configuration of one broker. It does not contain secrets.

    For members of a cluster, set what differs by the environment, as in
    BROKER_AUTH_BROKER_FLEET_SERVER_NAME=fleet2.
    """
    settings = load(file, os.environ, serving=True, remote=True)
    click.echo(render(settings, select_broker(settings, Role(role), broker)), nl=False)
