"""``broker-auth why``."""

from __future__ import annotations

import heapq
import os
import sys
from collections.abc import Iterable
from pathlib import Path

import click

from broker_auth.audit.reader import read_records, read_stream
from broker_auth.audit.record import Record
from broker_auth.cli import options, output
from broker_auth.errors import InputError
from broker_auth.operate.why import find_connections
from broker_auth.settings.load import load

_EPILOG = options.example(
    "broker-auth why node1.example.net --config /etc/broker-auth/broker.conf",
    "broker-auth why 192.0.2.7 --audit /var/log/broker-auth/audit.jsonl --last 10",
    "journalctl -u broker-auth -o cat | broker-auth why node1.example.net --audit -",
)


@click.command("why", epilog=_EPILOG)
@click.argument("name", metavar="NAME|HOST|CID|TOKEN-ID")
@click.option(
    "--audit", metavar="FILE|-", help="Audit records, or a log that contains them; by default the configured file."
)
@click.option(
    "--config",
    "config",
    envvar="BROKER_AUTH_CONFIG",
    type=click.Path(path_type=Path, dir_okay=False),
    help="The configuration, for the name of its audit file.",
)
@click.option("--last", type=click.IntRange(1, 10_000), default=5, show_default=True, help="Number of connections.")
@options.json_option
@click.pass_context
def why_command(
    ctx: click.Context, name: str, audit: str | None, config: Path | None, last: int, *, as_json: bool
) -> None:
    """Show the last decisions about a client, their reasons, and what to do.

    Searches for a connection name, user, host, connection id, token id, chain issuer's token id (for all tokens
    below it), or a certificate by its fingerprint or, if it was denied, any of its names. nats-server's report of
    a refused connection is shown with it.

    Exit code 0: found. 1: no records.
    """
    results = find_connections(_records(audit, config), name, last)
    if as_json:
        output.document([finding.document() for finding in results])
    else:
        for line in (line for finding in results for line in finding.lines()):
            output.note(line)
        if not results:
            output.error(f"no records of {name!r}; a name must be written exactly as the connection sent it")
    ctx.exit(0 if results else 1)


def _records(audit: str | None, config: Path | None) -> Iterable[Record]:
    if audit == "-":
        return read_stream(sys.stdin.buffer)
    if audit is not None:
        return read_records(Path(audit))
    if config is None:
        raise click.UsageError("name the audit records with --audit, or the configuration with --config")
    paths = load(config, os.environ, serving=False).audit_files
    if not paths:
        raise InputError(
            f"{config}: plugin.broker_auth.audit.output does not name a file; pass the log, as in "
            "`journalctl -u broker-auth -o cat | broker-auth why … --audit -`"
        )
    files = [read_records(path) for path in [path for path in paths if path.exists()] or paths[:1]]
    return heapq.merge(*files, key=lambda record: record.time)
