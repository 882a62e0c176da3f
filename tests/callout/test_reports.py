"""Counting connections: what the service does where nats-server's configuration does not let it."""

from __future__ import annotations

import asyncio
import re
from pathlib import Path

import pytest

from broker_auth.sandbox.natsserver import free_port
from tests.callout.deployment import Deployment, Service
from tests.cli.running import run

pytestmark = pytest.mark.e2e


def older(directory: Path) -> Deployment:
    """A broker that nodes and provisioners share, with a configuration that does not let the service count."""
    deployment = Deployment(directory)
    deployment.write_config(f"plugin.broker_auth.broker.east.server.websocket.listen = 127.0.0.1:{free_port()}")
    deployment.render_again()
    _forget_reports(directory / "east.conf")
    return deployment


async def test_the_service_serves_under_a_configuration_of_an_older_version(tmp_path: Path) -> None:
    """It says once what is missing, and goes on; the broker counts as served."""
    deployment = older(tmp_path)
    with deployment.running(), Service(deployment) as service:
        service.wait_for_log("broker east: does not let the service count connections")
        for client in (await deployment.connect(), await deployment.provisioner()):
            await client.close()
        mark = service.mark()
        await asyncio.to_thread(deployment.servers["east"].restart)
        service.wait_for_log("broker east: subscribed again", since=mark)
        await (await deployment.connect()).close()
        assert sum("count connections" in line for line in service.log()) == 1
        assert not any("permissions violation" in line.lower() for line in service.log())


def test_such_a_configuration_is_warned_of(tmp_path: Path) -> None:
    deployment = older(tmp_path)
    with deployment.running():
        checked = run("config", "check", deployment.config, "--live", "--json")
    assert checked.code == 0
    assert any("may not count connections" in warning["problem"] for warning in checked.json["warnings"])


def _forget_reports(config: Path) -> None:
    """Take out of a rendered configuration what lets the service hear of connections."""
    text, permissions = re.subn(r', "\$SYS\.ACCOUNT\.\w+\.SERVER\.CONNS"', "", config.read_text())
    text, bridged = re.subn(r".*SERVER\.CONNS.*\n", "", text)
    assert (permissions, bridged) == (2, 4)
    config.write_text(text)
