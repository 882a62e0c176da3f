"""``init`` for clusters and several edges, and ``config render --all``, which writes the same again."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest
from click.testing import CliRunner
from cryptography.x509 import DNSName, SubjectAlternativeName, load_pem_x509_certificate

from broker_auth.cli import main
from broker_auth.deploy.init import Deployment, initialize
from broker_auth.deploy.members import member_names
from broker_auth.deploy.natsbinary import check_configuration
from broker_auth.deploy.plan import Edge, OwnFiles, Plan, Topology
from broker_auth.errors import InputError
from broker_auth.settings.load import check
from broker_auth.settings.model import Role

FLEET = ("nats1.example.net", "nats2.example.net", "nats3.example.net")
EDGES = (Edge("eu", "edge.eu.example.net"), Edge("us", "edge.us.example.net"))
SERVERS = ("nats1", "nats2", "nats3", "eu", "us")


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Deployment:
    directory = tmp_path_factory.mktemp("cluster")
    return initialize(Plan(directory=directory, dev_pki=True, fleet_hosts=FLEET, named_edges=EDGES))


@pytest.mark.e2e
def test_nats_server_accepts_each_configuration(cluster: Deployment) -> None:
    assert tuple(cluster.servers) == SERVERS
    for name, path in cluster.servers.items():
        check_configuration(path)
        assert f'server_name: "{name}"' in path.read_text()


def test_urls_contain_the_configured_hosts(cluster: Deployment) -> None:
    fleet, eu, us = cluster.settings.brokers
    assert fleet.urls == tuple(f"tls://{host}:4222" for host in FLEET)
    assert fleet.server.cluster_routes == tuple(f"tls://{host}:6222" for host in FLEET)
    assert [edge.urls for edge in (eu, us)] == [(f"tls://{edge.host}:4223",) for edge in EDGES]
    for edge in (eu, us):
        assert edge.server.leaf_remotes == tuple(f"tls://{host}:7422" for host in FLEET)
    # A cluster spans machines, so its servers listen on all addresses, even with a development PKI.
    assert {broker.server.listen for broker in (fleet, eu)} == {"0.0.0.0:4222", "0.0.0.0:4223"}


def test_members_advertise_their_hosts(cluster: Deployment) -> None:
    for host in FLEET:
        text = cluster.servers[host.partition(".")[0]].read_text()
        assert f'advertise: "{host}:6222"' in text


def test_cluster_causes_no_warning(cluster: Deployment) -> None:
    assert [str(warning) for warning in check(cluster.configuration, {}).warnings] == []
    assert cluster.warnings == ()


def test_edges_share_no_key_and_no_certificate(cluster: Deployment) -> None:
    zones = cluster.settings.zones
    assert [zone.name for zone in zones] == ["fleet", "eu", "us"]
    seeds = [seed.reveal() for zone in zones for seed in (zone.issuer_seed, zone.nkey_seed, zone.xkey_seed) if seed]
    assert len(set(seeds)) == 9
    fleet, eu, us = (broker.server for broker in cluster.settings.brokers)
    assert fleet.leaf_users == ("eu.leaf.example.net", "us.leaf.example.net")
    paths = [eu.tls.key, us.tls.key, eu.leaf_tls.key, us.leaf_tls.key, fleet.tls.key]
    assert len({path.read_bytes() for path in paths if path}) == 5
    assert len(cluster.break_glass_seeds) == 3


def test_edge_certificate_contains_no_fleet_host(cluster: Deployment) -> None:
    certificate = load_pem_x509_certificate((cluster.configuration.parent / "pki/eu.pem").read_bytes())
    names = certificate.extensions.get_extension_for_class(SubjectAlternativeName).value
    assert set(names.get_values_for_type(DNSName)) == {"localhost", "edge.eu.example.net"}


def test_render_all_writes_what_init_wrote(cluster: Deployment, tmp_path: Path) -> None:
    target = tmp_path / "etc/nats"
    arguments = ["config", "render", str(cluster.configuration), "--all", str(target)]
    assert CliRunner().invoke(main, arguments).exit_code == 0
    (target / "eu.conf").write_text("edited")
    done = CliRunner().invoke(main, arguments)
    assert done.exit_code == 0
    assert [f"Wrote {target / name}.conf" for name in SERVERS] == done.stdout.splitlines()
    assert sorted(path.name for path in target.iterdir()) == sorted(f"{name}.conf" for name in SERVERS)
    for path in cluster.servers.values():
        assert (target / path.name).read_bytes() == path.read_bytes()


@pytest.mark.parametrize(
    "arguments",
    [[], ["--all", "x", "--role", "fleet"], ["--all", "x", "--broker", "eu"]],
    ids=["neither", "both", "broker"],
)
def test_render_needs_one_of_role_and_all(cluster: Deployment, tmp_path: Path, arguments: list[str]) -> None:
    arguments = [str(tmp_path / item) if item == "x" else item for item in arguments]
    done = CliRunner().invoke(main, ["config", "render", str(cluster.configuration), *arguments])
    assert (done.exit_code, done.stdout) == (2, "")
    assert not list(tmp_path.iterdir())


def test_render_all_writes_nothing_if_one_server_cannot_be_rendered(tmp_path: Path) -> None:
    deployment = initialize(Plan(directory=tmp_path / "d", dev_pki=True))
    text = deployment.configuration.read_text()
    lines = [line for line in text.splitlines() if ".edge.server.leaf.remotes" not in line]
    deployment.configuration.write_text("\n".join(lines) + "\n")
    done = CliRunner().invoke(main, ["config", "render", str(deployment.configuration), "--all", str(tmp_path / "r")])
    assert done.exit_code == 1
    assert "leaf.remotes" in done.stderr
    assert not (tmp_path / "r").exists()


def test_render_all_needs_a_host_for_each_member(tmp_path: Path) -> None:
    deployment = initialize(Plan(directory=tmp_path / "d", dev_pki=True, fleet_hosts=FLEET[:2]))
    text = deployment.configuration.read_text()
    routes = "tls://nats1.example.net:6222, tls://nats2.example.net:6222"
    assert routes in text
    deployment.configuration.write_text(text.replace(routes, "tls://nats1.example.net:6222, tls://nats1.example.net:1"))
    done = CliRunner().invoke(main, ["config", "render", str(deployment.configuration), "--all", str(tmp_path / "r")])
    assert done.exit_code == 1
    assert "cluster.routes names a host twice" in done.stderr


@pytest.mark.parametrize(
    ("hosts", "names"),
    [
        (FLEET, ("nats1", "nats2", "nats3")),
        (("nats.a.example.net", "nats.b.example.net"), ("nats.a.example.net", "nats.b.example.net")),
        (("fleet-0.fleet.ns.svc.cluster.local", "fleet-1.fleet.ns.svc.cluster.local."), ("fleet-0", "fleet-1")),
    ],
)
def test_members_are_named_after_their_hosts(hosts: tuple[str, ...], names: tuple[str, ...]) -> None:
    assert member_names(hosts) == names


@pytest.mark.parametrize(
    ("topology", "expected"), [(Topology.WEBSOCKET, "a.example.net:4443"), (Topology.SINGLE, "verify_cert_and_check")]
)
@pytest.mark.e2e
def test_every_topology_supports_a_cluster(tmp_path: Path, topology: Topology, expected: str) -> None:
    hosts = ("a.example.net", "b.example.net")
    deployment = initialize(Plan(directory=tmp_path, topology=topology, dev_pki=True, fleet_hosts=hosts))
    assert tuple(deployment.servers) == ("a", "b")
    for path in deployment.servers.values():
        check_configuration(path)
    assert "verify_cert_and_check_known_urls" in deployment.servers["a"].read_text()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"fleet_hosts": ("192.0.2.1", "nats2.example.net")}, r"--fleet-host: 192\.0\.2\.1.*use host names"),
        ({"fleet_hosts": ("a.example.net", "a.example.net")}, r"--fleet-host names a host twice"),
        ({"edge_host": "edge.example.net"}, "leave out --edge-host"),
        ({"topology": Topology.WEBSOCKET}, r"--edge: the topology websocket has no edge"),
        ({"named_edges": (EDGES[0], EDGES[0])}, r"--edge: the name eu is used"),
        *(
            ({"named_edges": (Edge(name, "x.example.net"),)}, f"--edge: the name {name} is used")
            for name in ("fleet", "broker", "nats2", "ca", "service", "leaf-ca", "client_password")
        ),
        ({"named_edges": (Edge("a", "x"), Edge("a-leaf", "y"))}, "--edge: the name a-leaf is used"),
        ({"named_edges": (Edge("a/b", "x.example.net"),)}, "is not a usable name"),
        ({"named_edges": (Edge("a", "999.1.1.1"),)}, "is not an address"),
        ({"fleet_hosts": ("-a.example.net", "b")}, "is not a host name"),
    ],
)
def test_invalid_names_and_hosts_are_refused(tmp_path: Path, changes: dict[str, object], message: str) -> None:
    plan = Plan(directory=tmp_path / "d", dev_pki=True, fleet_hosts=FLEET, named_edges=EDGES)
    with pytest.raises(InputError, match=message):
        initialize(dataclasses.replace(plan, **changes))  # type: ignore[arg-type]
    assert not (tmp_path / "d").exists()


def own_files(directory: Path) -> OwnFiles:
    pairs = {"server": "server", "edge": "{edge}", "leaf": "{edge}-leaf", "service": "service"}
    files = {f"{to}_cert": directory / f"{name}.pem" for to, name in pairs.items()}
    files |= {f"{to}_key": directory / f"{name}.key" for to, name in pairs.items()}
    return OwnFiles(ca=directory / "ca.pem", leaf_ca=directory / "leaf-ca.pem", **files)


@pytest.fixture
def own(cluster: Deployment, tmp_path: Path) -> Plan:
    """Return a plan with existing certificates."""
    pki = cluster.configuration.parent / "pki"
    signer = (str(pki / "signer.pem"),)
    return Plan(
        directory=tmp_path / "d", fleet_hosts=FLEET, named_edges=EDGES, files=own_files(pki), signer_cert=signer
    )


def test_edge_files_are_found_by_edge_name(own: Plan) -> None:
    settings = initialize(own).settings
    for edge in settings.brokers[1:]:
        assert edge.server.tls.key
        assert edge.server.leaf_tls.certificate
        assert edge.server.tls.key.name == f"{edge.name}.key"
        assert edge.server.leaf_tls.certificate.name == f"{edge.name}-leaf.pem"


def test_missing_files_of_an_edge_are_named(own: Plan) -> None:
    edges = (*EDGES, Edge("asia", "edge.asia.example.net"))
    with pytest.raises(
        InputError,
        match=r"no such file: .*asia\.pem, .*asia\.key, .*asia-leaf\.pem, .*asia-leaf\.key; correct the path$",
    ):
        initialize(dataclasses.replace(own, named_edges=edges))


def test_edges_with_a_shared_leaf_certificate_are_refused(own: Plan) -> None:
    assert own.files.leaf_cert
    pki = own.files.leaf_cert.parent
    files = dataclasses.replace(own.files, leaf_cert=pki / "eu-leaf.pem", leaf_key=pki / "eu-leaf.key")
    with pytest.raises(InputError, match=r"each edge needs a link certificate.*write \{edge\}"):
        initialize(dataclasses.replace(own, files=files))


def test_leaf_certificates_with_the_same_name_are_refused(own: Plan, tmp_path: Path) -> None:
    assert own.files.leaf_cert
    pki = own.files.leaf_cert.parent
    for end in ("pem", "key"):
        for edge in EDGES:
            (tmp_path / f"{edge.name}-link.{end}").write_bytes((pki / f"eu-leaf.{end}").read_bytes())
            (tmp_path / f"{edge.name}-link.{end}").chmod(0o600)
    files = dataclasses.replace(
        own.files, leaf_cert=tmp_path / "{edge}-link.pem", leaf_key=tmp_path / "{edge}-link.key"
    )
    with pytest.raises(InputError, match=r"first DNS name eu\.leaf\.example\.net, as the link certificate of eu has"):
        initialize(dataclasses.replace(own, files=files))
    assert not own.directory.exists()


def test_command_accepts_lists_of_hosts(tmp_path: Path) -> None:
    arguments = ["--dev-pki", "--fleet-host", "a.example.net, b.example.net", "--fleet-host", "c.example.net"]
    edges = ["--edge", "eu=eu.example.net", "--edge=us=[2001:db8::7]"]
    done = CliRunner().invoke(main, ["init", str(tmp_path / "d"), *arguments, *edges, "--json"])
    assert done.exit_code == 0, done.output
    assert list(json.loads(done.stdout)["servers"]) == ["a", "b", "c", "eu", "us"]
    assert "tls://[2001:db8::7]:4223" in (tmp_path / "d/broker.conf").read_text()


def test_gate_is_written_beside_edges_of_a_cluster(tmp_path: Path) -> None:
    arguments = ["--dev-pki", "--fleet-host", "a.example.net,b.example.net", "--edge", "eu=eu.example.net"]
    done = CliRunner().invoke(main, ["init", str(tmp_path / "d"), *arguments, "--gate", "gate=gate.example.net"])
    assert done.exit_code == 0, done.output
    report = check(tmp_path / "d/broker.conf", {})
    assert report.settings
    assert [str(warning) for warning in report.warnings] == []
    fleet, eu, gate = report.settings.brokers
    assert (fleet.server.leaf_users, fleet.server.leaf_gates) == (("eu.leaf.example.net",), ("gate.leaf.example.net",))
    assert (eu.role, eu.zone, gate.role, gate.zone) == (Role.EDGE, "eu", Role.GATE, "gate")
    assert gate.urls == ("tls://gate.example.net:4224",)


@pytest.mark.parametrize(
    ("arguments", "status"),
    [
        (["--host", "nats_1"], 0),
        (["--host", "[::1]"], 0),
        (["--fleet-host", "nats_1.example.net"], 0),
        (["--host", "999.1.1.1"], 1),
        (["--fleet-host", "999.1.1.1"], 1),
        (["--edge", "eu"], 2),
        (["--edge", "eu="], 2),
        (["--gate", "gate"], 2),
        (["--gate", "gate=gate.example.net"], 1),
        (["--edge", "eu=eu.example.net", "--gate", "eu=gate.example.net"], 1),
    ],
)
def test_hosts_are_checked(tmp_path: Path, arguments: list[str], status: int) -> None:
    done = CliRunner().invoke(main, ["init", str(tmp_path / "d"), "--dev-pki", *arguments])
    assert done.exit_code == status, done.output
    assert (tmp_path / "d").exists() == (status == 0)
