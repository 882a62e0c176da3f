"""``broker-auth explain``."""

from __future__ import annotations

import os
import time
from pathlib import Path

import click

from broker_auth.cli import options, output
from broker_auth.cli.files import read_input
from broker_auth.errors import InputError
from broker_auth.operate.explain import explain
from broker_auth.operate.stored import MAX_BYTES, read_stored
from broker_auth.settings.load import load
from broker_auth.settings.model import FLEET_ZONE, Settings
from broker_auth.settings.policy import build_policy
from broker_auth.settings.problems import shown

_EPILOG = options.example(
    "broker-auth explain request.json --config /etc/broker-auth/broker.conf",
    "tail -1 audit.jsonl | broker-auth explain - --config broker.conf --json",
    "broker-auth explain request.json --config broker.conf --at 2030-01-31T12:00:00Z",
)


@click.command("explain", epilog=_EPILOG)
@click.argument("request", metavar="REQUEST|-", type=options.FILE_OR_DASH)
@options.config_option
@click.option(
    "--at",
    type=options.MOMENT,
    help="Time of the decision; by default the time of an audit record, else now.",
)
@click.option(
    "--zone", metavar="NAME", help="Zone of the decision; by default the zone of an audit record, else fleet."
)
@options.json_option
@click.pass_context
def explain_command(
    ctx: click.Context, request: str, config: Path, at: float | None, zone: str | None, *, as_json: bool
) -> None:
    """Decide a stored authorization request by CONFIG and show which rule decided, and why.

    REQUEST is a JSON document: an audit record with its request, the request's decoded claims, or only
    their "nats" object. For a redacted record, skipped checks are listed.

    Exit code 0: admitted. 1: denied.
    """
    stored = read_stored(read_input(request, MAX_BYTES))
    settings = load(config, os.environ, serving=False)
    policy = build_policy(settings, _zone(settings, zone or stored.zone or FLEET_ZONE))
    moment = at if at is not None else stored.time
    explanation = explain(stored, policy, time.time() if moment is None else moment)
    if as_json:
        output.document(explanation.document())
    else:
        for line in explanation.lines():
            output.note(line)
    ctx.exit(0 if explanation.admitted else 1)


def _zone(settings: Settings, name: str) -> str:
    """Return the zone's name after checking that it is configured: edges have other rules than the fleet."""
    names = sorted({zone.name for zone in settings.zones} | {FLEET_ZONE})
    if name == FLEET_ZONE and settings.fleet_is_static:
        edges = ", ".join(zone.name for zone in settings.served_zones)
        raise InputError(f"{settings.path}: the fleet is static and asks no service; name one of {edges} by --zone")
    if name not in names:
        raise InputError(f"{settings.path} has no zone {shown(name)}; name one of {', '.join(names)} by --zone")
    return name
