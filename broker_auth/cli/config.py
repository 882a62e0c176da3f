"""``broker-auth config check``."""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path
from typing import Any

import click

from broker_auth.cli import options, output
from broker_auth.cli.access import run
from broker_auth.cli.replay import exit_code, replay_files
from broker_auth.files.ownership import configured_by
from broker_auth.operate.access import Access
from broker_auth.operate.doctor.live import ListenerMode, check_live
from broker_auth.operate.kick import kick_problems
from broker_auth.operate.replay.show import document, lines
from broker_auth.printable import printable
from broker_auth.settings.checks.readers import reader_problems
from broker_auth.settings.load import check
from broker_auth.settings.problems import ConfigurationReport, Problem, shown_key

_EPILOG = options.example(
    "broker-auth config check /etc/broker-auth/broker.conf",
    "broker-auth config check broker.conf --json",
    "broker-auth config check broker.conf --live",
    "broker-auth config check broker.conf --replay /var/log/broker-auth/audit.jsonl",
)


@click.command("check", epilog=_EPILOG)
@options.config_argument
@click.option("--live", is_flag=True, help="Also log in to every broker as the service, and report problems there.")
@click.option(
    "--replay",
    "audit",
    metavar="AUDIT",
    type=options.FILE,
    help="Also decide the requests in this audit file again, and report who would be denied.",
)
@options.json_option
@click.pass_context
def check_command(ctx: click.Context, file: Path, audit: Path | None, *, live: bool, as_json: bool) -> None:
    """Check a configuration, with overrides by the environment, as 'serve' would read it.

    With --live, checks each broker's version, whether it accepts this service as its callout service, and whether
    its listener requires, accepts or does not ask for client certificates: run it on the service's host.
    'broker-auth doctor' checks more.

    Exit code 0: it can be used, possibly with warnings. 1: it cannot; every problem is listed with
    file, line, key and remedy. With --replay, 1 also if somebody who was let in would be denied, and 3 if that is
    not known of somebody.
    """
    report = check(file, os.environ, remote=live)
    if report.settings is not None:
        with configured_by(file):
            seeds = (*kick_problems(report.settings), *reader_problems(report.settings))
            report = dataclasses.replace(report, warnings=(*report.warnings, *seeds))
    listeners: tuple[ListenerMode, ...] = ()
    if live and report.settings is not None:
        report, listeners = run(check_live(report, Access(settings=report.settings)))
    summary = None
    if audit is not None and report.settings is not None:
        summary = replay_files(report.settings, [audit]).summary
    if as_json:
        replayed = None if summary is None else document(summary, None, ())
        output.document(_document(report) | {"listeners": [_listener(mode) for mode in listeners], "replay": replayed})
    else:
        _print(file, report)
        for mode in listeners:
            if mode.seen is not None:
                output.note(f"{mode.url} {mode.seen.described}")
        for line in () if summary is None else lines(summary, None, ()):
            output.note(line)
    if not report.ok:
        ctx.exit(1)
    ctx.exit(0 if summary is None else exit_code(summary))


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


def _listener(mode: ListenerMode) -> dict[str, Any]:
    return {
        "broker": mode.broker.name,
        "url": mode.url,
        "client_certificates": mode.seen,
        "expected": mode.broker.role.client_certificates,
    }


def _entry(problem: Problem) -> dict[str, Any]:
    return {
        "file": problem.file,
        "line": problem.line,
        "key": None if problem.key is None else shown_key(problem.key),
        "problem": printable(problem.what),
        "remedy": printable(problem.remedy),
    }
