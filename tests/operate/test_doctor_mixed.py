"""The doctor, reports and ``config check --live`` at a listener that verifies a client certificate if one is given."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from broker_auth.deploy.plan import Topology
from broker_auth.operate.access import Access
from broker_auth.operate.doctor.examine import examine
from broker_auth.operate.doctor.finding import Context, Finding, Severity
from broker_auth.operate.doctor.live import check_live
from broker_auth.sandbox.sandbox import Sandbox
from broker_auth.secret import Secret
from broker_auth.settings.load import check
from broker_auth.settings.model import ClientCertificates

pytestmark = [pytest.mark.e2e, pytest.mark.mixed_server, pytest.mark.asyncio(loop_scope="module")]
ROLE = "plugin.broker_auth.broker.fleet.role = "


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def sandbox(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Sandbox]:
    """Yield a running deployment of the mixed topology, with its streams."""
    async with Sandbox(tmp_path_factory.mktemp("mixed") / "sandbox", Topology.MIXED) as running:
        await running.apply_streams()
        yield running


def of(findings: tuple[Finding, ...], severity: Severity) -> dict[str, str]:
    return {item.code: item.what for item in findings if item.severity is severity}


async def test_sound_deployment_has_no_error_and_its_mode_is_named(sandbox: Sandbox) -> None:
    token = Secret(sandbox.node_issuer.node_token())
    access = Access(settings=sandbox.settings)
    report = check(sandbox.deployment.configuration, {}, serving=True)
    findings = await examine(Context(access=access, provisioning_token=token), report)
    assert of(findings, Severity.ERROR) == {}
    fine = of(findings, Severity.OK)
    assert fine["listener.tls_mode"] == "the listener accepts a client certificate, and clients without one"
    assert {"listener.ca", "listener.closed", "callout.admits"} <= fine.keys()
    checked, (listener,) = await check_live(report, access)
    assert (checked.problems, listener.seen) == ((), ClientCertificates.OPTIONAL)


@pytest.mark.parametrize(
    ("role", "reason"),
    [("fleet", "so strangers reach the fleet's server"), ("single", "while its role single is for clients without")],
)
async def test_another_role_makes_the_same_listener_an_error(sandbox: Sandbox, role: str, reason: str) -> None:
    configuration = sandbox.deployment.configuration
    kept = configuration.read_text()
    configuration.write_text(kept.replace(f"{ROLE}mixed", f"{ROLE}{role}"))
    try:
        report = check(configuration, {}, serving=True)
        assert report.settings
        checked, _ = await check_live(report, Access(settings=report.settings))
    finally:
        configuration.write_text(kept)
    (problem,) = checked.problems
    assert reason in problem.what
