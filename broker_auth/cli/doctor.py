"""``broker-auth doctor``: problems of the live deployment."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, Final

import click
from rich.text import Text

from broker_auth.cli import output
from broker_auth.cli.access import access_options, make_access, run
from broker_auth.cli.files import read_file
from broker_auth.cli.options import FILE, config_option, example, json_option
from broker_auth.cli.tables import make_console
from broker_auth.operate.doctor.deployment import examine_configuration
from broker_auth.operate.doctor.examine import examine, healthy, in_order
from broker_auth.operate.doctor.finding import Context, Finding, Severity
from broker_auth.secret import Secret
from broker_auth.settings.load import check
from broker_auth.tokens.jws import MAX_TOKEN_BYTES

_STYLES: Final = {
    Severity.ERROR: "bold red",
    Severity.WARNING: "yellow",
    Severity.SKIPPED: "dim",
    Severity.OK: "green",
}


@click.command("doctor", epilog=example("broker-auth doctor --config broker.conf --break-glass break-glass.seed"))
@config_option
@access_options
@click.option("--provisioning-token", type=FILE, help="Provisioning token, to test the login of a node.")
@click.option("--verbose", "-v", is_flag=True, help="Also show checks that passed.")
@json_option
@click.pass_context
def doctor_command(
    ctx: click.Context,
    /,
    config: Path,
    provisioning_token: Path | None,
    verbose: bool,
    as_json: bool,
    **credentials: Any,
) -> None:
    """Check the live deployment and report each problem with its remedy.

    Run it on the service's host. It logs in as the system user; the system account of an edge is visible
    only with --break-glass, or with --token and --seed. It changes nothing. Exit code 1 if there is an
    error; warnings do not count.
    """
    report = check(config, os.environ, serving=True, remote=True)
    if report.settings is None:
        findings = in_order(examine_configuration(report))
    else:
        token = Secret(_token(provisioning_token)) if provisioning_token else None
        context = Context(access=make_access(report.settings, **credentials), provisioning_token=token)
        findings = run(examine(context, report))
    if as_json:
        output.document({"healthy": healthy(findings), "findings": [_document(item) for item in findings]})
    else:
        _show(findings, verbose=verbose)
    ctx.exit(0 if healthy(findings) else 1)


def _token(path: Path) -> str:
    return read_file(path, MAX_TOKEN_BYTES).data.decode("ascii", "replace").strip()


def _show(findings: tuple[Finding, ...], *, verbose: bool) -> None:
    console = make_console()
    for item in findings:
        if item.severity is Severity.OK and not verbose:
            continue
        where = f"{' '.join(filter(None, (item.broker, item.server)))}: " if item.broker else ""
        line = Text(f"{item.severity.value:<8}", style=_STYLES[item.severity])
        console.print(
            line.append(output.one_line(f"{where}{item.what}  [{item.code}]"), style="default"), soft_wrap=True
        )
        if item.remedy:
            console.print(Text(output.one_line(f"         {item.remedy}")), soft_wrap=True)
    counts = {severity: sum(item.severity is severity for item in findings) for severity in Severity}
    labels: dict[Severity, Any] = {
        Severity.ERROR: "errors",
        Severity.WARNING: "warnings",
        Severity.SKIPPED: "skipped",
        Severity.OK: "ok",
    }
    console.print(", ".join(f"{counts[severity]} {name}" for severity, name in labels.items()))


def _document(item: Finding) -> dict[str, object]:
    return {
        "severity": item.severity.value,
        "code": item.code,
        "broker": item.broker,
        "server": item.server,
        "what": item.what,
        "remedy": item.remedy,
    }
