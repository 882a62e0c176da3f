"""Checks of the doctor that need no deployment, or a single broker that misbehaves."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from broker_auth.deploy.render import render
from broker_auth.natsio.account_connections import connections_subject
from broker_auth.operate.access import Access
from broker_auth.operate.doctor import service
from broker_auth.operate.doctor.callout import examine_callout
from broker_auth.operate.doctor.finding import BrokerFindings, Context, Finding, Severity
from broker_auth.operate.doctor.listeners import (
    _authorities,
    _certificate,
    examine_listeners,
    examine_tls_mode,
    warn_of_expiry,
)
from broker_auth.operate.doctor.probe import TlsFacts
from broker_auth.operate.doctor.service import examine_service
from broker_auth.sandbox.natsserver import NatsServer, free_port
from broker_auth.settings.model import BrokerSettings, ClientCertificates, Role, Settings
from tests.builders.clock import NOW
from tests.deploy.responder import Responder
from tests.deploy.shapes import Shape, build
from tests.operate.deployment import EdgeDeployment

ERROR, WARNING, SKIPPED, OK = Severity.ERROR, Severity.WARNING, Severity.SKIPPED, Severity.OK
Result = list[tuple[str, Severity]]


def results(findings: list[Finding]) -> Result:
    return [(item.code, item.severity) for item in findings]


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory) -> Settings:
    return EdgeDeployment(tmp_path_factory.mktemp("checked")).settings()


def context_of(settings: Settings) -> Context:
    return Context(access=Access(settings=settings), now=lambda: NOW)


@pytest.mark.parametrize("listener", ["listener", "leaf", "websocket"])
@pytest.mark.parametrize(
    ("days", "end", "severity", "words"),
    [
        (-1.5, "expired", ERROR, "expired 1 day ago"),
        (29, "expires", WARNING, "expires in 29 days"),
        (31, "expiry", OK, "is valid until"),
    ],
)
def test_certificate_expiry_of_each_listener(
    settings: Settings, listener: str, days: float, end: str, severity: Severity, words: str
) -> None:
    findings = BrokerFindings()
    ends = datetime.fromtimestamp(NOW, UTC) + timedelta(days=days)
    warn_of_expiry(findings, listener, "the certificate", ends, context_of(settings))
    codes = {
        "expired": {"listener.certificate_expired", "leaf.certificate_expired", "websocket.certificate_expired"},
        "expires": {"listener.certificate_expires", "leaf.certificate_expires", "websocket.certificate_expires"},
        "expiry": {"listener.certificate_expiry", "leaf.certificate_expiry", "websocket.certificate_expiry"},
    }
    assert results(findings.items) == [(f"{listener}.certificate_{end}", severity)]
    assert findings.items[0].code in codes[end]
    assert words in findings.items[0].what


def facts(*, readable: bool = True, certificate: bytes | None = None) -> TlsFacts:
    required = ClientCertificates.REQUIRED
    return TlsFacts(client_certificates=required, readable=readable, certificate=certificate, authorities=(b"CN=x",))


READINGS: dict[str, tuple[Callable[[Settings, BrokerFindings], None], Result]] = {
    "TLS 1.3 only": (
        lambda settings, findings: examine_tls_mode(facts(readable=False), settings.brokers[0], findings),
        [("listener.tls_mode", SKIPPED)],
    ),
    "unreadable certificate": (
        lambda settings, findings: _certificate(facts(certificate=b"junk"), context_of(settings), findings),
        [("listener.certificate_unreadable", WARNING)],
    ),
    "no client_ca": (
        lambda settings, findings: _authorities(
            facts(), context_of(dataclasses.replace(settings, client_ca=())), findings
        ),
        [("client_ca.unset", WARNING)],
    ),
}


@pytest.mark.parametrize(("read", "expected"), READINGS.values(), ids=READINGS)
def test_tls_of_a_listener(
    settings: Settings, read: Callable[[Settings, BrokerFindings], None], expected: Result
) -> None:
    findings = BrokerFindings()
    read(settings, findings)
    assert results(findings.items) == expected


REQUIRED, OPTIONAL, NONE = ClientCertificates.REQUIRED, ClientCertificates.OPTIONAL, ClientCertificates.NONE


@pytest.mark.parametrize(
    ("role", "seen", "expected"),
    [
        *((role, role.client_certificates, ("listener.tls_mode", Severity.OK)) for role in Role),
        (Role.FLEET, OPTIONAL, ("listener.certificate_optional", Severity.ERROR)),
        (Role.FLEET, NONE, ("listener.asks_no_certificate", Severity.ERROR)),
        (Role.MIXED, REQUIRED, ("listener.asks_certificate", Severity.ERROR)),
        (Role.MIXED, NONE, ("listener.asks_no_certificate", Severity.ERROR)),
        (Role.EDGE, REQUIRED, ("listener.asks_certificate", Severity.ERROR)),
        (Role.EDGE, OPTIONAL, ("listener.certificate_optional", Severity.ERROR)),
        (Role.GATE, OPTIONAL, ("listener.certificate_optional", Severity.ERROR)),
        (Role.SINGLE, OPTIONAL, ("listener.certificate_optional", Severity.ERROR)),
    ],
)
def test_client_certificates_are_compared_with_the_role(
    settings: Settings, role: Role, seen: ClientCertificates, expected: tuple[str, Severity]
) -> None:
    broker = dataclasses.replace(settings.brokers[0], role=role)
    findings = BrokerFindings()
    examine_tls_mode(dataclasses.replace(facts(), client_certificates=seen), broker, findings)
    assert results(findings.items) == [expected]


async def test_websocket_addresses_are_skipped(settings: Settings) -> None:
    broker = dataclasses.replace(settings.brokers[1], urls=("wss://127.0.0.1:4443",))
    assert results(await examine_listeners(context_of(settings), broker)) == [("listener.websocket", SKIPPED)]
    assert results(await examine_callout(context_of(settings), broker)) == [("callout", SKIPPED)]


def test_service_that_does_not_answer_is_a_warning(settings: Settings) -> None:
    without_audit = dataclasses.replace(settings, metrics_listen=f"127.0.0.1:{free_port()}")
    assert results(examine_service(context_of(without_audit))) == [("service.health", WARNING)]


def test_full_disk_of_an_audit_file_is_an_error(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    assert results(examine_service(context_of(settings))) == []
    monkeypatch.setattr(service, "_LEAST_FREE", 2**80)
    findings = examine_service(context_of(settings))
    assert results(findings) == [("audit.file", ERROR)] * len(settings.audit_files)
    assert [item.file for item in findings] == list(settings.audit_files)


# --- Brokers that misbehave


async def asked(shape: Shape, broker: BrokerSettings) -> list[Finding]:
    return await examine_callout(Context(access=Access(settings=shape.settings)), broker)


@pytest.mark.e2e
async def test_service_that_admits_anybody_is_an_error(tmp_path: Path) -> None:
    shape = build(tmp_path, "single")
    broker = shape.settings.brokers[0]
    config = tmp_path / "single.conf"
    config.write_text(render(shape.settings, broker))
    responder = Responder(shape.settings, lambda _: shape.settings.accounts.fleet)
    with NatsServer(config):
        await responder.serve(broker.urls[0], shape.tls(None), shape.zone(broker.name))
        findings = await asked(shape, broker)
        await responder.close()
    assert ("callout.admits_anybody", ERROR) in results(findings)
    assert ("callout.rights", OK) in results(findings)


@pytest.mark.e2e
async def test_service_that_may_not_count_connections_is_warned_of(tmp_path: Path) -> None:
    shape = build(tmp_path, "single")
    broker = shape.settings.brokers[0]
    config = tmp_path / "single.conf"
    subject = re.escape(connections_subject(shape.settings.accounts.provisioning))
    text, removed = re.subn(rf', "{subject}"', "", render(shape.settings, broker), count=1)
    assert removed
    config.write_text(text)
    with NatsServer(config):
        findings = await asked(shape, broker)
    assert ("callout.no_count", WARNING) in results(findings)
