"""``broker-auth bench plan``: how many hosts the return of many devices takes."""

from __future__ import annotations

import os
import resource
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final

import click

from broker_auth.bench import figures
from broker_auth.bench.figures import BenchFigures
from broker_auth.bench.measure import processors
from broker_auth.bench.planning import RESERVED_FILES, Assumptions, HostSize, LoginCost, TierPlan, plan_tier
from broker_auth.cli import output
from broker_auth.cli.options import DURATION, FILE, json_option
from broker_auth.times import short_duration

_GIGABYTE: Final = 10**9
_TITLES: Final = {"edges": "edges", "fleet_servers": "fleet servers"}


@click.command(
    "plan",
    epilog="\b\nExample:\n  broker-auth bench plan --devices 100000 --within 10m --cores 8 --memory 32",
)
@click.option("--devices", type=click.IntRange(1, 10**9), required=True, help="Devices that return.")
@click.option("--within", type=DURATION, default="10m", show_default=True, help="Time until all of them are back.")
@click.option("--figures", "file", type=FILE, help="Figures of an earlier 'bench decision connects storm --json'.")
@click.option("--cores", type=click.IntRange(1, 4096), help="Processors of each host. Default: of this machine.")
@click.option("--memory", type=click.IntRange(1, 10**5), help="Gigabytes of each host. Default: of this machine.")
@click.option("--open-files", type=click.IntRange(RESERVED_FILES + 1, 10**8), help="Limit of nats-server's open files.")
@click.option(
    "--utilization",
    type=click.IntRange(1, 100),
    default=50,
    show_default=True,
    help="Percentage of each processor that logins may use.",
)
@json_option
def plan_command(
    *,
    devices: int,
    within: float,
    file: Path | None,
    cores: int | None,
    memory: int | None,
    open_files: int | None,
    utilization: int,
    as_json: bool,
) -> None:
    """Compute how many edges, fleet servers, workers and minutes the return of many devices takes.

    The costs are measured now, on 127.0.0.1, in half a minute, or come from --figures. Waiting nodes return to the
    edges, members to the fleet servers. Nothing is deployed. Requires Linux and a nats-server.
    """
    host = HostSize(
        cores=cores or processors(),
        memory=memory * _GIGABYTE if memory else os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        open_files=open_files or resource.getrlimit(resource.RLIMIT_NOFILE)[1],
    )
    if file is None:
        click.echo("measuring, which takes half a minute", err=True)
    measured = figures.measure_now() if file is None else figures.read(file)
    document = plan_document(devices, within, measured, host, Assumptions(utilization=utilization / 100))
    if as_json:
        output.document(document)
    else:
        for line in lines(document):
            click.echo(line)


def plan_document(
    devices: int, within: float, measured: BenchFigures, host: HostSize, assumed: Assumptions
) -> dict[str, Any]:
    """Return the plan as the JSON document of docs/interface.md#bench-plan."""
    checks = measured.checks()
    return {
        "devices": devices,
        "within_s": within,
        "logins_per_s": round(devices / within, 1),
        "host": asdict(host),
        "assumptions": asdict(assumed),
        "busy": any(check.slow for check in checks),
        "edges": _tier(plan_tier(devices, within, measured.nodes, host, assumed), measured.nodes),
        "fleet_servers": _tier(plan_tier(devices, within, measured.members, host, assumed), measured.members),
        "storms": [_rounded(asdict(check)) for check in checks],
    }


def _tier(tier: TierPlan, cost: LoginCost) -> dict[str, Any]:
    costs = {
        "server_ms": cost.server * 1000,
        "service_ms": cost.service * 1000,
        "connection_kb": cost.memory / 1000,
    }
    return _rounded(asdict(tier)) | {"cost": _rounded(costs)}


def _rounded(values: dict[str, Any]) -> dict[str, Any]:
    return {name: round(value, 2) if isinstance(value, float) else value for name, value in values.items()}


def lines(document: dict[str, Any]) -> list[str]:
    """Return the plan as text of at most 80 columns."""
    host, tiers = document["host"], [document[name] for name in _TITLES]
    table = [
        ("", *_TITLES.values()),
        ("hosts", *(f"{tier['hosts']:,}" for tier in tiers)),
        ("  limited by", *(tier["limit"] if tier["hosts"] > 1 else "-" for tier in tiers)),
        ("cores for nats-server, all hosts", *(f"{tier['server_cores']:,.1f}" for tier in tiers)),
        ("cores for workers, all hosts", *(f"{tier['service_cores']:,.1f}" for tier in tiers)),
        ("workers on each host", *(f"{tier['workers']:,}" for tier in tiers)),
        ("connections on each host", *(f"{tier['connections']:,}" for tier in tiers)),
        ("all can be back after", *(short_duration(max(1, tier["seconds"]), " ") for tier in tiers)),
        ("at the same moment, per host", *(f"{tier['at_once']:,}" for tier in tiers)),
        ("CPU of a login: nats-server, ms", *(f"{tier['cost']['server_ms']:.2f}" for tier in tiers)),
        ("CPU of a login: service, ms", *(f"{tier['cost']['service_ms']:.2f}" for tier in tiers)),
    ]
    return [
        f"{document['devices']:,} devices within {short_duration(document['within_s'], ' ')}: "
        f"{document['logins_per_s']:,} logins per second.",
        f"Each host: {host['cores']} cores, {host['memory'] / _GIGABYTE:.0f} GB, {host['open_files']:,} open files.",
        "",
        *(f"{name:<34}{first:>16}{second:>16}" for name, first, second in table),
        "",
        *_assumptions(document),
        "",
        *_checks(document),
    ]


def _assumptions(document: dict[str, Any]) -> list[str]:
    assumed, kilobytes = document["assumptions"], document["edges"]["cost"]["connection_kb"]
    return [
        "Assumptions:",
        "* Waiting nodes return to the edges, members to the fleet servers. If only one",
        "  of both happens, only its column applies. Add hosts that may fail.",
        "* Devices spread their logins evenly over the time. If more than the number in",
        f"  the table begin at the same moment, some wait longer than {assumed['timeout']:g} s and try again.",
        f"* Logins use {assumed['utilization']:.0%} of each core; workers run beside their nats-server.",
        f"* A connection takes {kilobytes:.0f} kB of nats-server, and connections at most",
        f"  {assumed['memory_share']:.0%} of the memory. nats-server needs {RESERVED_FILES} further open files.",
        "* Full TLS handshakes, xkey on, a known provisioning token, certificates that",
        "  the service has not seen, one ECDSA certificate for each server.",
        "* Messages after the login, provisioners and the network are not included.",
    ]


def _checks(document: dict[str, Any]) -> list[str]:
    shown = [
        f"{storm['devices']:>9,}{storm['predicted']:>11.1f} s{storm['measured']:>10.1f} s{storm['cpu_ratio']:>10.2f}"
        f"{storm['failed']:>14,}" + (f"   {storm['missing']:,} never got in" if storm["missing"] else "")
        for storm in document["storms"]
    ]
    busy = ["A storm took much longer than predicted: other programs use this machine."] if document["busy"] else []
    return [
        "Measured storms, servers and clients on the same cores:",
        f"{'devices':>9}{'predicted':>13}{'measured':>12}{'CPU ratio':>10}{'tried again':>14}",
        *shown,
        *busy,
    ]
