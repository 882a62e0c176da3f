"""Zones: their names, their keys, and what is read for a single zone."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest

from broker_auth.errors import ConfigurationError
from broker_auth.natsio.nkey import NkeyKind, generate_seed, public_nkey
from broker_auth.policy.model import Serves
from broker_auth.settings.load import check, outline
from broker_auth.settings.model import AuditKind, Settings, Zone
from broker_auth.settings.policy import build_policy
from tests.settings.builder import CHORIA, NOW, PASSWORD, SYSTEM_PASSWORD, Directory, P

EDGES = ("edge1", "edge2")
KINDS = {"nkey_seed_file": NkeyKind.USER, "issuer_seed_file": NkeyKind.ACCOUNT, "xkey_seed_file": NkeyKind.CURVE}


@pytest.fixture
def edges(directory: Directory) -> Directory:
    """Return the valid configuration with two edges, each with separate keys."""
    lines: dict[str, str | None] = {f"{P}brokers": "default, edge1, edge2"}
    for name in EDGES:
        lines[f"{P}broker.{name}.urls"] = f"tls://{name}.example.net:4222"
        lines[f"{P}broker.{name}.role"] = "edge"
        for key, kind in KINDS.items():
            directory.write(f"{name}.{key}", generate_seed(kind))
            lines[f"{P}zone.{name}.{key}"] = f"{name}.{key}"
        lines[f"{P}zone.{name}.break_glass_nkey"] = public_nkey(generate_seed(NkeyKind.USER))
    directory.set(lines)
    return directory


def settings_of(directory: Directory, zone: str | None = None) -> Settings:
    directory.save()
    report = check(directory.config, {}, zone=zone, now=NOW)
    assert report.settings, [str(problem) for problem in report.problems]
    return report.settings


def keys_of(zone: Zone) -> set[str]:
    return {seed.reveal() for seed in (zone.nkey_seed, zone.issuer_seed, zone.xkey_seed) if seed}


def test_fleet_and_each_edge_are_separate_zones(edges: Directory) -> None:
    settings = settings_of(edges)
    assert [zone.name for zone in settings.zones] == ["fleet", "edge1", "edge2"]
    assert [broker.zone for broker in settings.brokers] == ["fleet", "edge1", "edge2"]
    keys = [keys_of(zone) for zone in settings.zones]
    assert [len(seeds) for seeds in keys] == [3, 3, 3]
    assert len(set.union(*keys)) == 9
    assert check(edges.config, {}, now=NOW).warnings == ()


def test_edges_can_share_a_zone(edges: Directory) -> None:
    edges.set({f"{P}broker.{name}.zone": "edges" for name in EDGES})
    edges.set({f"{P}zone.{name}.{key}": None for name in EDGES for key in (*KINDS, "break_glass_nkey")})
    edges.set({f"{P}zone.edges.{key}": f"edge1.{key}" for key in KINDS})
    settings = settings_of(edges)
    assert [zone.name for zone in settings.zones] == ["fleet", "edges"]
    assert [broker.name for broker in settings.of_zone("edges").brokers] == ["edge1", "edge2"]


def test_edge_without_keys_uses_the_fleets_with_a_warning(edges: Directory) -> None:
    edges.set({f"{P}zone.edge2.{key}": None for key in (*KINDS, "break_glass_nkey")})
    settings = settings_of(edges)
    assert keys_of(settings.zone("edge2")) == keys_of(settings.zone("fleet"))
    (warning,) = check(edges.config, {}, now=NOW).warnings
    assert warning.line == edges.line(f"{P}broker.edge2.role")
    assert "the edge uses the fleet's keys" in str(warning)
    assert "plugin.broker_auth.zone.edge2.nkey_seed_file" in str(warning)


USER = public_nkey(generate_seed(NkeyKind.USER))
WRONG: Mapping[str, tuple[Mapping[str, str | None], str]] = {
    "the kick user is the break-glass user": (
        {f"{P}zone.edge1.kick_nkey": USER, f"{P}zone.edge1.break_glass_nkey": USER},
        "kick_nkey: is also another key of this zone",
    ),
    "two zones have one kick user": (
        {f"{P}kick_nkey": USER, f"{P}zone.edge1.kick_nkey": USER},
        "kick_nkey: is also the key of zone fleet",
    ),
    "a kick seed without its user": (
        {f"{P}zone.edge1.kick_seed_file": "kick.seed"},
        "kick_seed_file: is set, and kick_nkey is not",
    ),
    "the reader is the kick user": (
        {f"{P}zone.edge1.reader_nkey": USER, f"{P}zone.edge1.kick_nkey": USER},
        "reader_nkey: is also another key of this zone",
    ),
    "two zones have one reader": (
        {f"{P}zone.{name}.reader_nkey": USER for name in EDGES},
        "zone.edge2.reader_nkey: is also the key of zone edge1",
    ),
    "a reader's seed without its user": (
        {f"{P}zone.edge1.reader_seed_file": "reader.seed"},
        "reader_seed_file: is set, and reader_nkey is not",
    ),
    "a reader's certificate without its key": (
        {f"{P}zone.edge1.reader_certificate": "reader.pem"},
        "reader_certificate: is set, but plugin.broker_auth.zone.edge1.reader_key is not",
    ),
    "half of the keys": ({f"{P}zone.edge1.issuer_seed_file": None}, "issuer_seed_file: is not set"),
    "the other edge's key": (
        {f"{P}zone.edge2.issuer_seed_file": "edge1.issuer_seed_file"},
        "zone.edge2.issuer_seed_file: is also the key of zone edge1",
    ),
    "the fleet's key": ({f"{P}zone.edge1.nkey_seed_file": "user.seed"}, "is also the key of zone fleet"),
    "a seed of another kind": ({f"{P}zone.edge1.nkey_seed_file": "edge1.issuer_seed_file"}, "an account nkey seed"),
    "a seed that is missing": ({f"{P}zone.edge1.nkey_seed_file": "nowhere.seed"}, "nowhere.seed"),
    "a zone that no broker is in": ({f"{P}zone.edge3.workers": "2"}, "describes zone 'edge3', which no broker is in"),
    "the fleet's keys by zone": ({f"{P}zone.fleet.workers": "2"}, "write plugin.broker_auth.workers"),
    "an edge in the fleet's zone": ({f"{P}broker.edge1.zone": "fleet"}, "an edge cannot be in the zone 'fleet'"),
    "a fleet broker in an edge's zone": (
        {f"{P}broker.default.zone": "edge1"},
        "only edges and gates have a zone",
    ),
    "an invalid zone name": ({f"{P}broker.edge1.zone": "a.b"}, "is not a usable name"),
}


@pytest.mark.parametrize(("change", "about"), WRONG.values(), ids=WRONG)
def test_one_mistake_is_one_problem(edges: Directory, change: Mapping[str, str | None], about: str) -> None:
    edges.set(change)
    edges.save()
    problems = check(edges.config, {}, now=NOW).problems
    assert [about in str(problem) for problem in problems if about in str(problem)] == [True], list(map(str, problems))


def test_single_zone_needs_no_files_of_the_others(edges: Directory) -> None:
    """As on a host that has only that edge's directory."""
    for name in ("user.seed", "account.seed", "curve.seed", "system.password", "edge2.nkey_seed_file"):
        (edges.path / name).unlink()
    edges.set({f"{CHORIA}provisioning.client_password": "file:nowhere"})
    settings = settings_of(edges, "edge1")
    assert [zone.name for zone in settings.zones] == ["edge1"]
    assert [broker.name for broker in settings.brokers] == ["edge1"]
    assert settings.provisioning.enabled
    policy = build_policy(settings, "edge1")
    assert (policy.serves, policy.provisioning.passwords) == (Serves.EDGE, ())
    assert policy.system is not None
    assert policy.system.passwords == ()


