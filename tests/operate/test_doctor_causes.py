"""Findings that follow from others, and those about a cluster: one server with a service suffices for all."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest

from broker_auth.operate.doctor.causes import reduced
from broker_auth.operate.doctor.codes import FindingCode
from broker_auth.operate.doctor.examine import of_clusters, servers_of
from broker_auth.operate.doctor.finding import Finding, Severity
from broker_auth.settings.model import Settings
from tests.deploy.shapes import build

ERROR, WARNING, OK = Severity.ERROR, Severity.WARNING, Severity.OK
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


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory) -> Settings:
    """Return the settings of a cluster of three servers and an edge."""
    shape = build(tmp_path_factory.mktemp("causes"))
    fleet = dataclasses.replace(shape.broker("fleet"), urls=("tls://a:1", "tls://b:1", "tls://c:1"))
    return dataclasses.replace(shape.settings, brokers=(fleet, shape.broker("edge")))


def finding(code: str, place: str = "", severity: Severity = ERROR, what: str = "x: y", **more: Any) -> Finding:
    """Return a finding at ``broker server``, at ``broker``, or about all."""
    broker, _, server = place.partition(" ")
    return Finding(
        severity=severity, code=FindingCode(code), what=what, broker=broker or None, server=server or None, **more
    )


def left(settings: Settings, *findings: Finding) -> list[tuple[str, str]]:
    """Return code and place of each finding that no other one explains."""
    kept = [item for item in reduced(findings, settings) if item.severity is not OK]
    return [(item.code, " ".join(filter(None, (item.broker, item.server)))) for item in kept]


def every(code: str, *servers: str, **more: Any) -> list[Finding]:
    return [finding(code, f"fleet {server}", **more) for server in servers]


def test_consequence_is_dropped_at_the_same_server_only(settings: Settings) -> None:
    down = [finding("listener.unreachable", "fleet a"), *every("callout.user", "a", "b")]
    assert left(settings, *down) == [("listener.unreachable", "fleet a"), ("callout.user", "fleet b")]


def test_warning_explains_nothing(settings: Settings) -> None:
    items = [finding("listener.other_ca", "edge e", WARNING), finding("callout.refuses", "edge e")]
    assert len(left(settings, *items)) == 2


def test_service_is_missing_once_for_a_cluster_and_once_for_all(settings: Settings) -> None:
    fleet = every("callout.no_answer", "a", "b", "c")
    edge = finding("callout.nobody", "edge e")
    assert left(settings, *fleet) == [("callout.no_answer", "fleet")]
    assert left(settings, *fleet[:2]) == [("callout.no_answer", "fleet a"), ("callout.no_answer", "fleet b")]
    assert left(settings, *fleet, edge) == [("callout.nobody", "")]
    assert left(settings, edge) == [("callout.nobody", "edge e")]
    down = finding("listener.unreachable", "fleet c")
    assert left(settings, *fleet[:2], down) == [("listener.unreachable", "fleet c"), ("callout.no_answer", "fleet")]


def test_health_that_does_not_answer_follows_from_a_missing_service(settings: Settings) -> None:
    health = finding("service.health", severity=WARNING)
    assert left(settings, health) == [("service.health", "")]
    assert left(settings, health, finding("callout.nobody", "edge e")) == [("callout.nobody", "edge e")]


def test_subscribed_service_that_does_not_answer_has_other_keys(settings: Settings) -> None:
    items = [finding("callout.alone", "edge e", WARNING), finding("callout.no_answer", "edge e")]
    (wrong,) = [item for item in reduced(items, settings) if item.severity is ERROR]
    assert wrong.remedy.startswith("keys differ")


def test_clocks_come_before_services(settings: Settings) -> None:
    skew = finding("clock.skew", "edge e", ahead=8.0)
    assert left(settings, finding("callout.no_answer", "edge e"), skew) == [("clock.skew", "edge e")]
    reported = finding("clock.skew", what="zone edge: this host's clock is 8.0 s behind that of server edge")
    assert left(settings, reported, skew) == [("clock.skew", "edge e")]
    assert left(settings, reported) == [("clock.skew", "")]


@pytest.mark.parametrize(
    ("ahead", "expected"),
    [
        ({"a": 30.0, "b": 30.4, "c": 29.9}, [""]),
        ({"a": 30.0, "b": 0.1, "c": 0.2}, ["fleet a"]),
        ({"a": 30.0, "b": -30.0, "c": 0.2}, ["fleet a", "fleet b"]),
    ],
)
def test_own_clock_is_one_finding_and_a_servers_clock_names_it(
    settings: Settings, ahead: dict[str, float], expected: list[str]
) -> None:
    skews = [
        finding("clock.skew", f"fleet {name}", ERROR if abs(by) >= 5 else OK, ahead=by) for name, by in ahead.items()
    ]
    assert [place for _, place in left(settings, *skews)] == expected


def test_files_at_fault_are_named_once(settings: Settings) -> None:
    file = Path("/etc/broker-auth/client.pem")
    items = [
        finding("configuration", severity=WARNING, what=f"broker.conf:3: tls.certificate: {file}: expired"),
        finding("configuration", severity=WARNING, what="broker.conf:4: something else"),
        finding("service.trouble", what=f"zone fleet: {file} expired at noon"),
        finding("service.certificate", what=f"{file} expired", file=file),
        finding("listener.handshake", "fleet a", what="TLS fails: sslv3 alert certificate expired"),
    ]
    assert left(settings, *items) == [("configuration", ""), ("service.certificate", "")]


def test_leaf_link_is_reported_by_the_edge_if_it_can_be_seen(settings: Settings) -> None:
    fleet, edge = finding("leaf.down", "fleet a"), finding("leaf.down", "edge e")
    assert left(settings, fleet, edge) == [("leaf.down", "edge e")]
    assert left(settings, fleet) == [("leaf.down", "fleet a")]
    gone = finding("listener.unreachable", "edge e")
    assert left(settings, fleet, gone) == [("listener.unreachable", "edge e")]
