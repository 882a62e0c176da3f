"""``init`` writes a deployment that starts as it is, and never takes anything away."""

from __future__ import annotations

import json
import ssl
import stat
from pathlib import Path

import pytest
from click.testing import CliRunner

from broker_auth.cli.config_render import render_command
from broker_auth.cli.init import init_command
from broker_auth.deploy.init import initialize
from broker_auth.deploy.natsserver import NatsServer, check_configuration, free_port
from broker_auth.deploy.plan import OwnFiles, Plan, Topology, missing_options
from broker_auth.errors import BrokerAuthError, InputError
from broker_auth.settings.load import check
from broker_auth.settings.model import Role
from tests.deploy.responder import connect_nkey

TOPOLOGIES = list(Topology)


def dev(directory: Path, topology: Topology = Topology.EDGE, *, force: bool = False) -> Plan:
    ports = {name: free_port() for name in ("port", "edge_port", "leaf_port", "websocket_port")}
    return Plan(directory=directory, topology=topology, dev_pki=True, force=force, **ports)  # type: ignore[arg-type]


def contents(directory: Path) -> dict[str, bytes]:
    return {str(p.relative_to(directory)): p.read_bytes() for p in directory.rglob("*") if p.is_file()}


@pytest.mark.e2e
@pytest.mark.parametrize("topology", TOPOLOGIES)
async def test_the_deployment_starts_as_it_is(tmp_path: Path, topology: Topology) -> None:
    deployment = initialize(dev(tmp_path / "d", topology))
    report = check(deployment.configuration, {})
    assert (report.ok, [str(warning) for warning in report.warnings]) == (True, [])
    tls = ssl.create_default_context(cafile=str(tmp_path / "d/pki/ca.pem"))
    if topology is not Topology.SINGLE:
        tls.load_cert_chain(tmp_path / "d/pki/operator.pem", tmp_path / "d/pki/operator.key")
    assert deployment.break_glass_seed
    seeds = (deployment.break_glass_seed.read_text(), (tmp_path / "d/keys/service.seed").read_text())
    for broker in deployment.settings.brokers:
        config = deployment.servers[broker.name]
        check_configuration(config)
        async with NatsServer(config):
            for seed in seeds:  # both are let in without a callout, which nobody would answer
                await (await connect_nkey(broker.urls[0], tls, seed)).close()


@pytest.mark.parametrize("topology", TOPOLOGIES)
def test_private_files_are_private_and_configurations_hold_no_secret(tmp_path: Path, topology: Topology) -> None:
    initialize(dev(tmp_path / "d", topology))
    assert stat.S_IMODE((tmp_path / "d/keys").stat().st_mode) == 0o700
    public = (".pem", ".conf", ".public")
    secrets = []
    for path in (tmp_path / "d").rglob("*"):
        if path.is_file() and not path.name.endswith(public):
            assert stat.S_IMODE(path.stat().st_mode) == 0o600, path
            secrets.append(path.read_text().strip())
    assert len(secrets) >= 8
    for path in (tmp_path / "d").glob("*.conf"):
        assert not any(secret in path.read_text() for secret in secrets)


def test_the_roles_are_those_of_the_topology(tmp_path: Path) -> None:
    roles = {
        topology: [broker.role for broker in initialize(dev(tmp_path / topology, topology)).settings.brokers]
        for topology in TOPOLOGIES
    }
    assert roles == {
        Topology.EDGE: [Role.FLEET, Role.EDGE],
        Topology.WEBSOCKET: [Role.FLEET],
        Topology.SINGLE: [Role.SINGLE],
    }


def test_single_is_for_an_issuer_network(tmp_path: Path) -> None:
    settings = initialize(dev(tmp_path / "d", Topology.SINGLE)).settings
    assert settings.issuer_mode
    assert not settings.provisioning.require_mtls
    assert len((tmp_path / "d/pki/issuer.seed").read_text()) == 64


@pytest.mark.parametrize("topology", TOPOLOGIES)
def test_nothing_is_overwritten_without_force(tmp_path: Path, topology: Topology) -> None:
    initialize(dev(tmp_path, topology))
    before = contents(tmp_path)
    with pytest.raises(InputError, match=r"holds broker\.conf, fleet\.conf.*--force"):
        initialize(dev(tmp_path, topology))
    assert contents(tmp_path) == before


def test_one_file_that_is_there_is_enough_to_refuse_and_nothing_is_written(tmp_path: Path) -> None:
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
    assert changed == {"broker.conf", "fleet.conf", "edge.conf", "keys/break-glass.seed"} | made_again
    assert "keys/break-glass.seed" not in after
    assert deployment.break_glass_seed is None
    assert deployment.settings.break_glass_nkey == before["keys/break-glass.public"].decode()


