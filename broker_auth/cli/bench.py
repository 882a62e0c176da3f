"""``broker-auth bench``: the cost of a decision, a request and a connection on this machine."""

from __future__ import annotations

import click
from rich.console import Console

from broker_auth.bench import report
from broker_auth.bench.run import PARTS, run
from broker_auth.cli import output

_EPILOG = (
    "\b\nParts:\n"
    + "\n".join(f"  {name:<9} {extent.about}" for name, extent in PARTS.items())
    + ("\n\n\b\nExample:\n  broker-auth bench decision service --quick")
)


@click.command("bench", epilog=_EPILOG)
@click.argument("parts", nargs=-1, type=click.Choice(list(PARTS)), metavar="[PART]...")
@click.option("--quick", is_flag=True, help="Shorter measurements; all parts end within about a minute.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
def bench_command(parts: tuple[str, ...], quick: bool, as_json: bool) -> None:
    """Measure decisions, a running service and real TLS connections, all on 127.0.0.1.

    CPU time is shown next to the crypto floor: verifying the request, signing the answer, and verifying the
    credential. Floor and work are measured alternately in the same process, so on a busy machine trust the
    ratios. Requires Linux and a nats-server.
    """
    results = run(parts, quick=quick, started=lambda part: click.echo(f"measuring: {part}", err=True))
    if as_json:
        output.document(results)
    else:
        report.show(results, Console(width=None, highlight=False))
