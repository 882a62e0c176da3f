"""``broker-auth demo``: the whole system on this machine."""

from __future__ import annotations

import asyncio
import shlex
from typing import Final

import click

from broker_auth.cli import output
from broker_auth.demo.last_mile import NODE
from broker_auth.demo.observation import Observation
from broker_auth.demo.run import Result, Shape, run_demo
from broker_auth.deploy.plan import Topology
from broker_auth.sandbox.sandbox import Sandbox
from broker_auth.settings.model import FleetAuth

_COLUMNS: Final = 80  # of a terminal


@click.command("demo", epilog="\b\nExample:\n  broker-auth demo --keep")
@click.option(
    "--topology",
    type=click.Choice([shape.value for shape in Topology]),
    default="edge",
    show_default=True,
    help="Shape of the deployment.",
)
@click.option(
    "--fleet-auth",
    type=click.Choice([item.value for item in FleetAuth]),
    default=FleetAuth.CALLOUT.value,
    show_default=True,
    help="Whether the fleet's servers ask the service, or decide by themselves (topology edge only).",
)
@click.option("--keep", is_flag=True, help="Keep it running until interrupted, and print commands to explore it.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
@click.pass_context
def demo_command(context: click.Context, *, topology: str, fleet_auth: str, keep: bool, as_json: bool) -> None:
    """Start the whole system on this machine and try every kind of login.

    Uses real nats-servers, TLS and tokens, on loopback, in a temporary directory. Exit code 1 if any
    result differs from the expected one.
    """

    if fleet_auth == FleetAuth.STATIC and topology != Topology.EDGE:
        raise click.UsageError("--fleet-auth static needs --topology edge")

    def show(deployment: Sandbox, result: Result) -> None:
        if as_json:
            output.document(_document(result))
        else:
            _print(result)
        if keep:
            _print_instructions(deployment)

    try:
        shape = Shape(topology=Topology(topology), fleet_auth=FleetAuth(fleet_auth))
        result = asyncio.run(run_demo(shape, show, wait=keep))
    except KeyboardInterrupt:
        return  # the normal end of `--keep`
    context.exit(0 if result.ok else 1)


def _document(result: Result) -> dict[str, object]:
    return {
        "ok": result.ok,
        "admission": [_row(outcome) for outcome in result.admission],
        "isolation": [_row(outcome) for outcome in result.isolation],
        "onboarding": [_row(outcome) for outcome in result.onboarding],
    }


def _row(outcome: Observation) -> dict[str, object]:
    return {
        "what": outcome.what,
        "expected": outcome.expected,
        "happened": outcome.happened,
        "ok": outcome.as_expected,
    }


def _print(result: Result) -> None:
    """Print a line for each row and no frames, so that all of it fits a terminal of 80 columns and 40 lines."""
    for title, outcomes in (
        ("Admission", result.admission),
        ("Isolation", result.isolation),
        ("Onboarding", result.onboarding),
    ):
        good = sum(outcome.as_expected for outcome in outcomes)
        click.secho(f"{title}: {good} of {len(outcomes)} as expected", bold=True)
        for outcome in outcomes:
            if outcome.as_expected:
                room = _COLUMNS - len("  ok  ") - len(outcome.what)
                click.echo(f"  ok  {outcome.what} {output.one_line(outcome.happened):>{max(room - 1, 0)}}")
            else:
                what = f"{outcome.what}: expected {outcome.expected}, happened {outcome.happened}"
                click.secho(f"  NOT AS EXPECTED  {output.one_line(what)}", fg="red")


def _print_instructions(deployment: Sandbox) -> None:
    configuration = shlex.quote(str(deployment.deployment.configuration))
    for line in (
        f"Running in {deployment.directory} until interrupted (Ctrl-C). Explore it with:",
        f"  broker-auth report conns --config {configuration}",
        f"  broker-auth why {NODE} --config {configuration}",
        f"  broker-auth doctor --config {configuration}",
        f"  tail -f {shlex.quote(str(deployment.audit_file))}",
        f"Nodes connect to {deployment.node_url}, the fleet to {deployment.fleet_url}.",
        f"Certificates are in {deployment.directory}/pki.",
    ):
        click.echo(line, err=True)
