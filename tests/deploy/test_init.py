"""``init`` writes a deployment that starts without changes, and never deletes or overwrites keys."""

from __future__ import annotations

import dataclasses
import json
import ssl
import stat
from pathlib import Path

import pytest
from click.testing import CliRunner
from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from cryptography.x509 import load_pem_x509_certificate

from broker_auth.cli import main
from broker_auth.deploy import brokerconf
from broker_auth.deploy.init import initialize
from broker_auth.deploy.natsbinary import check_configuration
from broker_auth.deploy.pki import CertificateAuthority, Pair
from broker_auth.deploy.plan import OwnFiles, Plan, Topology, missing_options
from broker_auth.errors import BrokerAuthError, InputError
from broker_auth.sandbox.natsserver import NatsServer, free_port
from broker_auth.secret import Secret
from broker_auth.settings.load import check
from broker_auth.settings.model import Role
from broker_auth.tokens.issue import signing_key_from_seed
from tests.builders.tokens import ORG
from tests.cli.running import run
from tests.deploy.responder import connect_nkey
from tests.mixed import TOPOLOGIES


def dev(directory: Path, topology: Topology = Topology.EDGE, *, force: bool = False) -> Plan:
    ports = {name: free_port() for name in ("port", "edge_port", "leaf_port", "websocket_port")}
    return Plan(directory=directory, topology=topology, dev_pki=True, force=force, **ports)  # type: ignore[arg-type]


def contents(directory: Path) -> dict[str, bytes]:
    return {str(p.relative_to(directory)): p.read_bytes() for p in directory.rglob("*") if p.is_file()}


@pytest.mark.e2e
@pytest.mark.parametrize("topology", TOPOLOGIES)
async def test_deployment_starts_without_changes(tmp_path: Path, topology: Topology) -> None:
    deployment = initialize(dev(tmp_path / "d", topology))
    report = check(deployment.configuration, {})
    assert (report.ok, [str(warning) for warning in report.warnings]) == (True, [])
    tls = ssl.create_default_context(cafile=str(tmp_path / "d/pki/ca.pem"))
    if topology is not Topology.SINGLE:
        tls.load_cert_chain(tmp_path / "d/pki/operator.pem", tmp_path / "d/pki/operator.key")
    assert len(deployment.break_glass_seeds) == len(deployment.settings.zones)
    for broker in deployment.settings.brokers:
        config = deployment.servers[broker.name]
        check_configuration(config)
        async with NatsServer(config):
            keys = tmp_path / "d" / brokerconf.ZoneFiles(broker.zone).directory
            # Both log in without a callout, because no service is running.
            for seed in (keys / "break-glass.seed", keys / "service.seed"):
                await (await connect_nkey(broker.urls[0], tls, seed.read_text())).close()


@pytest.mark.parametrize("topology", TOPOLOGIES)
def test_private_files_are_private_and_configurations_contain_no_secret(tmp_path: Path, topology: Topology) -> None:
    initialize(dev(tmp_path / "d", topology))
    assert stat.S_IMODE((tmp_path / "d/keys").stat().st_mode) == 0o700
    public = (".pem", ".conf", ".json", ".public")
    secrets = []
    for path in (tmp_path / "d").rglob("*"):
        if path.is_file() and not path.name.endswith(public):
            assert stat.S_IMODE(path.stat().st_mode) == 0o600, path
            secrets.append(path.read_text().strip())
    assert len(secrets) >= 8
    for path in (*(tmp_path / "d").glob("*.conf"), *(tmp_path / "d/contexts").rglob("*.json")):
        assert not any(secret in path.read_text() for secret in secrets)


ROLES = {
    Topology.EDGE: [Role.FLEET, Role.EDGE],
    Topology.WEBSOCKET: [Role.FLEET],
    Topology.SINGLE: [Role.SINGLE],
    Topology.MIXED: [Role.MIXED],
}


@pytest.mark.parametrize("topology", TOPOLOGIES)
def test_brokers_have_the_roles_of_the_topology(tmp_path: Path, topology: Topology) -> None:
    brokers = initialize(dev(tmp_path / "d", topology)).settings.brokers
    assert [broker.role for broker in brokers] == ROLES[topology]