def test_half_a_pair_is_refused(tmp_path: Path) -> None:
    initialize(dev(tmp_path))
    (tmp_path / "pki/ca.key").unlink()
    before = contents(tmp_path)
    with pytest.raises(InputError, match=r"pki/ca\.key is not"):
        initialize(dev(tmp_path, force=True))
    assert contents(tmp_path) == before


def own(directory: Path, source: Path, **changes: object) -> Plan:
    pki = source / "pki"
    names = {"server": "server", "leaf": "leaf", "service": "service"}
    pairs = {f"{to}_cert": pki / f"{name}.pem" for to, name in names.items()}
    pairs |= {f"{to}_key": pki / f"{name}.key" for to, name in names.items()}
    given: dict[str, object] = {
        "hosts": ("localhost",),
        "files": OwnFiles(ca=pki / "ca.pem", **pairs),
        "signer_cert": (str(pki / "signer.pem"),),
        **changes,
    }
    return Plan(directory=directory, **given)  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def theirs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory whose ``pki`` stands for the operator's own."""
    directory = tmp_path_factory.mktemp("theirs")
    initialize(dev(directory))
    return directory


@pytest.mark.e2e
def test_the_operators_own_certificates_are_used_where_they_are(tmp_path: Path, theirs: Path) -> None:
    deployment = initialize(own(tmp_path / "d", theirs))
    fleet, edge = deployment.settings.brokers
    assert fleet.server.tls.key == theirs / "pki/server.key"
    assert fleet.server.leaf_user == "edge.leaf.example.net"
    assert edge.server.leaf_tls.certificate == theirs / "pki/leaf.pem"
    assert fleet.urls == ("tls://localhost:4222",)
    assert fleet.server.listen == "0.0.0.0:4222"
    assert not (tmp_path / "d/pki").exists()
    for config in deployment.servers.values():
        check_configuration(config)


def test_what_is_missing_is_named_at_once() -> None:
    assert missing_options(Plan(directory=Path("d"))) == [
        "--host", "--ca", "--server-cert", "--server-key", "--service-cert", "--service-key",
        "--leaf-cert", "--leaf-key", "--signer-cert or --issuer",
    ]  # fmt: skip
    assert missing_options(Plan(directory=Path("d"), topology=Topology.SINGLE)) == [
        "--host", "--ca", "--server-cert", "--server-key", "--issuer",
    ]  # fmt: skip


def test_a_failure_half_way_leaves_nothing_behind(tmp_path: Path, theirs: Path) -> None:
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
def test_a_value_cannot_add_lines_to_the_configuration(
    tmp_path: Path, theirs: Path, changes: dict[str, object]
) -> None:
    with pytest.raises(BrokerAuthError):
        initialize(own(tmp_path / "d", theirs, **changes))
    assert not (tmp_path / "d").exists()


def test_the_command_prints_the_next_three_commands(tmp_path: Path) -> None:
    done = CliRunner().invoke(init_command, [str(tmp_path / "d"), "--dev-pki"])
    assert done.exit_code == 0, done.output
    following = done.output.partition("Next:\n")[2].splitlines()
    assert following == [
        f"  nats-server -c {tmp_path}/d/fleet.conf",
        f"  nats-server -c {tmp_path}/d/edge.conf",
        f"  broker-auth serve --config {tmp_path}/d/broker.conf",
    ]
    secrets = [path.read_text() for path in (tmp_path / "d/keys").iterdir() if not path.name.endswith(".public")]
    assert not any(secret in done.output for secret in secrets)


def test_the_command_as_json(tmp_path: Path) -> None:
    done = CliRunner().invoke(init_command, [str(tmp_path / "d"), "--dev-pki", "--topology", "single", "--json"])
    document = json.loads(done.stdout)
    assert document["servers"] == {"fleet": str(tmp_path / "d/fleet.conf")}
    assert len(document["next"]) == 3


@pytest.mark.parametrize("arguments", [[], ["--dev-pki", "--issuer", "choria=ab"], ["--issuer", "choria"]])
def test_wrong_usage_is_told_apart(tmp_path: Path, arguments: list[str]) -> None:
    done = CliRunner().invoke(init_command, [str(tmp_path / "d"), *arguments])
    assert done.exit_code == 2
    assert not (tmp_path / "d").exists()


def test_render_reproduces_what_init_wrote(tmp_path: Path) -> None:
    deployment = initialize(dev(tmp_path))
    for name, config in deployment.servers.items():
        done = CliRunner().invoke(render_command, [str(deployment.configuration), "--role", name])
        assert done.stdout == config.read_text()
