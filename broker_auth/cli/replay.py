"""``broker-auth replay``, and what ``reload`` and ``config check`` take from it."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from typing import Final

import click

from broker_auth.audit.record import AuditRecord
from broker_auth.cli import options, output
from broker_auth.cli.files import STANDARD_INPUT
from broker_auth.errors import InputError
from broker_auth.operate.replay.credentials import certificate_requests, token_requests
from broker_auth.operate.replay.judge import Judge
from broker_auth.operate.replay.records import Progress, file_decisions, no_progress, stream_decisions
from broker_auth.operate.replay.run import Replay
from broker_auth.operate.replay.show import document, lines
from broker_auth.operate.replay.summary import Summary
from broker_auth.policy.decision import DenyCode
from broker_auth.settings.load import load
from broker_auth.settings.model import FLEET_ZONE, Settings
from broker_auth.settings.problems import shown
from broker_auth.tokens.faults import TokenFault

DENIED: Final = 1
NOT_KNOWN: Final = 3
CODES: Final = tuple(sorted({code.value for kind in (DenyCode, TokenFault) for code in kind}))
_DIRECTORY: Final = click.Path(path_type=Path, file_okay=False)
_EPILOG = options.example(
    "broker-auth replay /var/log/broker-auth/audit.jsonl --config new.conf --against /etc/broker-auth/broker.conf",
    "broker-auth replay /var/log/broker-auth/audit.jsonl --config broker.conf --at 2030-01-01T00:00:00Z",
    "broker-auth replay --config broker.conf --tokens ./tokens --certificates /etc/puppetlabs/puppet/ssl/ca/signed",
)


@click.command("replay", epilog=_EPILOG)
@click.argument("audit", metavar="[AUDIT|-]...", nargs=-1, type=options.FILE_OR_DASH)
@options.config_option
@click.option("--against", type=options.FILE, help="The configuration that the records were made under.")
@click.option("--at", type=options.MOMENT, help="Time of the decisions; by default the time of each record.")
@click.option("--since", type=options.MOMENT, default=0.0, help="Leave out older records.")
@click.option("--tokens", type=_DIRECTORY, help="Also decide for each token in a file of this directory.")
@click.option("--certificates", type=_DIRECTORY, help="The same for certificates, with their chains.")
@click.option("--zone", default=FLEET_ZONE, show_default=True, help="The zone that decides tokens and certificates.")
@click.option(
    "--allow-denied",
    "allowed",
    metavar="CODE",
    type=click.Choice(CODES),
    multiple=True,
    help="A code of denials that are intended; may be given several times.",
)
@options.json_option
@click.pass_context
def replay_command(
    ctx: click.Context,
    audit: tuple[str, ...],
    config: Path,
    against: Path | None,
    at: float | None,
    since: float,
    tokens: Path | None,
    certificates: Path | None,
    zone: str,
    allowed: tuple[str, ...],
    *,
    as_json: bool,
) -> None:
    """Decide stored requests again by CONFIG, and show who would be denied, admitted or placed elsewhere.

    AUDIT are audit files, read with those that rotation made of them; by default the file that CONFIG names. They
    hold requests if plugin.broker_auth.audit.requests was set. Decisions are compared with those in the records or,
    with --against, with those of another configuration, which also shows changed permissions and says who uses
    which password. Without AUDIT, --tokens and --certificates decide for those in files.

    Exit code 0: nobody who was let in would be denied. 1: somebody would. 3: of somebody it is not known.
    """
    now = time.time()
    settings = load(config, os.environ, serving=False)
    if zone not in {FLEET_ZONE, *(known.name for known in settings.zones)}:
        raise InputError(f"{config} has no zone {shown(zone)}; correct --zone")
    old = Judge(load(against, os.environ, serving=False)) if against else None
    run = Replay(Judge(settings), old, at)
    if audit or not (tokens or certificates):
        run.records(_decisions(audit, settings, since))
        require_requests(run.summary, ", ".join(audit) or str(config))
    if tokens:
        run.files(token_requests(tokens, zone), now)
    if certificates:
        run.files(certificate_requests(certificates, zone), now)
    if as_json:
        output.document(document(run.summary, at, allowed))
    else:
        for line in lines(run.summary, at, allowed):
            output.note(line)
    ctx.exit(exit_code(run.summary, allowed))


def exit_code(summary: Summary, allowed: Collection[str] = ()) -> int:
    """Return 1 if somebody who was let in would be denied, 3 if that is not known of somebody, else 0."""
    if summary.denied(allowed):
        return DENIED
    return NOT_KNOWN if summary.unknown() or not summary.complete else 0


def require_requests(summary: Summary, where: str) -> None:
    """Require that a replay decided anything.

    Raises:
        InputError: the records hold no request, so they say nothing about the effect of a change.
    """
    if summary.decided:
        return
    if summary.without_request or summary.undecidable:
        raise InputError(
            f"{where}: no decision is stored with its request; set plugin.broker_auth.audit.requests to true or "
            "sample, reload, and replay once everybody has connected"
        )
    raise InputError(f"{where}: holds no decisions of that time; name the audit file of the service")


def replay_files(settings: Settings, files: Sequence[Path], since: float = 0.0) -> Replay:
    """Decide the requests in audit files again under a configuration, compared with what the records say.

    Raises:
        InputError: a file cannot be read, or no request is stored in them.
    """
    run = Replay(Judge(settings))
    run.records(file_decisions(files, since, progress()))
    require_requests(run.summary, ", ".join(str(file) for file in files))
    return run


def audit_files(settings: Settings) -> list[Path]:
    """Return the audit files that a configuration names and that exist.

    Raises:
        InputError: no such file exists.
    """
    files = [path for path in settings.audit_files if path.exists()]
    if not files:
        raise InputError(
            f"{settings.path}: plugin.broker_auth.audit.output names no file that exists; name the audit files"
        )
    return files


def progress() -> Progress:
    """Return a function that shows progress on standard error, if that is a terminal."""
    if not sys.stderr.isatty():
        return no_progress

    def show(records: int, read: int, total: int) -> None:
        share = f" {100 * read // total}%" if total else ""
        end = "\n" if total and read >= total else ""
        click.echo(f"\r{records} records{share}{end}", err=True, nl=False)

    return show


def _decisions(audit: Sequence[str], settings: Settings, since: float) -> Iterator[AuditRecord]:
    if STANDARD_INPUT in audit:
        yield from stream_decisions(sys.stdin.buffer, since, progress())
    files = [Path(name) for name in audit if name != STANDARD_INPUT] if audit else audit_files(settings)
    if files:
        yield from file_decisions(files, since, progress())