@pytest.mark.e2e
def test_mixed_topology_is_refused_before_a_file_is_written_if_nats_server_cannot(tmp_path: Path) -> None:
    done = run("init", tmp_path / "d", "--topology", "mixed", "--dev-pki")
    assert done.code == 1
    (line,) = done.err.splitlines()
    assert "does not accept verify_client_cert_if_given" in line
    assert "choose the topology edge, websocket or single" in line
    assert not (tmp_path / "d").exists()


def test_single_topology_uses_organization_issuers(tmp_path: Path) -> None:
    settings = initialize(dev(tmp_path / "d", Topology.SINGLE)).settings
    assert settings.issuer_mode
    assert not settings.provisioning.require_mtls
    assert len((tmp_path / "d/pki/issuer.seed").read_text()) == 64


@pytest.mark.parametrize("topology", [Topology.EDGE, Topology.WEBSOCKET])
def test_keys_of_choria_clients_are_distinct_rsa_keys(tmp_path: Path, topology: Topology) -> None:
    """Choria signs requests with the key of the certificate, and refuses other kinds after a good connect."""
    initialize(dev(tmp_path, topology))
    moduli = set()
    for name in ("member", "provisioner", "operator"):
        key = load_pem_private_key((tmp_path / f"pki/{name}.key").read_bytes(), password=None)
        certificate = load_pem_x509_certificate((tmp_path / f"pki/{name}.pem").read_bytes())
        assert isinstance(key, RSAPrivateKey), name
        assert key.key_size == 2048
        assert certificate.public_key() == key.public_key()
        moduli.add(key.private_numbers().public_numbers.n)
    assert len(moduli) == 3


@pytest.mark.parametrize("topology", TOPOLOGIES)
def test_issuer_key_is_created_if_omitted(tmp_path: Path, topology: Topology) -> None:
    options = {"topology": topology.value, "dev-pki": None, "issuer": "acme"}
    arguments = [f"--{name}" if value is None else f"--{name}={value}" for name, value in options.items()]
    done = CliRunner().invoke(main, ["init", str(tmp_path / "d"), *arguments])
    assert done.exit_code == 0, done.output
    report = check(tmp_path / "d/broker.conf", {}, serving=True)
    assert report.settings is not None, report.problems
    assert [str(warning) for warning in report.warnings] == []
    assert report.settings.issuer_mode
    assert report.settings.provisioning.require_mtls == (topology is not Topology.SINGLE)
    seed = Secret((tmp_path / "d/pki/issuer.seed").read_text())
    assert [(issuer.name, issuer.hex) for issuer in report.settings.issuers] == [
        ("acme", signing_key_from_seed(seed, "acme").public_hex)
    ]
    assert not (tmp_path / "d/pki/signer.pem").exists()


def test_issuer_key_is_not_created_if_configured(tmp_path: Path) -> None:
    done = CliRunner().invoke(main, ["init", str(tmp_path / "d"), "--dev-pki", "--issuer", f"acme={ORG.hex}"])
    assert done.exit_code == 0, done.output
    report = check(tmp_path / "d/broker.conf", {}, serving=True)
    assert report.settings is not None, report.problems
    assert [(issuer.name, issuer.hex) for issuer in report.settings.issuers] == [("acme", ORG.hex)]
    assert not (tmp_path / "d/pki/issuer.seed").exists()


@pytest.mark.parametrize("topology", TOPOLOGIES)
def test_nothing_is_overwritten_without_force(tmp_path: Path, topology: Topology) -> None:
    initialize(dev(tmp_path, topology))
    before = contents(tmp_path)
    with pytest.raises(InputError, match=r"already contains broker\.conf, fleet\.conf.*--force"):
        initialize(dev(tmp_path, topology))
    assert contents(tmp_path) == before


