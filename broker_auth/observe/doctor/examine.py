"""All checks, in the order an operator would make them: files, doors, callout, accounts, streams."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Iterable
from typing import Final

from broker_auth.observe.doctor.accounts import examine_accounts
from broker_auth.observe.doctor.callout import examine_callout
from broker_auth.observe.doctor.deployment import (
    examine_chain_issuers,
    examine_configuration,
    examine_files,
    examine_isolation,
    examine_streams,
)
from broker_auth.observe.doctor.finding import Case, Finding, Severity
from broker_auth.observe.doctor.listeners import examine_listeners
from broker_auth.settings.problems import Report

_ORDER: Final = {Severity.ERROR: 0, Severity.WARNING: 1, Severity.SKIPPED: 2, Severity.OK: 3}
NO_SERVICE: Final = frozenset({"callout.no_answer", "callout.user", "listener.unreachable", "callout.admits_anybody"})


async def examine(case: Case, report: Report) -> tuple[Finding, ...]:
    """Every finding, the worst first.

    Args:
        case: what to look at; its settings are those of ``report``.
        report: what reading the configuration found.
    """
    findings = [*examine_configuration(report), *await asyncio.to_thread(examine_files, case)]
    findings += await asyncio.to_thread(examine_chain_issuers, case)
    brokers = case.settings.brokers
    doors, callout = await asyncio.gather(
        _all(examine_listeners(case, broker) for broker in brokers),
        _all(examine_callout(case, broker) for broker in brokers),
    )
    findings += [*doors, *callout]
    # Without a service nobody gets in but the break-glass user, and each attempt would wait for nothing.
    dead = {item.broker for item in callout if item.code in NO_SERVICE}
    inside = [broker for broker in brokers if case.access.break_glass_of(broker) is not None or broker.name not in dead]
    findings += await _all(examine_accounts(case, broker) for broker in inside)
    if not dead:
        findings += await examine_streams(case)
        findings += await examine_isolation(case)
    else:
        findings.append(
            Finding(
                severity=Severity.SKIPPED,
                code="streams",
                what="streams and isolation were not looked at, because no service lets anybody in",
                remedy="mend what is named above, and run it again",
            )
        )
    return in_order(findings)


def in_order(findings: Iterable[Finding]) -> tuple[Finding, ...]:
    """The worst first."""
    return tuple(sorted(findings, key=lambda item: _ORDER[item.severity]))


def healthy(findings: Iterable[Finding]) -> bool:
    """Whether nothing is broken or open."""
    return all(item.severity is not Severity.ERROR for item in findings)


async def _all(groups: Iterable[Awaitable[list[Finding]]]) -> list[Finding]:
    """The findings about all brokers, looked at side by side, in the configuration's order."""
    return [item for group in await asyncio.gather(*groups) for item in group]
