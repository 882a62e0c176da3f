"""``broker-auth report expiring``: the sessions whose credential ends soon, in waves."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final

import click

from broker_auth.audit.reader import read_records
from broker_auth.cli import output
from broker_auth.cli.access import access_options, load_settings, make_access, run
from broker_auth.cli.options import DURATION, FILE, config_option, example, json_option
from broker_auth.cli.tables import ESSENTIAL, Column, Table, print_table, wide_option
from broker_auth.operate.report.connections import Observer
from broker_auth.operate.report.expiring import (
    ExpiringSession,
    ExpiryReport,
    Wave,
    admissions,
    expiry_metrics,
    expiry_report,
    waves,
)
from broker_auth.operate.report.gathering import Ask
from broker_auth.settings.model import Settings
from broker_auth.times import short_duration
from broker_auth.wording import counted

FORMATS: Final = ("text", "json", "prometheus")
EXPIRING, EXPIRED, UNKNOWN = (
    "broker_auth_sessions_expiring",
    "broker_auth_sessions_expired",
    "broker_auth_sessions_unknown_expiry",
)
METRICS: Final = {
    EXPIRING: "Sessions whose credential ends within this number of days.",
    EXPIRED: "Sessions that outlive their credential: they cannot connect again.",
    UNKNOWN: "Sessions without an audit record on this host.",
}
_DAY: Final = 86_400.0
_COLUMNS: Final = (
    Column(name="Identity", worth=ESSENTIAL + 3, fold=16),
    Column(name="Left", worth=ESSENTIAL + 2, right=True),
    Column(name="Ends", worth=9),
    Column(name="Session ends", worth=6),
    Column(name="Rule", worth=8),
    Column(name="Server", worth=ESSENTIAL + 1, fold=8),
    Column(name="Address", worth=ESSENTIAL, fold=15),
    Column(name="Credential", worth=7),
)


@click.command(
    "expiring",
    epilog=example(
        "broker-auth report expiring --within 30d -c broker.conf",
        "broker-auth report expiring --format prometheus -c broker.conf > sessions.prom",
    ),
)
@config_option
@access_options
@click.option(
    "--within", type=DURATION, default=30 * _DAY, show_default="30d", help="List credentials that end within this time."
)
@click.option(
    "--audit", type=FILE, multiple=True, help="Audit file, by default the configured ones; repeat for those of hosts."
)
@click.option("--limit", "-n", type=click.IntRange(min=1), help="List at most N sessions; the waves count all.")
@wide_option
@click.option("--format", "form", type=click.Choice(FORMATS), help="Output format; text by default, json with --json.")
@json_option
@click.pass_context
def expiring_command(
    ctx: click.Context,
    /,
    config: Path,
    within: float,
    audit: tuple[Path, ...],
    limit: int | None,
    form: str | None,
    *,
    wide: bool,
    as_json: bool,
    **credentials: Any,
) -> None:
    """List the sessions whose credential ends soon or has ended, in waves by day.

    A client cannot connect again after that, until it has another credential. Audit records say when a session ends,
    with those of the files rotated from them: run it on each host of the service, or give the files of all with
    --audit. The metrics of --format prometheus count 1, 7 and 30 days, whatever --within says. Exit code 1 if a broker
    or server could not be reached; the others are still shown.
    """
    form = form or ("json" if as_json else "text")
    settings = load_settings(config)
    report, missing = run(_look(settings, _files(settings, audit), credentials))
    now = datetime.now(UTC)
    sessions = report.within(now + timedelta(seconds=within))
    match form:
        case "json":
            output.document(expiring_document(sessions, report.unknown, now, limit))
        case "prometheus":
            for line in prometheus(report, now):
                output.note(line)
        case _:
            print_table(expiring_table(sessions, report.unknown, now, limit), wide=wide)
    for line in missing:
        output.error(line)
    ctx.exit(1 if missing else 0)


def _files(settings: Settings, audit: Sequence[Path]) -> list[Path]:
    return list(audit) or [path for path in settings.audit_files if path.is_file()]


async def _look(
    settings: Settings, files: Sequence[Path], credentials: dict[str, Any]
) -> tuple[ExpiryReport, tuple[str, ...]]:
    async with Observer(make_access(settings, **credentials)) as observer:
        report = await observer.report(Ask())
    keys = [(item.server_id, item.cid) for item in report.connections]
    records = admissions((record for file in files for record in read_records(file)), keys)
    return expiry_report(report.connections, records), report.missing


def expiring_document(
    sessions: Sequence[ExpiringSession], unknown: int, now: datetime, limit: int | None = None
) -> dict[str, Any]:
    """Return the JSON document of docs/interface.md#report-expiring."""
    return {
        "waves": [
            {
                "day": wave.day.isoformat(),
                "sessions": len(wave.sessions),
                "identities": wave.identities,
                "first": output.rfc3339(wave.first.timestamp()),
                "last": output.rfc3339(wave.last.timestamp()),
            }
            for wave in waves(sessions)
        ],
        "sessions": [_session_document(one, now) for one in sessions[:limit]],
        "unknown": unknown,
    }


