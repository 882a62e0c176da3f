"""``init`` validates the files and directories it is given, and writes its own files privately."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from broker_auth.deploy.init import initialize
from broker_auth.deploy.pki import CertificateAuthority, Pair, signer
from broker_auth.deploy.plan import OwnFiles, Plan, Topology
from broker_auth.errors import BrokerAuthError, InputError
from broker_auth.settings.load import check
from tests.builders import pemshapes

STRANGER = 12_345
CA = CertificateAuthority.create("fleet CA")
as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")


def own(directory: Path, **changed: bytes) -> Plan:
    """Return a plan with the operator's files, some of them changed."""
    server, service = CA.server(), CA.client("service")
    files = {
        "ca": CA.certificate_pem,
        "server_cert": server.certificate_pem,
        "server_key": server.key_pem,
        "service_cert": service.certificate_pem,
        "service_key": service.key_pem,
    }
    paths = {}
    for name, data in (files | changed).items():
        paths[name] = directory / name
        paths[name].write_bytes(data)
        paths[name].chmod(0o600)
    (directory / "signer.pem").write_bytes(signer().certificate_pem)
    return Plan(
        directory=directory / "d",
        topology=Topology.WEBSOCKET,
        hosts=["127.0.0.1"],
        files=OwnFiles(**paths),
        signer_cert=[str(directory / "signer.pem")],
        provisioners=["p.example.net"],
    )


def test_configuration_may_contain_a_password(tmp_path: Path) -> None:
    configuration = initialize(own(tmp_path)).configuration
    assert stat.S_IMODE(configuration.stat().st_mode) == 0o600
    with configuration.open("a") as file:
        file.write("plugin.broker_auth.system.previous_password = hunter2\n")
    report = check(configuration, {})
    assert (report.problems, report.warnings) == ((), ())


@as_root
@pytest.mark.parametrize("name", ["keys", "keys/edge"])
def test_key_directory_of_another_user_is_refused(tmp_path: Path, name: str) -> None:
    directory = tmp_path / "d" / name
    directory.mkdir(mode=0o700, parents=True)
    (tmp_path / "d/keys").chmod(0o700)
    os.chown(directory, STRANGER, 0)
    with pytest.raises(InputError, match=f"{name} belongs to user {STRANGER}"):
        initialize(Plan(directory=tmp_path / "d", dev_pki=True))
    assert not list(tmp_path.rglob("*.seed"))


OTHER: Pair = CA.server("other")


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"server_key": OTHER.key_pem}, "is not the key of"),
        ({"service_key": OTHER.key_pem}, "is not the key of"),
        (
            {"server_cert": pemshapes.indented(OTHER.certificate_pem), "server_key": OTHER.key_pem},
            "line 1: nats-server",
        ),
        ({"ca": CA.certificate_pem.rstrip() + CA.certificate_pem}, "is joined to what follows"),
        ({"server_cert": b""}, "it is empty"),
    ],
)
def test_unusable_files_are_refused_and_nothing_is_left(
    tmp_path: Path, changed: dict[str, bytes], message: str
) -> None:
    with pytest.raises(BrokerAuthError, match=message):
        initialize(own(tmp_path, **changed))
    assert not (tmp_path / "d").exists()


def test_questionable_files_cause_a_warning(tmp_path: Path) -> None:
    client = CA.client("127.0.0.1")
    deployment = initialize(own(tmp_path, server_cert=client.certificate_pem, server_key=client.key_pem))
    assert ["lacks serverAuth" in str(warning) for warning in deployment.warnings] == [True]


@pytest.mark.parametrize("before", [pemshapes.TEXT, pemshapes.BAG, b"\xef\xbb\xbf\n"])
def test_text_before_certificates_and_keys_is_skipped(tmp_path: Path, before: bytes) -> None:
    server, service = CA.server(), CA.client("service")
    pems = {
        "ca": CA.certificate_pem,
        "server_cert": server.certificate_pem,
        "server_key": server.key_pem,
        "service_cert": service.certificate_pem,
        "service_key": service.key_pem,
    }
    assert initialize(own(tmp_path, **{name: before + pem for name, pem in pems.items()})).warnings == ()
