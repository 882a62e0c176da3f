"""Findings about a cluster: one server with a service suffices for all."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from broker_auth.operate.doctor.codes import FindingCode
from broker_auth.operate.doctor.examine import of_clusters, servers_of
from broker_auth.operate.doctor.finding import Finding, Severity
from tests.deploy.shapes import build

Seen = dict[str, list[str]]


def findings_of(servers: Seen) -> list[Finding]:
    return [
        Finding(severity=Severity.ERROR, code=FindingCode(code), what="", broker="fleet", server=server)
        for server, codes in servers.items()
        for code in codes
    ]


@pytest.mark.parametrize(
    ("servers", "left"),
    [
        ({"a": ["callout.nobody"], "b": ["callout.replicas"], "c": ["callout.nobody"]}, {"b": ["callout.replicas"]}),
        ({"a": ["callout.nobody"], "b": ["callout.alone"]}, {"b": ["callout.alone"]}),
        ({"a": ["callout.alone"], "b": ["callout.alone"]}, {}),
        ({"a": ["callout.alone"], "b": ["callout.replicas"]}, {"b": ["callout.replicas"]}),
        ({"a": ["callout.nobody"], "b": ["callout.nobody"]}, {"a": ["callout.nobody"], "b": ["callout.nobody"]}),
        ({"a": ["leaf.down", "jetstream.down"], "b": ["leaf.link"]}, {"a": ["jetstream.down"], "b": ["leaf.link"]}),
        ({"a": ["leaf.down"], "b": ["callout.replicas"]}, {"a": ["leaf.down"], "b": ["callout.replicas"]}),
    ],
)
def test_finding_is_dropped_if_another_server_of_the_cluster_suffices(servers: Seen, left: Seen) -> None:
    assert of_clusters(findings_of(servers)) == findings_of(left)


def test_service_of_another_broker_does_not_suffice() -> None:
    edge = Finding(severity=Severity.ERROR, code=FindingCode.CALLOUT_NOBODY, what="", broker="edge", server="e")
    assert edge in of_clusters([edge, *findings_of({"a": ["callout.replicas"]})])


def test_each_server_is_examined(tmp_path: Path) -> None:
    broker = dataclasses.replace(build(tmp_path).broker("fleet"), urls=("tls://a:4222", "tls://b:4222"))
    assert [server.urls for server in servers_of(broker)] == [("tls://a:4222",), ("tls://b:4222",)]