def _session_document(one: ExpiringSession, now: datetime) -> dict[str, Any]:
    item, record = one.connection, one.record
    return {
        "identity": item.identity,
        "name": item.name,
        "account": item.account,
        "rule": record.rule,
        "server": item.server,
        "server_id": item.server_id,
        "cid": item.cid,
        "ip": item.ip,
        "token_id": record.token_id or None,
        "signer": record.signer or None,
        "chain_issuer": record.issuer_id or None,
        "fingerprint": record.fingerprint or None,
        "credential_ends": output.rfc3339(one.credential_ends.timestamp()),
        "session_ends": output.rfc3339(one.session_ends.timestamp()),
        "expired": one.credential_ends <= now,
    }


def expiring_table(sessions: Sequence[ExpiringSession], unknown: int, now: datetime, limit: int | None = None) -> Table:
    """Return the sessions as a table, with the waves and the number of unknown ends below."""
    rows = [
        (
            one.connection.identity,
            _left(one.credential_ends - now),
            output.rfc3339(int(one.credential_ends.timestamp())),
            output.rfc3339(int(one.session_ends.timestamp())),
            one.record.rule,
            one.connection.server,
            one.connection.ip,
            one.credential,
        )
        for one in sessions[:limit]
    ]
    footer = [_wave(wave) for wave in waves(sessions)]
    total = f"{counted(len(sessions), 'session')} with a credential that ends"
    if len(rows) < len(sessions):
        total += f", the first {len(rows)} by --limit"
    footer.append(total)
    if unknown:
        footer.append(f"Of {counted(unknown, 'more session')} no audit record on this host tells the end.")
    return Table(_COLUMNS, rows, footer)


def _wave(wave: Wave) -> str:
    sessions = counted(len(wave.sessions), "session")
    identities = counted(wave.identities, "identity", "identities")
    return f"{wave.day}: {sessions} of {identities}, from {wave.first:%H:%M:%S} to {wave.last:%H:%M:%S} UTC"


def _left(left: timedelta) -> str:
    return short_duration(left.total_seconds()) if left > timedelta(0) else "expired"


def prometheus(report: ExpiryReport, now: datetime) -> Iterator[str]:
    """Yield the lines of Prometheus's text format."""
    counted = expiry_metrics(report, now)
    samples = {
        EXPIRING: [
            (f'{{rule="{rule.value}",days="{days}"}}', number) for (rule, days), number in counted.expiring.items()
        ],
        EXPIRED: [(f'{{rule="{rule.value}"}}', number) for rule, number in counted.expired.items()],
        UNKNOWN: [("", report.unknown)],
    }
    for name, text in METRICS.items():
        yield f"# HELP {name} {text}"
        yield f"# TYPE {name} gauge"
        yield from (f"{name}{labels} {number}" for labels, number in samples[name])
