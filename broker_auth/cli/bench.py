"""``broker-auth bench``: the cost of a decision, a request and a connection on this machine."""

from __future__ import annotations

import click
from click.shell_completion import CompletionItem
from rich.console import Console

from broker_auth.bench import report
from broker_auth.bench.run import PARTS, run
from broker_auth.cli import output
from broker_auth.cli.lazy import Lazy, LazyGroup

_EPILOG = (
    "\b\nParts:\n"
    + "\n".join(f"  {name:<9} {extent.about}" for name, extent in PARTS.items())
    + ("\n\n\b\nExample:\n  broker-auth bench decision service --quick")
)
_RUN = "run"


class _BenchGroup(LazyGroup):
    """A group in which ``run`` may be left out: ``bench decision`` is ``bench run decision``."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Insert ``run`` before its options, and if there are no arguments."""
        is_option = bool(args) and args[0].startswith("-") and args[0] not in ctx.help_option_names
        completing = ctx.resilient_parsing and not args
        return super().parse_args(ctx, [_RUN, *args] if is_option or (not args and not completing) else args)

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Resolve the name of a part as ``run`` with this part."""
        return super().resolve_command(ctx, [_RUN, *args] if args and args[0] in PARTS else args)

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem]:
        """Complete commands and, because ``run`` may be left out, parts."""
        parts = [CompletionItem(name) for name in PARTS if name.startswith(incomplete)]
        return super().shell_complete(ctx, incomplete) + parts


@click.command(_RUN, epilog=_EPILOG)
@click.argument("parts", nargs=-1, type=click.Choice(list(PARTS)), metavar="[PART]...")
@click.option("--quick", is_flag=True, help="Shorter measurements; all parts end within about a minute.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
def run_command(parts: tuple[str, ...], quick: bool, as_json: bool) -> None:
    """Measure decisions, a running service and real TLS connections, all on 127.0.0.1.

    The word `run` may be left out. CPU time is shown next to the crypto floor: verifying the request, signing the
    answer, and verifying the credential. Floor and work are measured alternately in the same process, so on a busy
    machine trust the ratios. Requires Linux and a nats-server.
    """
    results = run(parts, quick=quick, started=lambda part: click.echo(f"measuring: {part}", err=True))
    if as_json:
        output.document(results)
    else:
        report.show(results, Console(width=None, highlight=False))


bench_command = _BenchGroup(
    name="bench",
    table={
        _RUN: Lazy("broker_auth.cli.bench:run_command", "Measure decisions, a running service and connections."),
        "plan": Lazy("broker_auth.cli.bench_plan:plan_command", "Compute the hosts that many devices need."),
    },
    help="Measure what a decision and a login cost on this machine, and plan with it.",
    epilog="\b\nExample:\n  broker-auth bench decision service --quick",
)
