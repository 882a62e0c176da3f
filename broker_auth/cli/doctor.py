"""``broker-auth doctor``: problems of the live deployment."""

from __future__ import annotations

import dataclasses
import os
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Final

import click

from broker_auth.cli import output
from broker_auth.cli.access import access_options, make_access, run
from broker_auth.cli.files import read_file
from broker_auth.cli.options import FILE, config_option, example, json_option
from broker_auth.operate.doctor.deployment import examine_configuration
from broker_auth.operate.doctor.examine import examine, healthy, in_order
from broker_auth.operate.doctor.finding import Context, Finding, Severity
from broker_auth.secret import Secret
from broker_auth.settings.load import check
from broker_auth.tokens.jws import MAX_TOKEN_BYTES
from broker_auth.wording import counted

_STYLES: Final[dict[Severity, dict[str, Any]]] = {
    Severity.ERROR: {"fg": "red", "bold": True},
    Severity.WARNING: {"fg": "yellow"},
    Severity.SKIPPED: {"dim": True},
    Severity.OK: {"fg": "green"},
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
    groups = _grouped(findings)
    for item, where in groups:
        if item.severity is Severity.OK and not verbose:
            continue
        what = f"{where}: {item.what}" if where else item.what
        label = output.styled(f"{item.severity.value:<8}", **_STYLES[item.severity])
        output.paragraph(f"{what}  [{item.code}]", first=label, indent=8)
        if item.remedy:
            output.paragraph(item.remedy, first=" " * 9, indent=9)
    counts = Counter(item.severity for item, _ in groups)
    numbers = [
        counted(counts[Severity.ERROR], "error"),
        counted(counts[Severity.WARNING], "warning"),
        f"{counts[Severity.SKIPPED]} skipped",
        f"{counts[Severity.OK]} ok",
    ]
    output.note(", ".join(numbers))


def _grouped(findings: Iterable[Finding]) -> list[tuple[Finding, str]]:
    """Return the findings with their servers; those that differ in nothing else are one."""
    places: dict[Finding, list[tuple[str, str | None]]] = {}
    for item in findings:
        same = dataclasses.replace(item, broker=None, server=None, ahead=None)
        servers = places.setdefault(same, [])
        if item.broker is not None:
            servers.append((item.broker, item.server))
    return [(item, _where(servers)) for item, servers in places.items()]


def _where(places: Iterable[tuple[str, str | None]]) -> str:
    by_broker: dict[str, list[str]] = {}
    for broker, server in places:
        by_broker.setdefault(broker, []).extend([server] if server else [])
    return "; ".join(" ".join(filter(None, (broker, ", ".join(servers)))) for broker, servers in by_broker.items())


def _document(item: Finding) -> dict[str, object]:
    return {
        "severity": item.severity.value,
        "code": item.code,
        "broker": item.broker,
        "server": item.server,
        "what": item.what,
        "remedy": item.remedy,
    }
