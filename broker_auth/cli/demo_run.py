"""Runs and prints the demo, for :mod:`.demo`."""

from __future__ import annotations

import asyncio
import shlex
import signal
import time
from typing import Final

import click

from broker_auth.cli import output
from broker_auth.demo.last_mile import NODE, WAITING
from broker_auth.demo.observation import Observation
from broker_auth.demo.run import Result, Screen, Shape, run_demo
from broker_auth.deploy.plan import Topology
from broker_auth.sandbox.leftovers import Ended
from broker_auth.sandbox.sandbox import Sandbox
from broker_auth.settings.model import FleetAuth

_COLUMNS: Final = 80  # of a terminal


def run(topology: str, fleet_auth: str, *, keep: bool, as_json: bool) -> int:
    """Run the demo, print it part by part or as one document, and return the exit code."""
    finished: list[Result] = []

    def end(deployment: Sandbox, result: Result) -> None:
        finished.append(result)
        if as_json:
            output.document(_document(result))
        if keep:
            _print_instructions(deployment)

    begun = time.monotonic()

    def started(deployment: Sandbox) -> None:
        if not as_json:
            seconds = time.monotonic() - begun
            kind = "nats-server" if len(deployment.servers) == 1 else "nats-servers"
            click.echo(f"Running after {seconds:.1f} s: the {kind} {' and '.join(deployment.servers)}, and the service")

    screen = Screen(started=started, part=_ignore if as_json else _print, end=end)
    try:
        shape = Shape(topology=Topology(topology), fleet_auth=FleetAuth(fleet_auth))
        result = asyncio.run(run_demo(shape, screen, wait=keep))
    except Ended as ended:
        if finished and ended.signal == signal.SIGINT:
            return 0  # the normal end of `--keep`
        return 128 + ended.signal
    return 0 if result.ok else 1


def _document(result: Result) -> dict[str, object]:
    return {
        "ok": result.ok,
        "admission": [_row(outcome) for outcome in result.admission],
        "isolation": [_row(outcome) for outcome in result.isolation],
        "onboarding": [_row(outcome) for outcome in result.onboarding],
        "revocation": [_row(outcome) for outcome in result.revocation],
    }


def _row(outcome: Observation) -> dict[str, object]:
    return {
        "what": outcome.what,
        "expected": outcome.expected,
        "happened": outcome.happened,
        "ok": outcome.as_expected,
    }


def _ignore(part: str, outcomes: list[Observation]) -> None:
    """Print nothing, because the document at the end has everything."""


def _print(part: str, outcomes: list[Observation]) -> None:
    """Print a line for each row and no frames, so that all parts together fit a terminal of 80 columns and 40 rows.

    Rows that are as expected and resemble others are only counted.
    """
    good = sum(outcome.as_expected for outcome in outcomes)
    shown = [outcome for outcome in outcomes if outcome.example or not outcome.as_expected]
    some = ", for example" if len(shown) < len(outcomes) else ""
    click.secho(f"{part.capitalize()}: {good} of {len(outcomes)} as expected{some}", bold=True)
    for outcome in shown:
        if outcome.as_expected:
            room = _COLUMNS - len("  ok  ") - len(outcome.what)
            click.echo(f"  ok  {outcome.what} {output.one_line(outcome.happened):>{max(room - 1, 0)}}")
        else:
            what = f"{outcome.what}: expected {outcome.expected}, happened {outcome.happened}"
            click.secho(f"  NOT AS EXPECTED  {output.one_line(what)}", fg="red")


def _print_instructions(deployment: Sandbox) -> None:
    configuration = shlex.quote(str(deployment.deployment.configuration))
    for line in (
        f"Running in {deployment.directory} until interrupted (Ctrl-C). {WAITING} waits; look at it:",
        f"  broker-auth report waiting --config {configuration}",
        f"  broker-auth why {WAITING} --config {configuration}",
        "Look at the others:",
        f"  broker-auth report conns --config {configuration}",
        f"  broker-auth why {NODE} --config {configuration}",
        f"  broker-auth doctor --config {configuration}",
        f"  tail -f {shlex.quote(str(deployment.audit_file))}",
        f"Nodes connect to {deployment.node_url}, the fleet to {deployment.fleet_url}.",
        f"Certificates are in {deployment.directory}/pki.",
    ):
        click.echo(line, err=True)
