"""``broker-auth config check``."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import click

from broker_auth.cli import options, output
from broker_auth.cli.access import run
from broker_auth.operate.access import Access
from broker_auth.operate.doctor.live import check_live
from broker_auth.printable import printable
from broker_auth.settings.load import check
from broker_auth.settings.problems import ConfigurationReport, Problem, shown_key

_EPILOG = options.example(
    "broker-auth config check /etc/broker-auth/broker.conf",
    "broker-auth config check broker.conf --json",
    "broker-auth config check broker.conf --live",
)


@click.command("check", epilog=_EPILOG)
@click.argument("file", type=options.FILE)
@click.option("--live", is_flag=True, help="Also log in to every broker as the service, and report problems there.")
@options.json_option
@click.pass_context
def check_command(ctx: click.Context, file: Path, *, live: bool, as_json: bool) -> None:
    """Check a configuration, with overrides by the environment, as 'serve' would read it.

    With --live, checks each broker's version, and whether it accepts this service as its callout service: run it
    on the service's host. 'broker-auth doctor' checks more.

    Exit code 0: it can be used, possibly with warnings. 1: it cannot; every problem is listed with
    file, line, key and remedy.
    """
    report = check(file, os.environ, remote=live)
    if live and report.settings is not None:
        report = run(check_live(report, Access(settings=report.settings)))
    if as_json:
        output.document(_document(report))
    else:
        _print(file, report)
    ctx.exit(0 if report.ok else 1)


def _print(file: Path, report: ConfigurationReport) -> None:
    for warning in report.warnings:
        output.warning(str(warning))
    for problem in report.problems:
        output.error(str(problem))
    if report.ok:
        count = len(report.warnings)
        output.note(f"{file}: valid" + (f", with {count} warning{'s' * (count > 1)}" if count else ""))


def _document(report: ConfigurationReport) -> dict[str, Any]:
    return {
        "valid": report.ok,
        "problems": [_entry(problem) for problem in report.problems],
        "warnings": [_entry(warning) for warning in report.warnings],
    }


def _entry(problem: Problem) -> dict[str, Any]:
    return {
        "file": problem.file,
        "line": problem.line,
        "key": None if problem.key is None else shown_key(problem.key),
        "problem": printable(problem.what),
        "remedy": printable(problem.remedy),
    }
