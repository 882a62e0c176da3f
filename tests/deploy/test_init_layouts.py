"""``init --layout`` selects where programs write, and changes nothing else."""

from __future__ import annotations

from pathlib import Path

import pytest

from broker_auth.deploy.init import initialize
from broker_auth.deploy.plan import Layout, Plan
from broker_auth.settings.model import AuditKind, Settings


def settings(directory: Path, layout: Layout) -> Settings:
    return initialize(Plan(directory=directory, layout=layout, dev_pki=True)).settings


def test_directory_layout_keeps_all_files_together(tmp_path: Path) -> None:
    configured = settings(tmp_path, Layout.DIRECTORY)
    assert [output.path for output in configured.audit.outputs] == [tmp_path / "audit.jsonl"]
    assert configured.pid_file == tmp_path / "broker-auth.pid"
    assert configured.brokers[0].server.store_dir == tmp_path / "jetstream"


def test_system_layout_uses_system_directories(tmp_path: Path) -> None:
    configured = settings(tmp_path, Layout.SYSTEM)
    assert [output.path for output in configured.audit.outputs] == [Path("/var/log/broker-auth/audit.jsonl")]
    assert configured.pid_file == Path("/run/broker-auth/broker-auth.pid")
    assert configured.brokers[0].server.store_dir == Path("/var/lib/nats")
    assert configured.metrics_listen is None


def test_container_layout_writes_only_streams_and_listens_for_probes(tmp_path: Path) -> None:
    configured = settings(tmp_path, Layout.CONTAINER)
    assert [output.kind for output in configured.audit.outputs] == [AuditKind.STDOUT]
    assert configured.pid_file is None
    assert configured.metrics_listen == "0.0.0.0:9464"
    assert configured.brokers[0].server.store_dir == Path("/data")
    for broker in configured.brokers:
        assert broker.server.monitor_listen == "127.0.0.1:8222"
        assert broker.server.listen
        assert broker.server.listen.startswith("0.0.0.0:")


@pytest.mark.parametrize("layout", Layout)
def test_service_certificate_is_used_only_for_the_fleet(tmp_path: Path, layout: Layout) -> None:
    """Edges request no certificate, and a service host at an edge must not have a fleet certificate."""
    fleet, edge = settings(tmp_path, layout).brokers
    assert fleet.tls.certificate == tmp_path / "pki/service.pem"
    assert edge.tls.certificate is None
    assert edge.tls.ca == tmp_path / "pki/ca.pem"
