"""The note of ``revoke`` about brokers that decide without the service."""

from __future__ import annotations

from pathlib import Path

import pytest

from broker_auth.settings.revocation_store import create
from tests.cli.running import run
from tests.operate.deployment import EdgeDeployment

REVOCATIONS = "plugin.broker_auth.revocations = revoked.json"
STATIC = "plugin.broker_auth.fleet.auth = static"


@pytest.mark.parametrize("is_static", [False, True])
def test_brokers_that_deny_nothing_are_named(is_static: bool, tmp_path: Path) -> None:
    deployment = EdgeDeployment(tmp_path)
    deployment.write_config(REVOCATIONS, *([STATIC] if is_static else []))
    config = deployment.config
    if is_static:
        lines = config.read_text().splitlines(keepends=True)
        config.write_text("".join(line for line in lines if "provisioner.identities" not in line))
    create(tmp_path / "revoked.json")
    done = run("revoke", "node", "n1", "--sessions", "none", "--dry-run", "--config", config)
    assert (done.code, "broker fleet decides by itself" in done.err) == (0, is_static), done
