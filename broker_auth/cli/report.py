"""``broker-auth report``: who is connected, and who waits."""

from __future__ import annotations

import contextlib
from collections.abc import Awaitable, Callable, Coroutine
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final, TypeVar

import click
import msgspec
from rich.table import Table

from broker_auth.audit.reader import read_recent_decisions, rules_of
from broker_auth.audit.record import AuditRecord
from broker_auth.cli import output
from broker_auth.cli.access import access_options, load_settings, make_access, run
from broker_auth.cli.lazy import Lazy, LazyGroup
from broker_auth.cli.options import DURATION, FILE, config_option, example, json_option
from broker_auth.cli.tables import make_console, make_table, short_bytes, watch
from broker_auth.errors import OperationError
from broker_auth.operate.report.connections import Connection, ConnectionsReport, Observer
from broker_auth.operate.report.gathering import Ask, State
from broker_auth.operate.report.selection import SORTS, Selection
from broker_auth.operate.report.waiting import Waiting, waiting_nodes
from broker_auth.settings.model import Settings
from broker_auth.times import short_duration

KINDS: Final = {"client": frozenset({"Client"}), "leaf": frozenset({"Leafnode"}), "all": frozenset[str]()}
_T = TypeVar("_T")
_AUDIT_HELP: Final = "Audit file, for rules and for what was refused; by default the configured one."

report_group = LazyGroup(
    name="report",
    table={
        "conns": Lazy("broker_auth.cli.report:conns_command", "Who is connected, on every server."),
        "waiting": Lazy("broker_auth.cli.report:waiting_command", "Nodes that wait to be provisioned."),
    },
    help="""Look at every server of every configured broker.

    Logs in as the system user, with the configured certificate. An edge asks for no certificate, so it
    is seen as a provisioner sees it, over the leaf link, unless --break-glass, or --token with --seed,
    opens its system account.""",
    epilog=example("broker-auth report conns --config broker.conf --account provisioning"),
)


def _watch_options(function: Any) -> Any:
    interval = click.option("--interval", type=DURATION, default=2.0, show_default="2s", help="How often with --watch.")
    return click.option("--watch", "watching", is_flag=True, help="Show it again and again.")(interval(function))


@click.command("conns", epilog=example("broker-auth report conns -c broker.conf --sort in-bytes --limit 20"))
@config_option
@access_options
@click.option("--account", help="Only this account.")
@click.option("--kind", type=click.Choice(list(KINDS)), default="client", show_default=True)
@click.option("--state", type=click.Choice(["open", "closed", "all"]), default="open", show_default=True)
@click.option("--sort", type=click.Choice(list(SORTS)), default="uptime", show_default=True)
@click.option("--reverse", "-R", is_flag=True, help="The other way round.")
@click.option("--limit", "-n", type=click.IntRange(min=1), help="At most so many.")
@click.option("--name", help="Only these connection names; * and ? as in a shell.")
@click.option("--identity", "--username", help="Only these identities; * and ? as in a shell.")
@click.option("--server", help="Only these servers; * and ? as in a shell.")
@click.option("--host", help="Only this address or network, like 10.1.0.0/16.")
@click.option("--rule", help="Only what this rule admitted; needs --audit but for auth_user and break_glass.")
@click.option("--subject", help="Only who listens to this subject.")
@click.option("--filter", "text", help="Only where this text appears anywhere.")
@click.option("--subs", is_flag=True, help="Show what each listens to.")
@click.option("--audit", type=FILE, help=_AUDIT_HELP)
@_watch_options
@json_option
@click.pass_context
def conns_command(
    ctx: click.Context,
    /,
    config: Path,
    audit: Path | None,
    watching: bool,
    interval: float,
    as_json: bool,
    **given: Any,
) -> None:
    """Show who is connected, on every server, fleet and edge.

    Exit code 1 if a broker or server could not be seen; the others are shown all the same.
    """
    _one_of(watching, as_json)
    options = {name: given.pop(name) for name in ("break_glass", "token", "seed", "certificate", "key")}
    settings = load_settings(config)
    access, records = make_access(settings, **options), _records(settings, audit)
    subs = given.pop("subs")
    state = State[given.pop("state").upper()]
    selection = Selection(kinds=KINDS[given.pop("kind")], **given)
    ask = Ask(account=selection.account, state=state, subjects=subs or selection.subject is not None)

    async def look(observer: Observer) -> ConnectionsReport:
        report = await observer.report(ask, rules_of(records()))
        return ConnectionsReport(connections=selection.apply(report.connections), missing=report.missing)

    def draw(report: ConnectionsReport) -> Table:
        return conns_table(report, subs=subs)

    async def work() -> ConnectionsReport:
        async with Observer(access) as observer:
            if watching:
                await watch(_drawn(lambda: look(observer), draw), interval)
            return await look(observer)

    report = _run(work())
    if report is None:
        return
    if as_json:
        output.document(msgspec.to_builtins(report.connections))
    else:
        make_console().print(draw(report))
    _finish(ctx, report.missing)


