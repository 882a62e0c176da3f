"""The doctor and ``config check --live`` at a static fleet: as it should be, and three faults."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from broker_auth.operate.access import Access
from broker_auth.operate.doctor.examine import examine
from broker_auth.operate.doctor.finding import Context, Finding, Severity
from broker_auth.operate.doctor.live import check_live
from broker_auth.operate.doctor.static import examine_static
from broker_auth.sandbox.sandbox import Sandbox
from broker_auth.secret import Secret
from broker_auth.settings.load import check
from broker_auth.settings.model import FleetAuth, Settings
from tests.e2e.test_static_fleet import NO_TOKENS

pytestmark = [pytest.mark.e2e, pytest.mark.asyncio(loop_scope="module")]
AUTH = "plugin.broker_auth.fleet.auth"


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def sandbox(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Sandbox]:
    """Yield a static fleet and its edge."""
    directory = tmp_path_factory.mktemp("static") / "sandbox"
    async with Sandbox(directory, fleet_auth=FleetAuth.STATIC, changes=NO_TOKENS) as running:
        yield running


def access_to(sandbox: Sandbox, settings: Settings) -> Access:
    seeds = [sandbox.directory / "keys" / "break-glass.seed", sandbox.directory / "keys" / "edge" / "break-glass.seed"]
    return Access(settings=settings, break_glass=tuple(Secret(seed.read_text().strip()) for seed in seeds))


def errors(findings: list[Finding]) -> list[tuple[str, str | None]]:
    return [(item.code, item.broker) for item in findings if item.severity is Severity.ERROR]


async def test_sound_static_fleet_has_no_error(sandbox: Sandbox) -> None:
    await sandbox.apply_streams()
    report = check(sandbox.deployment.configuration, {})
    matches = await examine(Context(access=access_to(sandbox, sandbox.settings)), report)
    assert errors(list(matches)) == []
    about_fleet = {item.code for item in matches if item.broker == "fleet" and item.severity is Severity.OK}
    assert about_fleet >= {"static.member", "static.password", "break_glass.login", "listener.closed", "leaf.link"}
    assert not {item.code for item in matches if item.broker == "fleet" and item.code.startswith("callout")}
    warned = [item.what for item in matches if item.code == "configuration"]
    assert len(warned) == 1
    assert AUTH in warned[0]


async def test_password_that_was_not_rendered_is_named(sandbox: Sandbox) -> None:
    password = sandbox.directory / "keys" / "system_password"
    kept = password.read_text()
    password.write_text("a rotated password")
    try:
        settings = check(sandbox.deployment.configuration, {}).settings
        assert settings is not None
        matches = await examine_static(Context(access=access_to(sandbox, settings)), settings.brokers[0])
    finally:
        password.write_text(kept)
    assert errors(matches) == [("static.password", "fleet")]
    assert "a rotated password" not in str(matches)


async def test_server_that_still_asks_a_service_is_named(tmp_path: Path) -> None:
    async with Sandbox(tmp_path / "sandbox", changes=NO_TOKENS) as sandbox:
        configuration = sandbox.deployment.configuration
        lines = [line for line in configuration.read_text().splitlines() if "provisioner.identities =" not in line]
        configuration.write_text("\n".join([*lines, f"{AUTH} = static", ""]))
        report = check(configuration, {})
        assert report.settings is not None, report.problems
        access = access_to(sandbox, report.settings)
        matches = await examine_static(Context(access=access), report.settings.brokers[0])
        assert errors(matches) == [("static.asks", "fleet")]
        live, _ = await check_live(report, access)
        assert [problem.key for problem in live.problems] == ["plugin.broker_auth.broker.fleet.urls"]


async def test_server_that_lets_no_member_in_is_named(sandbox: Sandbox) -> None:
    certificate, key = sandbox.foreign_pair("stranger")
    stranger = Access(settings=sandbox.settings, certificate=certificate, key=key)
    matches = await examine_static(Context(access=stranger), sandbox.settings.brokers[0])
    assert errors(matches) == [("static.member", "fleet")]
