"""Which brokers ``revoke`` asks for sessions."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from broker_auth.operate.revoked_sessions import RevokedSessions, SessionTarget
from broker_auth.policy.revocations import Revocation, RevocationKind
from tests.operate.deployment import EdgeDeployment

VALUES = {
    RevocationKind.CHAIN_ISSUER: "team-a",
    RevocationKind.IDENTITY: "up=provisioner",
    RevocationKind.KEY: "0" * 64,
    RevocationKind.CERTIFICATE: "0" * 64,
    RevocationKind.NODE: "node1",
    RevocationKind.NETWORK: "192.0.2.0/24",
}
AT_EDGES = {RevocationKind.NODE, RevocationKind.NETWORK}
OF_PROVISIONERS = {RevocationKind.CHAIN_ISSUER, RevocationKind.IDENTITY, RevocationKind.KEY}


@pytest.mark.parametrize("require_mtls", [True, False])
def test_edge_is_asked_about_what_may_have_let_somebody_in_there(require_mtls: bool, tmp_path: Path) -> None:
    settings = EdgeDeployment(tmp_path).settings()
    provisioning = dataclasses.replace(settings.provisioning, require_mtls=require_mtls)
    settings = dataclasses.replace(settings, provisioning=provisioning)
    fleet, edge = settings.brokers
    asked = set()
    for kind, value in VALUES.items():
        target = SessionTarget([Revocation(kind=kind, value=value)], {})
        selector = RevokedSessions(settings, target, list)
        assert selector.concerns(fleet)
        if selector.concerns(edge):
            asked.add(kind)
    assert asked == (AT_EDGES if require_mtls else AT_EDGES | OF_PROVISIONERS)
