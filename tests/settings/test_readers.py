"""Readers: what a host without the fleet's zone needs to follow the bucket of revocations."""

from __future__ import annotations

from collections.abc import Mapping

import pytest

from broker_auth.deploy.pki import CertificateAuthority
from broker_auth.natsio.nkey import NkeyKind, generate_seed, public_nkey
from broker_auth.natsio.tls import TLSFiles
from broker_auth.settings.load import check
from broker_auth.settings.problems import ConfigurationReport
from tests.settings.builder import NOW, Directory, P

Change = Mapping[str, str | None]
SEED = generate_seed(NkeyKind.USER)
ZONE = f"{P}zone.edge."
SERVER = f"{P}broker.fleet.server."


@pytest.fixture
def apart(directory: Directory) -> Directory:
    """Return the configuration of a fleet with the bucket, and of an edge with a reader."""
    for name, kind in (("nkey", NkeyKind.USER), ("issuer", NkeyKind.ACCOUNT), ("xkey", NkeyKind.CURVE)):
        directory.write(f"edge-{name}.seed", generate_seed(kind))
        directory.set({f"{ZONE}{name}_seed_file": f"edge-{name}.seed"})
    directory.write("reader.seed", SEED)
    directory.write("revoked.json", '{"version": 1, "revocations": []}\n')
    member, other = CertificateAuthority.create("members"), CertificateAuthority.create("others")
    directory.write("members.pem", member.certificate_pem)
    for name, authority in (("member", member), ("reader", other)):
        authority.client(f"{name}.example.net").write(directory.path, name)
    directory.set(
        {
            f"{P}broker.default.urls": None,
            f"{P}brokers": "fleet, edge",
            f"{P}client_ca": "members.pem",
            f"{P}broker.fleet.urls": "tls://fleet.example.net:4222",
            f"{P}broker.fleet.role": "fleet",
            f"{SERVER}store_dir": "js",
            f"{P}broker.edge.urls": "tls://edge.example.net:4223",
            f"{P}broker.edge.role": "edge",
            f"{P}revocations": "revoked.json",
            f"{P}revocations_bucket": "true",
            f"{P}pid_file": "pid",
            f"{P}audit.output": "file:audit.json",
            f"{ZONE}reader_nkey": public_nkey(SEED),
            f"{ZONE}reader_seed_file": "reader.seed",
            f"{ZONE}reader_certificate": "reader.pem",
            f"{ZONE}reader_key": "reader.key",
        }
    )
    return directory


def report(directory: Directory, zone: str | None = "edge") -> ConfigurationReport:
    """Return the report of a service that serves one zone."""
    return check(directory.save(), {}, zone=zone, apart=zone is not None, now=NOW)


def test_zone_that_is_served_apart_follows_as_its_reader(apart: Directory) -> None:
    result = report(apart)
    assert (result.problems, result.warnings) == ((), ())
    assert result.settings
    follower = result.settings.follower
    assert follower
    assert follower.seed.reveal() == SEED
    assert follower.urls == ("tls://fleet.example.net:4222",)
    files = [apart.path / name for name in ("ca.pem", "reader.pem", "reader.key")]
    assert follower.tls == TLSFiles(ca=files[0], certificate=files[1], key=files[2])
    assert result.settings.serving("edge").follower == follower
    assert SEED not in repr(result.settings)


def test_reader_is_of_no_use_where_the_fleet_is_served(apart: Directory) -> None:
    for zone in (None, "fleet"):
        settings = report(apart, zone).settings
        assert settings
        assert settings.follower is None
    (apart.path / "reader.seed").unlink()
    assert report(apart, "fleet").problems == ()
    assert check(apart.config, {}, zone="edge", now=NOW).problems == ()  # as one of several zones
    complete = report(apart, None).settings
    assert complete
    assert complete.readers == {"edge": public_nkey(SEED)}
    assert [spec.name for spec in complete.buckets] == [
        "BROKER_AUTH_REVOCATIONS",
        "BROKER_AUTH_NODES",
        "BROKER_AUTH_OUTPOSTS",
    ]


WRONG: Mapping[str, tuple[Change, str]] = {
    "no seed": ({f"{ZONE}reader_seed_file": "nowhere.seed"}, "nowhere.seed"),
    "the seed of another key": (
        {f"{ZONE}reader_nkey": public_nkey(generate_seed(NkeyKind.USER))},
        "reader.seed is not the seed of reader_nkey",
    ),
    "a seed of another kind": ({f"{ZONE}reader_seed_file": "edge-issuer.seed"}, "an account nkey seed"),
    "a certificate that is not here": ({f"{ZONE}reader_certificate": "nowhere.pem"}, "nowhere.pem"),
    "another certificate's key": ({f"{ZONE}reader_key": "member.key"}, "is not the key of"),
    "no addresses of the fleet": ({f"{P}broker.fleet.urls": None}, "broker.fleet.urls: is not set"),
}


@pytest.mark.parametrize(("change", "about"), WRONG.values(), ids=WRONG)
def test_one_mistake_is_one_problem(apart: Directory, change: Change, about: str) -> None:
    apart.set(change)
    problems = report(apart).problems
    assert [about in str(problem) for problem in problems] == [True], list(map(str, problems))


DOUBTFUL: Mapping[str, tuple[Change, str]] = {
    "no reader": (
        {f"{ZONE}{name}": None for name in ("reader_nkey", "reader_seed_file", "reader_certificate", "reader_key")},
        "zone.edge.reader_seed_file: is not set, so this host does not learn",
    ),
    "no certificate": (
        {f"{ZONE}{name}": None for name in ("reader_certificate", "reader_key")},
        "zone.edge.reader_certificate: is not set, and broker fleet requires",
    ),
    "a member's certificate": (
        {f"{ZONE}reader_certificate": "member.pem", f"{ZONE}reader_key": "member.key"},
        "can join the fleet",
    ),
}


@pytest.mark.parametrize(("change", "about"), DOUBTFUL.values(), ids=DOUBTFUL)
def test_doubts_are_warnings(apart: Directory, change: Change, about: str) -> None:
    apart.set(change)
    result = report(apart)
    assert result.settings
    assert [about in str(warning) for warning in result.warnings] == [True], list(map(str, result.warnings))


def test_websocket_listener_needs_no_certificate(apart: Directory) -> None:
    changes = dict.fromkeys((f"{ZONE}reader_certificate", f"{ZONE}reader_key"))
    apart.set({f"{P}broker.fleet.urls": "wss://fleet.example.net:443", **changes})
    assert report(apart).warnings == ()


def test_without_the_bucket_nothing_is_followed(apart: Directory) -> None:
    apart.set({f"{P}revocations_bucket": None})
    result = report(apart)
    assert result.settings
    assert result.settings.follower is None
    assert result.warnings == ()
    whole = report(apart, None).settings
    assert whole
    assert whole.readers == {}
