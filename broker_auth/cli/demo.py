"""``broker-auth demo``: the whole system on this machine.

This module imports almost nothing, so that the first words are printed at once; :mod:`.demo_run` has the rest.
"""

from __future__ import annotations

import importlib.util
from typing import Final

import click

TOPOLOGIES: Final = ("edge", "websocket", "single", "mixed")
FLEET_AUTH: Final = ("callout", "static")
_NEEDS: Final = {"websocket": ("aiohttp", "websocket"), "static": ("bcrypt", "static")}  # module, and what installs it


@click.command("demo", epilog="\b\nExample:\n  broker-auth demo --keep")
@click.option(
    "--topology", type=click.Choice(TOPOLOGIES), default="edge", show_default=True, help="Shape of the deployment."
)
@click.option(
    "--fleet-auth",
    type=click.Choice(FLEET_AUTH),
    default="callout",
    show_default=True,
    help="Whether the fleet's servers ask the service, or decide by themselves (topology edge only).",
)
@click.option("--keep", is_flag=True, help="Keep it running until interrupted, and print commands to explore it.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
@click.pass_context
def demo_command(context: click.Context, *, topology: str, fleet_auth: str, keep: bool, as_json: bool) -> None:
    """Start the whole system on this machine and try every kind of login.

    Uses real nats-servers, TLS and tokens, on loopback, in a temporary directory, which is removed at the end. Exit
    code 1 if any result differs from the expected one.
    """
    if fleet_auth == "static" and topology != "edge":
        raise click.UsageError("--fleet-auth static needs --topology edge")
    for choice in (topology, fleet_auth):
        _require(choice)
    if not as_json:
        click.echo(f"Starting nats-servers and the service on this machine (topology {topology}) ...")
    # Imported after the first words: imports take longer than these may.
    from broker_auth.deploy.natsbinary import find_binary, require_optional_certificates

    find_binary()
    if topology == "mixed":
        require_optional_certificates()
    from broker_auth.cli.demo_run import run

    context.exit(run(topology, fleet_auth, keep=keep, as_json=as_json))


def _require(choice: str) -> None:
    """Check at once that the optional packages of a choice are installed."""
    module, extra = _NEEDS.get(choice, ("", ""))
    if module and importlib.util.find_spec(module) is None:
        raise click.ClickException(f"{choice} needs the package {module}: pip install 'broker-auth[{extra}]'")
