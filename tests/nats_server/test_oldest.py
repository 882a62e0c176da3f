"""The essential flow on the oldest supported nats-server, and warnings about unsupported ones."""

from __future__ import annotations

import logging
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from broker_auth.demo.attempts import attempts, try_all
from broker_auth.demo.isolation import show_isolation
from broker_auth.deploy.natsbinary import BINARY_VARIABLE
from broker_auth.operate.doctor.finding import Context, Severity
from broker_auth.operate.doctor.listeners import examine_listeners
from broker_auth.sandbox.sandbox import Sandbox
from tests import servers
from tests.nats_server.wire import Wire
from tests.operate.deployment import EdgeDeployment

pytestmark = pytest.mark.e2e


async def test_system_works_on_the_oldest_supported_version(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.ERROR, logger="asyncio")  # asyncio warns about every client that TLS refuses
    monkeypatch.setenv(BINARY_VARIABLE, str(servers.server(servers.OLDEST)))
    async with Sandbox(tmp_path / "sandbox") as sandbox:
        for url in (sandbox.fleet_url, sandbox.node_url):
            wire = await Wire.open(urlsplit(url).port or 0)
            await wire.close()
            assert wire.info["version"] == servers.OLDEST
        await sandbox.apply_streams()
        outcomes = await try_all(sandbox, attempts(sandbox)) + await show_isolation(sandbox)
    assert outcomes
    assert [(row.what, row.happened) for row in outcomes] == [(row.what, row.expected) for row in outcomes]


async def test_service_and_doctor_warn_of_an_unsafe_version(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(BINARY_VARIABLE, str(servers.server(servers.BROKEN)))
    deployment = EdgeDeployment(tmp_path)
    with deployment.running(linked=False):
        assert deployment.service
        deployment.service.wait_for_log(f"broker fleet: upgrade nats-server '{servers.BROKEN}'")
        findings = await examine_listeners(Context(access=deployment.access()), deployment.settings().brokers[0])
    errors = [item.what for item in findings if item.code == "server.defect" and item.severity is Severity.ERROR]
    assert any("CVE-2026-33249" in what for what in errors)
