"""All checks, in the order in which an operator would make them: files, listeners, callout, accounts, streams."""

from __future__ import annotations

import asyncio
import dataclasses
from collections import Counter
from collections.abc import Awaitable, Callable, Container, Iterable, Sequence
from typing import Final
from urllib.parse import urlsplit

from broker_auth.operate.doctor.accounts import examine_accounts, examine_unlisted
from broker_auth.operate.doctor.callout import examine_callout
from broker_auth.operate.doctor.causes import reduced
from broker_auth.operate.doctor.codes import FindingCode
from broker_auth.operate.doctor.deployment import (
    examine_chain_issuers,
    examine_configuration,
    examine_files,
    examine_isolation,
    examine_streams,
)
from broker_auth.operate.doctor.finding import Context, Finding, Severity
from broker_auth.operate.doctor.listeners import examine_listeners
from broker_auth.operate.doctor.service import examine_service
from broker_auth.operate.doctor.static import examine_static
from broker_auth.operate.logins import AccessError
from broker_auth.operate.streams.change import streams_broker
from broker_auth.settings.model import BrokerSettings
from broker_auth.settings.problems import ConfigurationReport

# Codes of missing things, and the codes that report them as present.
_MISSING: Final = {
    FindingCode.CALLOUT_NOBODY: frozenset({FindingCode.CALLOUT_REPLICAS, FindingCode.CALLOUT_ALONE}),
    FindingCode.LEAF_DOWN: frozenset({FindingCode.LEAF_LINK}),
}
_ORDER: Final = {Severity.ERROR: 0, Severity.WARNING: 1, Severity.SKIPPED: 2, Severity.OK: 3}
_FIRST: Final = frozenset({FindingCode.CLOCK_SKEW})  # differing clocks cause many other problems
NO_SERVICE: Final = frozenset(
    {
        FindingCode.CALLOUT_NO_ANSWER,
        FindingCode.CALLOUT_USER,
        FindingCode.LISTENER_UNREACHABLE,
        FindingCode.CALLOUT_ADMITS_ANYBODY,
        FindingCode.STATIC_MEMBER,
        FindingCode.STATIC_ASKS,
    }
)


async def examine(context: Context, report: ConfigurationReport) -> tuple[Finding, ...]:
    """Return all findings, worst first.

    Args:
        context: what to examine; its settings are those of ``report``.
        report: the result of loading the configuration.
    """
    findings = [*examine_configuration(report), *await asyncio.to_thread(examine_files, context)]
    findings += await asyncio.to_thread(examine_service, context)
    findings += await asyncio.to_thread(examine_chain_issuers, context)
    servers = [server for broker in context.settings.brokers for server in servers_of(broker)]
    listeners, callout = await asyncio.gather(
        _all(servers, lambda server: examine_listeners(context, server)),
        _all(servers, lambda server: _authorization(context, server)),
    )
    findings += dict.fromkeys([*listeners, *callout])  # both may report that a broker is unreachable
    # Without a service only the break-glass user can log in, and other attempts would only wait for a timeout.
    broken = [item for item in callout if item.code in NO_SERVICE and item.severity is Severity.ERROR]
    dead = {(item.broker, item.server) for item in broken}
    inside = [one for one in servers if context.access.break_glass_of(one) is not None or _named(one) not in dead]
    findings += of_clusters(await _accounts(context, inside))
    if _streams_are_served(context, servers, dead):
        findings += await examine_streams(context)
        findings += await examine_isolation(context)
    else:
        findings.append(
            Finding(
                severity=Severity.SKIPPED,
                code=FindingCode.STREAMS,
                what="streams and isolation were not checked, because nobody can log in to the fleet",
                remedy="fix the problems above, and run the doctor again",
            )
        )
    return in_order(reduced(findings, context.settings))


async def _accounts(context: Context, servers: Sequence[BrokerSettings]) -> list[Finding]:
    """Examine the system accounts of these servers, then those of further servers of their clusters."""
    seen: set[str] = set()
    findings = await _all(servers, lambda server: examine_accounts(context, server, seen))
    for broker in context.settings.brokers:
        urls = tuple(server.urls[0] for server in servers if server.name == broker.name)
        if urls:
            findings += await examine_unlisted(context, dataclasses.replace(broker, urls=urls), seen)
    return findings


async def _authorization(context: Context, server: BrokerSettings) -> list[Finding]:
    served = context.settings.zone(server.zone).served
    return await (examine_callout(context, server) if served else examine_static(context, server))


def in_order(findings: Iterable[Finding]) -> tuple[Finding, ...]:
    """Return the findings, worst first; among equals clocks come first."""
    return tuple(sorted(findings, key=lambda item: (_ORDER[item.severity], item.code not in _FIRST)))


def healthy(findings: Iterable[Finding]) -> bool:
    """Return whether there is no error."""
    return all(item.severity is not Severity.ERROR for item in findings)


def servers_of(broker: BrokerSettings) -> list[BrokerSettings]:
    """Return each server of a cluster as a separate broker with one address."""
    return [dataclasses.replace(broker, urls=(url,)) for url in broker.urls]


def of_clusters(findings: list[Finding]) -> list[Finding]:
    """Return the findings without those that another server of the same cluster makes obsolete."""
    there = {(item.broker, _MISSING[item.code]) for item in findings if item.code in _MISSING}
    there = {(broker, present) for broker, present in there if any(_is(item, broker, present) for item in findings)}
    alone = Counter(item.broker for item in findings if item.code == FindingCode.CALLOUT_ALONE)
    return [
        item
        for item in findings
        if (item.broker, _MISSING.get(item.code, frozenset())) not in there
        and not (
            item.code == FindingCode.CALLOUT_ALONE and (alone[item.broker] > 1 or _is_anywhere(findings, item.broker))
        )
    ]


def _is(item: Finding, broker: str | None, codes: frozenset[str]) -> bool:
    return item.broker == broker and item.code in codes


def _is_anywhere(findings: Iterable[Finding], broker: str | None) -> bool:
    return any(_is(item, broker, frozenset({FindingCode.CALLOUT_REPLICAS})) for item in findings)


def _named(server: BrokerSettings) -> tuple[str, str | None]:
    """Return the broker and the server in findings about a server."""
    return server.name, urlsplit(server.urls[0]).netloc


def _streams_are_served(
    context: Context, servers: Iterable[BrokerSettings], dead: Container[tuple[str | None, str | None]]
) -> bool:
    """Return whether clients can log in at a server of the broker that has the streams."""
    try:
        name = streams_broker(context.access).name
    except AccessError:
        return True  # the check of the streams reports it
    return any(one.name == name and _named(one) not in dead for one in servers)


async def _all(
    servers: Sequence[BrokerSettings], look: Callable[[BrokerSettings], Awaitable[list[Finding]]]
) -> list[Finding]:
    """Examine all servers concurrently; return their findings in the configuration's order, each with its server."""
    groups = await asyncio.gather(*(look(server) for server in servers))
    return [
        dataclasses.replace(item, server=_named(server)[1])
        for server, group in zip(servers, groups, strict=True)
        for item in group
    ]
