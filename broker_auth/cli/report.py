"""``broker-auth report``: the connections, and the nodes that wait for provisioning."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Awaitable, Callable, Coroutine
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final, TypeVar

import click
import msgspec

from broker_auth.audit.reader import read_recent_decisions, rules_of
from broker_auth.audit.record import AuditRecord
from broker_auth.cli import output
from broker_auth.cli.access import access_options, load_settings, make_access, run
from broker_auth.cli.lazy import Lazy, LazyGroup
from broker_auth.cli.options import DURATION, FILE, config_option, example, json_option
from broker_auth.cli.report_tables import conns_table, waiting_table
from broker_auth.cli.tables import Table, print_table, watch, wide_option
from broker_auth.errors import OperationError
from broker_auth.operate.report.connections import ConnectionsReport, Observer
from broker_auth.operate.report.gathering import Ask, State
from broker_auth.operate.report.selection import SORTS, Selection
from broker_auth.operate.report.waiting import Waiting, waiting_nodes
from broker_auth.settings.model import Settings

KINDS: Final = {"client": frozenset({"Client"}), "leaf": frozenset({"Leafnode"}), "all": frozenset[str]()}
_T = TypeVar("_T")
_AUDIT_HELP: Final = "Audit file, for rules and refusals; by default the configured one."

report_group = LazyGroup(
    name="report",
    table={
        "conns": Lazy("broker_auth.cli.report:conns_command", "List connections on every server."),
        "waiting": Lazy("broker_auth.cli.report:waiting_command", "List nodes that wait for provisioning."),
        "expiring": Lazy("broker_auth.cli.report_expiring:expiring_command", "List credentials that end soon."),
    },
    help="""Query every server of every configured broker.

    Logs in as the system user, with the configured certificate. An edge does not request certificates: only
    what the provisioner's account shows over the leaf node connection is visible, unless --break-glass, or
    --token with --seed, gives access to its system account.

    A terminal shows the columns that fit, with long cells folded and nkeys shortened. In a pipe every column is
    complete and separated by tabs.""",
    epilog=example("broker-auth report conns --config broker.conf --account provisioning"),
)


def _watch_options(function: Any) -> Any:
    interval = click.option(
        "--interval", type=DURATION, default=2.0, show_default="2s", help="Refresh interval for --watch."
    )
    return click.option("--watch", "watching", is_flag=True, help="Refresh until interrupted.")(interval(function))


@click.command("conns", epilog=example("broker-auth report conns -c broker.conf --sort in-bytes --limit 20"))
@config_option
@access_options
@click.option("--account", help="Only this account.")
@click.option("--kind", type=click.Choice(list(KINDS)), default="client", show_default=True)
@click.option("--state", type=click.Choice(["open", "closed", "all"]), default="open", show_default=True)
@click.option("--sort", type=click.Choice(list(SORTS)), default="uptime", show_default=True)
@click.option("--reverse", "-R", is_flag=True, help="Reverse the sort order.")
@click.option("--limit", "-n", type=click.IntRange(min=1), help="Show at most N connections.")
@click.option("--name", help="Only these connection names; * and ? as in a shell.")
@click.option("--identity", "--username", help="Only these identities; * and ? as in a shell.")
@click.option("--server", help="Only these servers; * and ? as in a shell.")
@click.option("--host", help="Only this address or network, like 10.1.0.0/16.")
@click.option(
    "--rule",
    help="Only connections admitted by this rule; requires --audit except for auth_user, break_glass, kick and reader.",
)
@click.option("--subject", help="Only connections subscribed to this subject.")
@click.option("--filter", "text", help="Only connections in which this text appears.")
@click.option("--subs", is_flag=True, help="Show the subscriptions.")
@click.option("--audit", type=FILE, help=_AUDIT_HELP)
@wide_option
@_watch_options
@json_option
@click.pass_context
def conns_command(
    ctx: click.Context,
    /,
    config: Path,
    audit: Path | None,
    wide: bool,
    watching: bool,
    interval: float,
    as_json: bool,
    **args: Any,
) -> None:
    """List the connections on every server, fleet and edge, except those of this command.

    With --json this command's own connections are included, and marked. Exit code 1 if a broker or server could not
    be reached; the others are still shown.
    """
    _one_of(watching, as_json)
    options = {name: args.pop(name) for name in ("break_glass", "token", "seed", "certificate", "key")}
    settings = load_settings(config)
    access, records = make_access(settings, **options), _records(settings, audit)
    subs = args.pop("subs")
    state = State[args.pop("state").upper()]
    selection = Selection(kinds=KINDS[args.pop("kind")], own=as_json, **args)
    ask = Ask(account=selection.account, state=state, subjects=subs or selection.subject is not None)

    async def look(observer: Observer) -> ConnectionsReport:
        report = await observer.report(ask, rules_of(records()))
        return dataclasses.replace(report, connections=selection.apply(report.connections))

    def draw(report: ConnectionsReport) -> Table:
        return conns_table(report, subs=subs, limit=selection.limit)

    async def work() -> ConnectionsReport:
        async with Observer(access) as observer:
            if watching:
                await watch(_drawn(lambda: look(observer), draw), interval, wide=wide)
            return await look(observer)

    report = _run(work())
    if report is None:
        return
    if as_json:
        output.document(msgspec.to_builtins(report.connections))
    else:
        print_table(draw(report), wide=wide)
    if report.partial:
        output.remark(
            f"of {', '.join(report.partial)} only the provisioning account is visible; --break-glass SEED, or --token "
            "with --seed, shows the other accounts"
        )
    _finish(ctx, report.missing)


@click.command("waiting", epilog=example("broker-auth report waiting -c broker.conf --audit audit.json --watch"))
@config_option
@access_options
@click.option("--audit", type=FILE, help=_AUDIT_HELP)
@wide_option
@_watch_options
@json_option
@click.pass_context
def waiting_command(
    ctx: click.Context,
    /,
    config: Path,
    audit: Path | None,
    wide: bool,
    watching: bool,
    interval: float,
    as_json: bool,
    **args: Any,
) -> None:
    """List the nodes that wait for provisioning, longest wait first.

    With an audit file, also the nodes refused within the last hour, the number of attempts, and the reason
    of the last refusal.
    """
    _one_of(watching, as_json)
    settings = load_settings(config)
    access, read = make_access(settings, **args), _records(settings, audit)

    async def look(observer: Observer) -> tuple[tuple[Waiting, ...], tuple[str, ...]]:
        records = read()
        report = await observer.report(Ask(), rules_of(records))
        account = settings.accounts.provisioning
        return waiting_nodes(report.connections, records, datetime.now(UTC), account=account), report.missing

    def draw(result: tuple[tuple[Waiting, ...], tuple[str, ...]]) -> Table:
        return waiting_table(*result, datetime.now(UTC))

    async def work() -> tuple[tuple[Waiting, ...], tuple[str, ...]]:
        async with Observer(access) as observer:
            if watching:
                await watch(_drawn(lambda: look(observer), draw), interval, wide=wide)
            return await look(observer)

    result = _run(work())
    if result is None:
        return
    if as_json:
        now = datetime.now(UTC)
        output.document([_waiting_document(node, now) for node in result[0]])
    else:
        print_table(draw(result), wide=wide)
    _finish(ctx, result[1])


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
    """Return the result; None if interrupted, the normal end of ``--watch``."""
    with contextlib.suppress(KeyboardInterrupt):
        return run(work)
    return None


def _records(settings: Settings, audit: Path | None) -> Callable[[], list[AuditRecord]]:
    """Return a reader of the named audit file, or else of the configuration's existing audit files."""
    paths = [audit] if audit else [path for path in settings.audit_files if path.is_file()]
    return lambda: [record for path in paths for record in read_recent_decisions(path)]


def _one_of(watching: bool, as_json: bool) -> None:
    if watching and as_json:
        raise click.UsageError("--watch and --json cannot be combined")


def _finish(ctx: click.Context, missing: tuple[str, ...]) -> None:
    for line in missing:
        output.error(str(OperationError(line)))
    if missing:
        ctx.exit(1)
