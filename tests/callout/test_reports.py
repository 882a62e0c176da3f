"""Counting connections with a nats-server configuration that does not permit it."""

from __future__ import annotations

import asyncio
import re
from pathlib import Path

import pytest

from broker_auth.sandbox.natsserver import free_port
from tests.callout.deployment import FleetDeployment
from tests.cli.running import run

pytestmark = pytest.mark.e2e


def older(directory: Path) -> FleetDeployment:
    """Return a broker shared by nodes and provisioners whose configuration does not permit counting."""
    deployment = FleetDeployment(directory)
    deployment.write_config(f"plugin.broker_auth.broker.east.server.websocket.listen = 127.0.0.1:{free_port()}")
    deployment.render_again()
    _forget_reports(directory / "east.conf")
    return deployment


async def test_service_works_with_a_configuration_of_an_older_version(tmp_path: Path) -> None:
    """The service logs once what is missing, and serves the broker."""
    deployment = older(tmp_path)
    with deployment.running(), deployment.service() as service:
        service.wait_for_log("broker east: does not let the service count connections")
        for client in (await deployment.connect(), await deployment.provisioner()):
            await client.close()
        mark = service.mark()
        await asyncio.to_thread(deployment.servers["east"].restart)
        service.wait_for_log("broker east: subscribed again", since=mark)
        await (await deployment.connect()).close()
        assert sum("count connections" in line for line in service.log()) == 1
        assert not any("permissions violation" in line.lower() for line in service.log())


def test_configuration_of_an_older_version_is_warned_of(tmp_path: Path) -> None:
    deployment = older(tmp_path)
    with deployment.running():
        checked = run("config", "check", deployment.config, "--live", "--json")
    assert checked.code == 0
    assert any("may not count connections" in warning["problem"] for warning in checked.json["warnings"])


def _forget_reports(config: Path) -> None:
    """Remove the permissions for connection counts from a rendered configuration."""
    text, permissions = re.subn(r', "\$SYS\.ACCOUNT\.\w+\.SERVER\.CONNS"', "", config.read_text())
    text, bridged = re.subn(r".*SERVER\.CONNS.*\n", "", text)
    assert (permissions, bridged) == (2, 4)
    config.write_text(text)
