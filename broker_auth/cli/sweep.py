"""``broker-auth sweep``."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

import click

from broker_auth.audit.reader import read_recent_decisions
from broker_auth.audit.record import AuditRecord
from broker_auth.cli import options, output
from broker_auth.cli.access import access_options, kick_option, make_ender_access, run
from broker_auth.cli.tables import Column, Table, print_table, wide_option
from broker_auth.files.ownership import configured_by
from broker_auth.operate.access import Access
from broker_auth.operate.sessions import FoundSessions, Session, SessionEnder
from broker_auth.operate.sweep import UnadmittedSessions
from broker_auth.wording import counted

FOUND: Final = 1
NOT_KNOWN: Final = 3
_COLUMNS: Final = (
    Column(name="Server", worth=7),
    Column(name="Account", worth=8),
    Column(name="Identity", fold=16),
    Column(name="Address", worth=6),
    Column(name="Reason", fold=24),
)


@click.command(
    "sweep",
    epilog=options.example(
        "broker-auth sweep -c broker.conf",
        "broker-auth sweep -c broker.conf --end --audit /var/log/broker-auth/audit.jsonl --audit other-host.jsonl",
    ),
)
@options.config_option
@click.option("--end", is_flag=True, help="End these sessions.")
@click.option(
    "--audit",
    type=options.FILE,
    multiple=True,
    help="Audit file, for what let sessions in; by default the configured ones. Repeat for each host and zone.",
)
@kick_option
@access_options
@wide_option
@options.json_option
@click.pass_context
def sweep_command(
    ctx: click.Context,
    /,
    config: Path,
    audit: tuple[Path, ...],
    *,
    end: bool,
    wide: bool,
    as_json: bool,
    **credentials: Any,
) -> None:
    """Show the sessions that CONFIG and the revocations in force would not admit now, and end them with --end.

    Every server is asked for its sessions, and each is decided again by its audit record: by all rules if the record
    holds the request, otherwise by revocations alone. A session that cannot be decided is counted and left alone.

    Exit code 0: each session would be admitted or, with --end, has been ended. 1: one would not be, or remains, or a
    server could not be asked. 3: of some sessions it is not known.
    """
    with configured_by(config):
        access = make_ender_access(config, **credentials)
        paths = audit or tuple(path for path in access.settings.audit_files if path.is_file())
        result = run(_sweep(access, paths, end=end))
    apart = [one.name for one in access.settings.brokers if not access.settings.zone(one.zone).served]
    if as_json:
        output.document(document(result, end=end))
    else:
        _show(result, end=end, wide=wide)
    if apart:
        output.remark(f"broker {', '.join(apart)} decides by itself, so its sessions were not judged")
    for line in result.missing:
        output.error(line)
    ctx.exit(_exit_code(result, end=end))


async def _sweep(access: Access, paths: tuple[Path, ...], *, end: bool) -> FoundSessions:
    def read() -> list[AuditRecord]:
        return [record for path in paths for record in read_recent_decisions(path)]

    async with SessionEnder(access, UnadmittedSessions(access.settings, read)) as ender:
        return await (ender.end() if end else ender.find())


def _exit_code(result: FoundSessions, *, end: bool) -> int:
    if result.missing or (result.chosen and not end):
        return FOUND
    return NOT_KNOWN if result.unknown else 0


def _show(result: FoundSessions, *, end: bool, wide: bool) -> None:
    count = counted(len(result.chosen), "session")
    summary = f"{count} {'ended' if end else 'would not be admitted now'}, {result.spared} would be"
    if result.chosen:
        rows = [(one.server, one.account, one.identity, one.ip, one.reason) for one in result.chosen]
        print_table(Table(_COLUMNS, rows), wide=wide)
    output.note(summary)
    for line in result.unknown:
        output.note(f"not known: {line}")


def document(result: FoundSessions, *, end: bool) -> dict[str, object]:
    """Return the JSON document (docs/interface.md#sweep)."""
    return {
        "ended": end,
        "sessions": [_session(one) for one in result.chosen],
        "admitted": result.spared,
        "not_known": list(result.unknown),
        "missing": list(result.missing),
    }


def _session(one: Session) -> dict[str, object]:
    return {
        "broker": one.broker,
        "server": one.server,
        "server_id": one.server_id,
        "cid": one.cid,
        "account": one.account,
        "identity": one.identity or None,
        "ip": one.ip,
        "code": one.code,
        "reason": one.reason,
    }