def test_one_existing_file_prevents_all_writes(tmp_path: Path) -> None:
    (tmp_path / "keys").mkdir()
    (tmp_path / "keys/issuer.seed").write_text("mine")
    with pytest.raises(InputError, match=r"keys/issuer\.seed"):
        initialize(dev(tmp_path))
    assert contents(tmp_path) == {"keys/issuer.seed": b"mine"}


def test_force_replaces_configurations_and_keeps_keys(tmp_path: Path) -> None:
    initialize(dev(tmp_path))
    before = contents(tmp_path)
    (tmp_path / "pki/member.pem").unlink()
    (tmp_path / "pki/member.key").unlink()
    (tmp_path / "keys/break-glass.seed").unlink()  # kept offline, as it should be
    deployment = initialize(dev(tmp_path, force=True))
    after = contents(tmp_path)
    changed = {name for name in before | after if before.get(name) != after.get(name)}
    made_again = {"pki/member.pem", "pki/member.key"}
    contexts = {f"contexts/nats/context/{name}.json" for name in ("member", "provisioner", "operator", "node")}
    configurations = {"broker.conf", "fleet.conf", "edge.conf", *contexts}
    assert changed == {*configurations, "keys/break-glass.seed"} | made_again
    assert "keys/break-glass.seed" not in after
    assert deployment.break_glass_seeds == (tmp_path / "keys/edge/break-glass.seed",)
    assert deployment.settings.zone("fleet").break_glass_nkey == before["keys/break-glass.public"].decode()


def test_certificate_without_key_is_refused(tmp_path: Path) -> None:
    initialize(dev(tmp_path))
    (tmp_path / "pki/ca.key").unlink()
    before = contents(tmp_path)
    with pytest.raises(InputError, match=r"pki/ca\.key does not"):
        initialize(dev(tmp_path, force=True))
    assert contents(tmp_path) == before


def own(directory: Path, source: Path, **changes: object) -> Plan:
    pki = source / "pki"
    names = {"server": "server", "leaf": "leaf", "service": "service"}
    pairs = {f"{to}_cert": pki / f"{name}.pem" for to, name in names.items()}
    pairs |= {f"{to}_key": pki / f"{name}.key" for to, name in names.items()}
    pairs |= {"edge_cert": pki / "edge.pem", "edge_key": pki / "edge.key", "leaf_ca": pki / "leaf-ca.pem"}
    options: dict[str, object] = {
        "hosts": ("localhost",),
        "files": OwnFiles(ca=pki / "ca.pem", **pairs),
        "signer_cert": (str(pki / "signer.pem"),),
        **changes,
    }
    return Plan(directory=directory, **options)  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def theirs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a directory whose ``pki`` serves as the operator's own PKI."""
    directory = tmp_path_factory.mktemp("theirs")
    initialize(dev(directory))
    return directory


@pytest.mark.e2e
def test_operator_certificates_are_used_in_place(tmp_path: Path, theirs: Path) -> None:
    deployment = initialize(own(tmp_path / "d", theirs))
    fleet, edge = deployment.settings.brokers
    assert fleet.server.tls.key == theirs / "pki/server.key"
    assert fleet.server.leaf_users == ("edge.leaf.example.net",)
    assert fleet.server.leaf_tls.ca == theirs / "pki/leaf-ca.pem"
    assert edge.server.leaf_tls.ca == theirs / "pki/ca.pem"
    assert edge.server.leaf_tls.certificate == theirs / "pki/leaf.pem"
    assert fleet.urls == ("tls://localhost:4222",)
    assert fleet.server.listen == "0.0.0.0:4222"
    assert not (tmp_path / "d/pki").exists()
    for config in deployment.servers.values():
        check_configuration(config)


