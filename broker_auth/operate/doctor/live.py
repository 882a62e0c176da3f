"""``config check --live``: whether the brokers that a configuration names can be served with it.

The service's own user logs in, at every address, as the service would. Nobody else is tried, and nothing is sent
but the login: for everything else there is the doctor.
"""

from __future__ import annotations

import asyncio
import dataclasses
from typing import Final

from broker_auth.natsio.subjects import CALLOUT_ACCOUNT
from broker_auth.operate.access import Access, AccessError, Login, connect
from broker_auth.operate.doctor.callout import examine_counting
from broker_auth.operate.doctor.finding import Finding, Notes, Severity
from broker_auth.operate.doctor.listeners import RENDER, examine_version
from broker_auth.settings.model import BrokerSettings
from broker_auth.settings.problems import ConfigurationReport, Problem

_TLS: Final = ("ssl", "tls", "certificate")  # what OpenSSL's and nats-py's words about TLS have in common
_REFUSED: Final = "authorization violation"
_SILENT: Final = "no answer within"


async def check_live(report: ConfigurationReport, access: Access) -> ConfigurationReport:
    """Return a report that also holds what is wrong with the brokers.

    Args:
        report: what reading the configuration found; without problems.
        access: how to get into the brokers; its settings are those of ``report``.
    """
    brokers = access.settings.brokers
    found = await asyncio.gather(*(_broker(access, broker) for broker in brokers))
    file = str(access.settings.path)
    findings = [item for group in found for item in group]
    return dataclasses.replace(
        report,
        problems=(*report.problems, *_problems(file, findings, Severity.ERROR)),
        warnings=(*report.warnings, *_problems(file, findings, Severity.WARNING, Severity.SKIPPED)),
    )


async def _broker(access: Access, broker: BrokerSettings) -> list[Finding]:
    notes = Notes(broker)
    if access.settings.zone(broker.zone).nkey_seed is None:
        remedy = "run this where the workers of its zone run"
        notes.skipped("callout", f"not looked at: the seed of zone {broker.zone} is not here", remedy)
        return notes.findings
    for url in broker.urls:
        await _address(access, broker, url, notes)
    return list(dict.fromkeys(notes.findings))


async def _address(access: Access, broker: BrokerSettings, url: str, notes: Notes) -> None:
    login = Login(what="the service's nkey user", nkey_seed=access.settings.zone(broker.zone).nkey_seed)
    try:
        client = await connect(url, login, access.tls(broker))
    except AccessError as error:
        _failed(url, str(error), notes)
        return
    try:
        examine_version(client.server_version, notes)
        if client.account not in ("", CALLOUT_ACCOUNT):  # servers before 2.12 do not say
            said = f"{url} takes the service for an ordinary client, into account {client.account}"
            notes.error("callout.user", said, f"list the nkey of nkey_seed_file in auth_users; {RENDER}")
        else:
            await examine_counting(access.settings, broker, client, notes)
    finally:
        await client.close()


def _failed(url: str, why: str, notes: Notes) -> None:
    words = why.lower()
    if _REFUSED in words:
        said = f"{url} does not let the service's nkey in: {why}"
        notes.error("callout.user", said, f"list the nkey of nkey_seed_file in auth_users; {RENDER}")
    elif _SILENT in words:  # a broker that does not know the nkey asks the service about it, and none may run
        said = f"{url} lets nobody in: {why}"
        notes.error("callout.user", said, f"correct the address, or list the nkey of nkey_seed_file there; {RENDER}")
    elif any(word in words for word in _TLS):
        remedy = "correct tls.ca, tls.certificate and tls.key, or the names in the server's certificate"
        notes.error("listener.handshake", f"TLS with {url} fails: {why}", remedy)
    else:
        remedy = "start nats-server there, or correct the address"
        notes.error("listener.unreachable", f"{url} does not answer: {why}", remedy)


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
