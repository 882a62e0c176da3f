"""A static fleet: what does not go with it, what is lost with it, and which keys it does not need."""

from __future__ import annotations

import pytest

from broker_auth.natsio.nkey import NkeyKind, generate_seed
from broker_auth.settings.load import check, outline
from broker_auth.settings.revocations import encode
from tests.settings.builder import CHORIA, HEX_KEY, NOW, Directory, P, certificate

STATIC = f"{P}fleet.auth"
EDGE_SEEDS = {"nkey_seed_file": NkeyKind.USER, "issuer_seed_file": NkeyKind.ACCOUNT, "xkey_seed_file": NkeyKind.CURVE}
FLEET = f"{P}broker.default."


@pytest.fixture
def static(directory: Directory) -> Directory:
    """Return a configuration of a static fleet and an edge, without any key of the fleet's zone."""
    lines: dict[str, str | None] = {STATIC: "static", f"{P}brokers": "default, edge"}
    lines |= {f"{P}broker.edge.urls": "tls://edge.example.net:4222", f"{P}broker.edge.role": "edge"}
    for key, kind in EDGE_SEEDS.items():
        directory.write(f"edge.{key}", generate_seed(kind))
        lines[f"{P}zone.edge.{key}"] = f"edge.{key}"
        lines[f"{P}{key}"] = None
    lines[f"{P}provisioner.identities"] = None
    directory.set(lines)
    return directory


def test_fleet_zone_is_not_served_and_needs_no_keys(static: Directory) -> None:
    report = static.check()
    assert report.settings is not None, report.problems
    assert [zone.name for zone in report.settings.zones] == ["fleet", "edge"]
    assert [zone.name for zone in report.settings.served_zones] == ["edge"]
    assert report.settings.zones[0].nkey_seed is None
    assert [zone.name for zone in outline(static.config, {}).served_zones] == ["edge"]


def test_losses_are_one_warning(static: Directory) -> None:
    warnings = static.check().warnings
    assert [warning.key for warning in warnings] == [STATIC]
    for lost in ("audit record", "tokens", "identities", "client_hosts", "session that ends"):
        assert lost in warnings[0].what


def test_callout_is_the_default_and_is_not_warned_of(static: Directory) -> None:
    static.set({STATIC: None})
    problems = static.check().problems
    assert {problem.key for problem in problems} == {f"{P}nkey_seed_file", f"{P}issuer_seed_file"}


@pytest.mark.parametrize(
    ("changes", "key"),
    [
        ({f"{P}provisioner.identities": "provisioner.example.net"}, f"{P}provisioner.identities"),
        ({f"{CHORIA}client_hosts": "192.0.2.0/24"}, f"{CHORIA}client_hosts"),
        ({f"{P}audit.output": "nats:audit.records"}, f"{P}audit.output"),
        ({f"{CHORIA}system.user": "fleet-member"}, f"{CHORIA}system.user"),
        ({f"{CHORIA}provisioning.client_password": "x" * 73}, f"{CHORIA}provisioning.client_password"),
        ({f"{CHORIA}provisioning.client_password": "é" * 37}, f"{CHORIA}provisioning.client_password"),
        ({f"{FLEET}role": "single"}, f"{FLEET}role"),
        ({f"{FLEET}server.websocket.listen": "127.0.0.1:4443"}, f"{FLEET}server.websocket.listen"),
        ({f"{FLEET}server.tls.ca": "other-ca.pem"}, f"{FLEET}server.tls.ca"),
    ],
)
def test_restriction_that_nobody_would_enforce_is_a_problem(
    static: Directory, changes: dict[str, str | None], key: str
) -> None:
    static.write("other-ca.pem", certificate("another CA")[0])
    static.set(changes)
    assert [problem.key for problem in static.check().problems] == [key]


def test_listener_with_the_cas_of_client_ca_is_accepted(static: Directory) -> None:
    static.set({f"{FLEET}server.tls.ca": "ca.pem"})
    assert static.check().problems == ()


def test_password_of_72_bytes_is_accepted(static: Directory) -> None:
    static.set({f"{CHORIA}provisioning.client_password": "x" * 72})
    assert static.check().problems == ()


def test_issuers_do_not_go_with_it(static: Directory) -> None:
    static.set({"plugin.security.issuer.names": "choria", "plugin.security.issuer.choria.public": HEX_KEY})
    assert STATIC in {problem.key for problem in static.check().problems}


def test_fleet_without_an_edge_leaves_nothing_to_serve(static: Directory) -> None:
    static.set({key: None for key in list(static.keys) if ".edge." in key} | {f"{P}brokers": "default"})
    assert [problem.key for problem in static.check().problems] == [STATIC]


@pytest.mark.parametrize(
    ("key", "value"),
    [
        (f"{CHORIA}client_signer_cert", HEX_KEY),
        (f"{CHORIA}server_signer_cert", HEX_KEY),
        (f"{P}provisioning.previous_client_password", "old"),
        (f"{P}system.previous_password", "old"),
    ],
)
def test_credential_that_nobody_accepts_is_warned_of(static: Directory, key: str, value: str) -> None:
    static.set({key: value})
    report = static.check()
    assert report.problems == ()
    assert {warning.key for warning in report.warnings} == {STATIC, key}


def test_revocations_that_deny_no_member_are_warned_of(static: Directory) -> None:
    static.write("revoked.json", encode(()))
    static.set({f"{P}revocations": "revoked.json"})
    report = static.check()
    assert report.problems == ()
    assert {warning.key for warning in report.warnings} == {STATIC, f"{P}revocations"}


def test_zone_of_the_fleet_cannot_be_served(static: Directory) -> None:
    static.save()
    assert [problem.key for problem in check(static.config, {}, zone="fleet", now=NOW).problems] == [STATIC]
    assert check(static.config, {}, zone="edge", now=NOW).problems == ()