def test_fleet_zone_does_not_need_the_edges_keys(edges: Directory) -> None:
    for name in EDGES:
        for key in KINDS:
            (edges.path / f"{name}.{key}").unlink()
    settings = settings_of(edges, "fleet")
    assert [broker.name for broker in settings.brokers] == ["default"]
    assert settings.provisioning.client_passwords


def test_commands_do_not_need_seeds_of_remote_edges(edges: Directory) -> None:
    (edges.path / "edge1.nkey_seed_file").unlink()
    edges.save()
    assert len(check(edges.config, {}, now=NOW).problems) == 1
    report = check(edges.config, {}, remote=True, now=NOW)
    assert report.settings
    assert report.settings.zone("edge1").nkey_seed is None
    (edges.path / "user.seed").unlink()
    assert len(check(edges.config, {}, remote=True, now=NOW).problems) == 1


def test_unknown_zone_is_a_problem_that_lists_the_zones(edges: Directory) -> None:
    edges.save()
    (problem,) = check(edges.config, {}, zone="edge9", now=NOW).problems
    assert "edge1, edge2, fleet" in str(problem)


def test_outline_contains_no_secrets(edges: Directory) -> None:
    """The process that starts every zone has only the outline."""
    edges.save()
    settings = outline(edges.config, {})
    assert [zone.name for zone in settings.zones] == ["fleet", "edge1", "edge2"]
    assert not any(keys_of(zone) for zone in settings.zones)
    assert (settings.system_passwords, settings.provisioning.client_passwords) == ((), ())
    assert settings.provisioning.enabled
    assert PASSWORD not in repr(settings)
    assert SYSTEM_PASSWORD not in repr(settings)
    edges.set({f"{P}token_leeway": "nonsense"})
    edges.save()
    with pytest.raises(ConfigurationError, match="token_leeway"):
        outline(edges.config, {})


def test_records_of_an_edge_go_to_a_separate_file(edges: Directory) -> None:
    edges.set({f"{P}audit.output": "file:audit.jsonl, nats:choria.audit"})
    settings = settings_of(edges)
    names = ["audit.jsonl", "audit.edge1.jsonl", "audit.edge2.jsonl"]
    assert [path.name for path in settings.audit_files] == names
    assert settings.of_zone("edge1").audit.path == Path(edges.path / "audit.edge1.jsonl")
    assert settings.of_zone("edge1").audit.subject is None
    edges.set({f"{P}audit.output": "nats:choria.audit"})
    (output,) = settings_of(edges).of_zone("edge1").audit.outputs
    assert output.kind is AuditKind.STDOUT


def test_workers_of_a_zone(edges: Directory) -> None:
    edges.set({f"{P}workers": "3", f"{P}zone.edge1.workers": "2"})
    assert [zone.workers for zone in settings_of(edges).zones] == [3, 2, 3]


def test_keys_of_a_zone_have_variables(edges: Directory) -> None:
    edges.save()
    report = check(edges.config, {"BROKER_AUTH_ZONE_EDGE1_WORKERS": "5"}, now=NOW)
    assert report.settings
    assert report.settings.zone("edge1").workers == 5
