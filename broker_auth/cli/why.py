"""``broker-auth why``."""

from __future__ import annotations

import heapq
import os
import sys
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from pathlib import Path

import click

from broker_auth.audit.reader import read_records, read_stream
from broker_auth.audit.record import Record
from broker_auth.cli import options, output
from broker_auth.daemon.pidfile import running
from broker_auth.errors import InputError, OperationError
from broker_auth.operate.why import find_connections
from broker_auth.operate.why_text import repeated, text
from broker_auth.settings.load import load
from broker_auth.settings.model import Settings
from broker_auth.wording import ago

_EPILOG = options.example(
    "broker-auth why node1.example.net --config /etc/broker-auth/broker.conf",
    "broker-auth why 192.0.2.7 --audit /var/log/broker-auth/audit.jsonl --last 10",
    "journalctl -u broker-auth -o cat | broker-auth why node1.example.net --audit -",
)


@click.command("why", epilog=_EPILOG)
@click.argument("name", metavar="NAME|HOST|CID|TOKEN-ID")
@click.option(
    "--audit",
    metavar="FILE|-",
    type=options.FILE_OR_DASH,
    help="Audit records, or a log that contains them; by default the configured file.",
)
@options.optional_config_option("The configuration, for the names of its audit files.")
@click.option(
    "--last",
    type=click.IntRange(1, 10_000),
    default=5,
    show_default=True,
    help="Number of decisions; equal ones count once. With --json, number of connections.",
)
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
    settings = None if config is None or audit is not None else load(config, os.environ, serving=False)
    records = _Counted(_records(audit, settings))
    results = find_connections(records, name)
    if as_json:
        output.document([finding.document() for finding in results[-last:]])
    else:
        for line in text(repeated(results)[-last:], datetime.now(UTC)):
            margin = len(line) - len(line.lstrip())
            output.paragraph(line[margin:], first=" " * margin, indent=4)
    if not results:
        output.error(_nothing(name, records, audit, settings))
    elif settings is not None and (stopped := _stopped(settings)):
        output.remark(stopped)
    ctx.exit(0 if results else 1)


class _Counted:
    """The records that it iterates over, their number and the newest time among them."""

    def __init__(self, records: Iterable[Record]) -> None:
        self._records = records
        self.number = 0
        self.newest: datetime | None = None

    def __iter__(self) -> Iterator[Record]:
        for record in self._records:
            self.number += 1
            self.newest = record.time if self.newest is None else max(self.newest, record.time)
            yield record


def _records(audit: str | None, settings: Settings | None) -> Iterable[Record]:
    if audit == "-":
        return read_stream(sys.stdin.buffer)
    if audit is not None:
        return read_records(Path(audit))
    if settings is None:
        raise click.UsageError("name the audit records with --audit, or the configuration with --config")
    paths = settings.audit_files
    if not paths:
        raise InputError(
            f"{settings.path}: plugin.broker_auth.audit.output does not name a file; pass the log, as in "
            "`journalctl -u broker-auth -o cat | broker-auth why … --audit -`"
        )
    files = [read_records(path) for path in [path for path in paths if path.exists()] or paths[:1]]
    return heapq.merge(*files, key=lambda record: record.time)


def _nothing(name: str, records: _Counted, audit: str | None, settings: Settings | None) -> str:
    """Return why nothing was found: no service runs, no records at all, or none with this name."""
    stopped = None if settings is None else _stopped(settings)
    if stopped is not None:
        return f"no records of {name!r}: {stopped}"
    if records.newest is None:
        where = {None: "the configured audit files", "-": "standard input"}.get(audit, audit)
        return f"no records of {name!r}: {where} contains no audit record; name an audit file or a log with its records"
    among = f"among {records.number}, the newest {ago(records.newest, datetime.now(UTC))}"
    return f"no records of {name!r} {among}; a name must be written exactly as the connection sent it"


def _stopped(settings: Settings) -> str | None:
    """Return that no service runs on this host, as far as a pid file shows it."""
    if settings.pid_file is None:
        return None
    try:
        running(settings.pid_file)
    except OperationError as error:
        return f"{error}; without a service clients are not answered and not recorded, and see a timeout"
    return None