@pytest.mark.parametrize(
    ("name", "names", "added"),
    [
        ("service", ("a.example.net", "b.example.net"), ("a.example.net",)),  # one name is enough
        ("service.example.net", (), ("service.example.net",)),
        ("p.example.net", (), ()),  # is already an identity
        ("/.*/", (), ()),  # would match every name
        ("a,b", (), ()),  # would be split into two
    ],
)
def test_service_certificate_is_added_to_provisioner_identities(
    tmp_path: Path, theirs: Path, name: str, names: tuple[str, ...], added: tuple[str, ...]
) -> None:
    plan = own(tmp_path / "d", theirs)
    certificate, key = CertificateAuthority.create().client(name, names=names).write(tmp_path, "service")
    files = dataclasses.replace(plan.files, service_cert=certificate, service_key=key)
    plan = dataclasses.replace(plan, files=files, provisioners=("p.example.net",))
    assert initialize(plan).settings.provisioning.provisioner_identities == ("p.example.net", *added)


def test_service_certificate_is_not_added_without_identities(tmp_path: Path, theirs: Path) -> None:
    """Otherwise the service would be the only permitted provisioner."""
    assert initialize(own(tmp_path / "d", theirs)).settings.provisioning.provisioner_identities == ()


MEMBER = "an attacker who compromises an edge or a gate can connect as a fleet member"


def warnings(plan: Plan) -> list[str]:
    """Return the keys that cause a warning; ``init`` prints the same warnings as ``config check``."""
    deployment = initialize(plan)
    assert deployment.warnings == check(deployment.configuration, {}).warnings
    return [warning.key or "" for warning in deployment.warnings if MEMBER in warning.what]


LEAF_CA_KEY = "plugin.broker_auth.broker.fleet.server.leaf.tls.ca"
EDGE_KEY = "plugin.broker_auth.broker.edge.server.tls.certificate"


def test_leaf_ca_equal_to_fleet_ca_causes_a_warning(tmp_path: Path, theirs: Path) -> None:
    plan = own(tmp_path / "d", theirs)
    assert warnings(plan) == []
    files = dataclasses.replace(plan.files, leaf_ca=theirs / "pki/ca.pem")
    assert warnings(dataclasses.replace(plan, files=files, force=True)) == [LEAF_CA_KEY]


def test_leaf_ca_issued_by_fleet_ca_causes_a_warning(tmp_path: Path, theirs: Path) -> None:
    """An edge with such a leaf certificate can present the whole chain to the fleet."""
    key = load_pem_private_key((theirs / "pki/ca.key").read_bytes(), password=None)
    assert isinstance(key, EllipticCurvePrivateKey)
    root = CertificateAuthority(Pair(load_pem_x509_certificate((theirs / "pki/ca.pem").read_bytes()), key))
    below, _ = root.intermediate("leaf nodes").pair.write(tmp_path, "below")
    plan = own(tmp_path / "d", theirs)
    files = dataclasses.replace(plan.files, leaf_ca=below)
    assert warnings(dataclasses.replace(plan, files=files)) == [LEAF_CA_KEY]


def test_edge_with_fleet_server_certificate_causes_a_warning(tmp_path: Path, theirs: Path) -> None:
    plan = own(tmp_path / "d", theirs)
    files = dataclasses.replace(plan.files, edge_cert=None, edge_key=None)
    assert warnings(dataclasses.replace(plan, files=files)) == [EDGE_KEY]


def test_command_prints_warnings(tmp_path: Path, theirs: Path) -> None:
    plan, pki = own(tmp_path / "d", theirs), theirs / "pki"
    options = {name: getattr(plan.files, name) for name in ("ca", "server_cert", "server_key", "edge_cert", "edge_key")}
    options |= {name: getattr(plan.files, name) for name in ("leaf_cert", "leaf_key", "service_cert", "service_key")}
    options |= {"leaf_ca": pki / "ca.pem", "signer_cert": pki / "signer.pem", "host": "localhost"}
    arguments = [f"--{name.replace('_', '-')}={value}" for name, value in options.items()]
    done = CliRunner().invoke(main, ["init", str(plan.directory), *arguments])
    assert done.exit_code == 0
    assert MEMBER in done.stderr
    done = CliRunner().invoke(main, ["init", str(plan.directory), *arguments, "--force", "--json"])
    assert any(MEMBER in warning for warning in json.loads(done.stdout)["warnings"])


