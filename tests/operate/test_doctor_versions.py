"""Versions of nats-server and their known defects."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from broker_auth.natsio.versions import OLDEST, Version, known_defects, parse_version, unsafe
from broker_auth.operate.doctor.callout import _latency
from broker_auth.operate.doctor.finding import BrokerFindings, Context, Severity
from broker_auth.operate.doctor.listeners import examine_listeners, examine_version
from tests import servers
from tests.operate.deployment import EdgeDeployment


@pytest.mark.parametrize(
    ("version", "defects"),
    [
        ((2, 10, 25), 5),
        ((2, 10, 27), 4),
        ((2, 11, 0), 6),
        ((2, 11, 11), 5),
        ((2, 11, 15), 1),
        ((2, 11, 16), 0),
        ((2, 12, 5), 5),
        ((2, 12, 6), 1),
        ((2, 12, 7), 0),
        ((2, 14, 0), 0),
        ((2, 15, 1), 0),
    ],
)
def test_known_defects_of_versions(version: Version, defects: int) -> None:
    assert len(known_defects(version)) == defects


def test_tested_versions_have_no_breaking_defect() -> None:
    assert [unsafe(version) for version in servers.VERSIONS] == [""] * len(servers.VERSIONS)
    assert parse_version(servers.OLDEST) == OLDEST
    assert "CVE-2026-33249" in unsafe(servers.BROKEN)
    assert unsafe("2.12.6") == "", "no rendering sets no_auth_user"


def test_breaking_defect_is_an_error() -> None:
    findings = BrokerFindings()
    for version in ("2.12.5", "2.12.6"):
        examine_version(version, findings)
    severities = {item.what.rpartition("(")[2].rstrip(")"): item.severity for item in findings.items}
    assert severities["CVE-2026-33249"] is Severity.ERROR
    assert severities["CVE-2026-58253"] is Severity.WARNING


@pytest.mark.parametrize(
    ("text", "version"),
    [("2.15.1", (2, 15, 1)), ("v2.12.0-RC.1", (2, 12, 0)), ("", None), ("nightly", None), ("2.15", None)],
)
def test_versions_are_parsed(text: str, version: Version | None) -> None:
    assert parse_version(text) == version


@pytest.mark.parametrize(
    ("seconds", "severity"),
    [(0.01, Severity.OK), (0.5, Severity.WARNING), (1.99, Severity.WARNING), (2.0, Severity.ERROR)],
)
def test_latency_is_compared_with_client_timeouts(seconds: float, severity: Severity) -> None:
    findings = BrokerFindings()
    _latency(seconds, findings)
    assert [(item.code, item.severity) for item in findings.items] == [("callout.latency", severity)]


@pytest.mark.parametrize(
    ("greeting", "codes"),
    [
        (b'INFO {"version":"2.10.20"}\r\n', {"server.version", "server.defect", "listener.nonce", "listener.plain"}),
        (b'INFO {"version":"2.12.5","nonce":"x"}\r\n', {"server.version", "server.defect", "listener.plain"}),
        (
            b'INFO {"version":"2.15.1","nonce":"x","connect_urls":["10.0.0.1:4222","10.0.0.2:4222"]}\r\n',
            {"listener.advertises", "listener.plain"},
        ),
        (b"HTTP/1.1 400 Bad Request\r\n", {"listener.unreachable"}),
        (b"INFO {\r\n", {"listener.unreachable"}),
        (b"", {"listener.unreachable"}),
    ],
)
async def test_information_sent_before_tls_is_checked(greeting: bytes, codes: set[str], tmp_path: Path) -> None:
    deployment = EdgeDeployment(tmp_path)

    async def tell(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(greeting)
        writer.close()

    server = await asyncio.start_server(tell, "127.0.0.1", deployment.ports["fleet"])
    async with server:
        findings = await examine_listeners(Context(access=deployment.access()), deployment.settings().brokers[0])
    assert {item.code for item in findings if item.severity is not Severity.OK} == codes
