"""``config check --live``: checks whether the configured brokers can be served.

Logs in with the service's own user at every address, like the service, and looks at what each listener does about
client certificates. The doctor makes all other checks.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
from dataclasses import dataclass
from typing import Final

from broker_auth.natsio.subjects import CALLOUT_ACCOUNT
from broker_auth.operate.access import Access
from broker_auth.operate.doctor.callout import examine_counting
from broker_auth.operate.doctor.codes import FindingCode
from broker_auth.operate.doctor.finding import BrokerFindings, Finding, Severity
from broker_auth.operate.doctor.listeners import RENDER, examine_tls_mode, examine_version
from broker_auth.operate.doctor.probe import ProbeTarget, Unreachable, look_at_tls
from broker_auth.operate.doctor.static import examine_member
from broker_auth.operate.logins import AccessError, Login, connect
from broker_auth.settings.model import BrokerSettings, ClientCertificates
from broker_auth.settings.problems import ConfigurationReport, Problem

_TLS: Final = ("ssl", "tls", "certificate")  # common words of TLS errors of OpenSSL and nats-py
_REFUSED: Final = "authorization violation"
_SILENT: Final = "no answer within"


@dataclass(frozen=True, slots=True, kw_only=True)
class ListenerMode:
    """The treatment of client certificates at an address: ``seen`` is None where it could not be seen."""

    broker: BrokerSettings
    url: str
    seen: ClientCertificates | None


async def check_live(
    report: ConfigurationReport, access: Access
) -> tuple[ConfigurationReport, tuple[ListenerMode, ...]]:
    """Return the report with the problems of the brokers added, and what was seen of their listeners.

    Args:
        report: the result of loading the configuration, without problems.
        access: access to the brokers; its settings are those of ``report``.
    """
    brokers = access.settings.brokers
    groups = await asyncio.gather(*(_broker(access, broker) for broker in brokers))
    listeners = await asyncio.gather(*(_listener(broker, url) for broker in brokers for url in broker.urls))
    file = str(access.settings.path)
    findings = [item for group in (*groups, *(mismatches for _, mismatches in listeners)) for item in group]
    checked = dataclasses.replace(
        report,
        problems=(*report.problems, *_problems(file, findings, Severity.ERROR)),
        warnings=(*report.warnings, *_problems(file, findings, Severity.WARNING, Severity.SKIPPED)),
    )
    return checked, tuple(mode for mode, _ in listeners)


async def _listener(broker: BrokerSettings, url: str) -> tuple[ListenerMode, list[Finding]]:
    """Look at a listener; the login reports that it is unreachable, and the doctor that it needs no TLS."""
    findings, target, seen = BrokerFindings(broker), ProbeTarget(url), None
    if not target.websocket:
        with contextlib.suppress(Unreachable):
            facts = await look_at_tls(target)
            if facts.readable:
                seen = facts.client_certificates
                examine_tls_mode(facts, broker, findings)
    mismatches = [dataclasses.replace(item, what=f"{url}: {item.what}") for item in findings.items]
    return ListenerMode(broker=broker, url=url, seen=seen), mismatches


async def _broker(access: Access, broker: BrokerSettings) -> list[Finding]:
    findings = BrokerFindings(broker)
    if not access.settings.zone(broker.zone).served:
        for url in broker.urls:
            await examine_member(access, broker, url, findings)
        return list(dict.fromkeys(findings.items))
    if access.settings.zone(broker.zone).nkey_seed is None:
        remedy = "run this where the workers of its zone run"
        findings.skipped(
            FindingCode.CALLOUT, f"not checked: the seed of zone {broker.zone} is not available here", remedy
        )
        return findings.items
    for url in broker.urls:
        await _address(access, broker, url, findings)
    return list(dict.fromkeys(findings.items))


async def _address(access: Access, broker: BrokerSettings, url: str, findings: BrokerFindings) -> None:
    login = Login(what="the service's nkey user", nkey_seed=access.settings.zone(broker.zone).nkey_seed)
    try:
        client = await connect(url, login, access.tls(broker))
    except AccessError as error:
        _failed(url, str(error), findings)
        return
    try:
        examine_version(client.server_version, findings)
        if client.account not in ("", CALLOUT_ACCOUNT):  # servers before 2.12 do not report it
            message = f"{url} authenticates the service as an ordinary client (account {client.account})"
            findings.error(
                FindingCode.CALLOUT_USER, message, f"list the nkey of nkey_seed_file in auth_users; {RENDER}"
            )
        else:
            await examine_counting(access.settings, broker, client, findings)
    finally:
        await client.close()


def _failed(url: str, why: str, findings: BrokerFindings) -> None:
    words = why.lower()
    if _REFUSED in words:
        message = f"{url} refuses the service's nkey: {why}"
        findings.error(FindingCode.CALLOUT_USER, message, f"list the nkey of nkey_seed_file in auth_users; {RENDER}")
    elif _SILENT in words:  # a broker that does not know the nkey uses the callout for it, and no service may run
        message = f"{url} does not answer the login: {why}"
        findings.error(
            FindingCode.CALLOUT_USER,
            message,
            f"correct the address, or list the nkey of nkey_seed_file there; {RENDER}",
        )
    elif any(word in words for word in _TLS):
        remedy = "correct tls.ca, tls.certificate and tls.key, or the names in the server's certificate"
        findings.error(FindingCode.LISTENER_HANDSHAKE, f"TLS with {url} fails: {why}", remedy)
    else:
        remedy = "start nats-server there, or correct the address"
        findings.error(FindingCode.LISTENER_UNREACHABLE, f"{url} does not answer: {why}", remedy)


def _problems(file: str, findings: list[Finding], *severities: Severity) -> list[Problem]:
    return [
        Problem(
            file=file,
            key=f"plugin.broker_auth.broker.{item.broker}.urls",
            what=item.what,
            remedy=item.remedy,
        )
        for item in findings
        if item.severity in severities
    ]
