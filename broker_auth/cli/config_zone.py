"""``broker-auth config zone``."""

from __future__ import annotations

from pathlib import Path

import click

from broker_auth.cli import options, output
from broker_auth.deploy.brokerconf import ZoneFiles, zone_lines
from broker_auth.deploy.init import write_zone_keys
from broker_auth.deploy.workspace import Workspace
from broker_auth.errors import InputError
from broker_auth.files.reading import BadValue
from broker_auth.settings.keys.values import broker_name

_EPILOG = options.example("broker-auth config zone /etc/broker-auth/broker.conf edge2 >> /etc/broker-auth/broker.conf")


@click.command("zone", epilog=_EPILOG)
@click.argument("file", type=options.FILE)
@click.argument("name")
def zone_command(file: Path, name: str) -> None:
    """Create the keys of a zone, and print the lines for broker.conf that name them.

    NAME is the zone of an edge or a gate, whose keys are written to keys/NAME next to FILE, or "fleet", whose keys
    are written to keys. Existing keys are kept. FILE is not changed: add the lines to it, then render the
    configurations of that zone's servers again and restart them.
    """
    try:
        zone = broker_name(name, file.parent)
    except BadValue as error:
        raise InputError(f"{error.what}; {error.remedy}") from error
    workspace = Workspace(Path.cwd() / file.parent, force=False)
    try:
        users = write_zone_keys(workspace, zone)
    except BaseException:
        workspace.undo()
        raise
    for key, value in zone_lines(zone, users):
        click.echo(f"{key} = {value}")
    output.note(f"Move offline and remove from this host: {workspace.path(ZoneFiles(zone).break_glass_seed)}")
