"""``init --layout``: where programs write, and that nothing else changes."""

from __future__ import annotations

from pathlib import Path

import pytest

from broker_auth.deploy.init import initialize
from broker_auth.deploy.plan import Layout, Plan
from broker_auth.settings.model import AuditKind, Settings


def settings(directory: Path, layout: Layout) -> Settings:
    return initialize(Plan(directory=directory, layout=layout, dev_pki=True)).settings


def test_a_directory_holds_everything(tmp_path: Path) -> None:
    found = settings(tmp_path, Layout.DIRECTORY)
    assert [output.path for output in found.audit.outputs] == [tmp_path / "audit.jsonl"]
    assert found.pid_file == tmp_path / "broker-auth.pid"
    assert found.brokers[0].server.store_dir == tmp_path / "jetstream"


def test_a_system_has_a_directory_for_each_kind(tmp_path: Path) -> None:
    found = settings(tmp_path, Layout.SYSTEM)
    assert [output.path for output in found.audit.outputs] == [Path("/var/log/broker-auth/audit.jsonl")]
    assert found.pid_file == Path("/run/broker-auth/broker-auth.pid")
    assert found.brokers[0].server.store_dir == Path("/var/lib/nats")
    assert found.metrics_listen is None


def test_a_container_writes_streams_only_and_answers_probes(tmp_path: Path) -> None:
    found = settings(tmp_path, Layout.CONTAINER)
    assert [output.kind for output in found.audit.outputs] == [AuditKind.LOG]
    assert found.pid_file is None
    assert found.metrics_listen == "0.0.0.0:9464"
    assert found.brokers[0].server.store_dir == Path("/data")
    for broker in found.brokers:
        assert broker.server.monitor_listen == "127.0.0.1:8222"
        assert broker.server.listen
        assert broker.server.listen.startswith("0.0.0.0:")


@pytest.mark.parametrize("layout", Layout)
def test_the_services_certificate_is_for_the_fleet_alone(tmp_path: Path, layout: Layout) -> None:
    """Edges ask for none; a host that serves one must not have a certificate that the fleet takes."""
    fleet, edge = settings(tmp_path, layout).brokers
    assert fleet.tls.certificate == tmp_path / "pki/service.pem"
    assert edge.tls.certificate is None
    assert edge.tls.ca == tmp_path / "pki/ca.pem"