@click.command("waiting", epilog=example("broker-auth report waiting -c broker.conf --audit audit.json --watch"))
@config_option
@access_options
@click.option("--audit", type=FILE, help=_AUDIT_HELP)
@_watch_options
@json_option
@click.pass_context
def waiting_command(
    ctx: click.Context,
    /,
    config: Path,
    audit: Path | None,
    watching: bool,
    interval: float,
    as_json: bool,
    **given: Any,
) -> None:
    """Show the nodes that wait to be provisioned, longest first.

    With an audit file also those that were refused within the last hour, attempts, and why the last
    one failed.
    """
    _one_of(watching, as_json)
    settings = load_settings(config)
    access, read = make_access(settings, **given), _records(settings, audit)

    async def look(observer: Observer) -> tuple[tuple[Waiting, ...], tuple[str, ...]]:
        records = read()
        report = await observer.report(Ask(), rules_of(records))
        account = settings.accounts.provisioning
        return waiting_nodes(report.connections, records, datetime.now(UTC), account=account), report.missing

    def draw(found: tuple[tuple[Waiting, ...], tuple[str, ...]]) -> Table:
        return waiting_table(*found, datetime.now(UTC))

    async def work() -> tuple[tuple[Waiting, ...], tuple[str, ...]]:
        async with Observer(access) as observer:
            if watching:
                await watch(_drawn(lambda: look(observer), draw), interval)
            return await look(observer)

    found = _run(work())
    if found is None:
        return
    if as_json:
        now = datetime.now(UTC)
        output.document([_waiting_document(node, now) for node in found[0]])
    else:
        make_console().print(draw(found))
    _finish(ctx, found[1])


def conns_table(report: ConnectionsReport, *, subs: bool = False) -> Table:
    """Connections as a table; missing brokers in its last line."""
    columns = ["Server", "Account", "Identity", "Name", "Address", "TLS", "Rule", "#Up", "#Idle", "#Subs"]
    columns += ["#In", "#Out", "#CID"] + (["Listens to"] if subs else [])
    rows = [_conns_row(item) + ([" ".join(item.subjects)] if subs else []) for item in report.connections]
    servers = len({item.server_id for item in report.connections})
    footer = _count(len(rows), "connection") + " on " + _count(servers, "server")
    return make_table("Connections", columns, rows, footer + _incomplete(report.missing))


def waiting_table(nodes: tuple[Waiting, ...], missing: tuple[str, ...], now: datetime) -> Table:
    """Waiting nodes as a table; missing brokers in its last line."""
    columns = ["Node", "State", "Server", "Address", "#Waiting", "#Attempts", "Last denial"]
    rows = [
        (
            node.name,
            "connected" if node.connected else "refused",
            node.server,
            node.ip,
            short_duration(node.age(now).total_seconds()),
            node.attempts,
            f"{node.last_denial.code}: {node.last_denial.reason}" if node.last_denial else None,
        )
        for node in nodes
    ]
    return make_table("Waiting nodes", columns, rows, _count(len(rows), "node") + _incomplete(missing))


def _count(number: int, what: str) -> str:
    return f"{number} {what}" if number == 1 else f"{number} {what}s"


def _incomplete(missing: tuple[str, ...]) -> str:
    return "; incomplete, see the error below" if missing else ""


def _conns_row(item: Connection) -> list[object]:
    return [
        item.server,
        item.account,
        item.identity,
        item.name,
        f"{item.ip}:{item.port}",
        item.tls,
        item.rule,
        item.uptime,
        item.idle,
        item.subscriptions,
        short_bytes(item.in_bytes),
        short_bytes(item.out_bytes),
        item.cid,
    ]


def _waiting_document(node: Waiting, now: datetime) -> dict[str, object]:
    denial = node.last_denial
    return {
        "name": node.name,
        "connected": node.connected,
        "server": node.server,
        "ip": node.ip,
        "since": output.rfc3339(node.since.timestamp()),
        "age_seconds": int(node.age(now).total_seconds()),
        "attempts": node.attempts,
        "last_denial": None
        if denial is None
        else {"time": output.rfc3339(denial.time.timestamp()), "code": denial.code, "reason": denial.reason},
    }


def _drawn(look: Callable[[], Awaitable[_T]], draw: Callable[[_T], Table]) -> Callable[[], Awaitable[Table]]:
    async def drawn() -> Table:
        return draw(await look())

    return drawn


def _run(work: Coroutine[Any, Any, _T]) -> _T | None:
    """The result; None if the operator ended it, which is how watching ends."""
    with contextlib.suppress(KeyboardInterrupt):
        return run(work)
    return None


def _records(settings: Settings, audit: Path | None) -> Callable[[], list[AuditRecord]]:
    """Return what reads the audit file named, or else those of the configuration that are there."""
    paths = [audit] if audit else [path for path in settings.audit_files if path.is_file()]
    return lambda: [record for path in paths for record in read_recent_decisions(path)]


def _one_of(watching: bool, as_json: bool) -> None:
    if watching and as_json:
        raise click.UsageError("--watch and --json do not go together")


def _finish(ctx: click.Context, missing: tuple[str, ...]) -> None:
    for line in missing:
        output.error(str(OperationError(line)))
    if missing:
        ctx.exit(1)