def test_leaf_certificate_of_another_ca_is_refused(tmp_path: Path) -> None:
    """If the leaf CA were created again, the fleet would refuse the existing leaf certificate."""
    initialize(dev(tmp_path))
    for name in ("leaf-ca.pem", "leaf-ca.key"):
        (tmp_path / "pki" / name).unlink()
    before = contents(tmp_path)
    with pytest.raises(
        InputError, match=r"leaf\.pem was not issued by the CA leaf-ca\.pem.*remove leaf\.pem and leaf\.key"
    ):
        initialize(dev(tmp_path, force=True))
    assert contents(tmp_path) == before


def test_all_missing_options_are_named() -> None:
    assert missing_options(Plan(directory=Path("d"))) == [
        "--host or --fleet-host", "--ca", "--server-cert", "--server-key", "--service-cert", "--service-key",
        "--leaf-ca", "--leaf-cert", "--leaf-key", "--signer-cert or --issuer",
    ]  # fmt: skip
    assert missing_options(Plan(directory=Path("d"), topology=Topology.SINGLE)) == [
        "--host or --fleet-host", "--ca", "--server-cert", "--server-key", "--issuer",
    ]  # fmt: skip


def test_failure_leaves_nothing_behind(tmp_path: Path, theirs: Path) -> None:
    wrong = tmp_path / "wrong.pem"
    wrong.write_text("no certificate")
    with pytest.raises(BrokerAuthError):
        initialize(own(tmp_path / "d", theirs, signer_cert=(str(wrong),)))
    assert not (tmp_path / "d").exists()


@pytest.mark.parametrize(
    "changes",
    [
        {"hosts": ("a b",)},
        {"hosts": ("x\nplugin.broker_auth.workers = 9",)},
        {"listen": "0.0.0.0\n"},
        {"edge_host": "-x"},
        {"provisioners": ("a\nb",)},
        {"issuers": (("choria", "ab\ncd"),)},
        {"signer_cert": ("a,b",)},
    ],
)
def test_value_cannot_inject_configuration_lines(tmp_path: Path, theirs: Path, changes: dict[str, object]) -> None:
    with pytest.raises(BrokerAuthError):
        initialize(own(tmp_path / "d", theirs, **changes))
    assert not (tmp_path / "d").exists()


def test_command_prints_the_next_three_commands(tmp_path: Path) -> None:
    done = CliRunner().invoke(main, ["init", str(tmp_path / "d"), "--dev-pki"])
    assert done.exit_code == 0, done.output
    following = done.output.partition("Next:\n")[2].splitlines()
    assert following == [
        f"  nats-server -c {tmp_path}/d/fleet.conf",
        f"  nats-server -c {tmp_path}/d/edge.conf",
        f"  broker-auth serve --config {tmp_path}/d/broker.conf",
    ]
    secrets = [
        path.read_text()
        for path in (tmp_path / "d/keys").rglob("*")
        if path.is_file() and not path.name.endswith(".public")
    ]
    assert not any(secret in done.output for secret in secrets)


def test_command_writes_json(tmp_path: Path) -> None:
    done = CliRunner().invoke(main, ["init", str(tmp_path / "d"), "--dev-pki", "--topology", "single", "--json"])
    document = json.loads(done.stdout)
    assert document["servers"] == {"fleet": str(tmp_path / "d/fleet.conf")}
    assert len(document["next"]) == 3


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["--dev-pki", "--signer-cert", ORG.hex],
        ["--dev-pki", "--issuer", "choria="],
        ["--dev-pki", "--issuer", "choria", "--issuer", "acme"],
        ["--issuer", "choria"],
    ],
)
def test_usage_error_exits_with_2(tmp_path: Path, arguments: list[str]) -> None:
    done = CliRunner().invoke(main, ["init", str(tmp_path / "d"), *arguments])
    assert done.exit_code == 2
    assert not (tmp_path / "d").exists()


def test_render_reproduces_what_init_wrote(tmp_path: Path) -> None:
    deployment = initialize(dev(tmp_path))
    for name, config in deployment.servers.items():
        done = CliRunner().invoke(main, ["config", "render", str(deployment.configuration), "--role", name])
        assert done.stdout == config.read_text()
