"""``config check --live`` with real brokers that can be served, and with others."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from broker_auth.deploy.pki import CertificateAuthority
from broker_auth.natsio.nkey import NkeyKind, generate_seed, public_nkey
from broker_auth.sandbox.natsserver import NatsServer, free_port
from tests import servers
from tests.cli.running import run
from tests.operate.deployment import EdgeDeployment

URLS = "plugin.broker_auth.broker.{}.urls"
# A server that knows the service's nkey as somebody of the fleet's.
MISPLACED = """
listen: "127.0.0.1:{port}"
tls {{ cert_file: "{directory}/server.pem", key_file: "{directory}/server.key", ca_file: "{directory}/ca.pem"
  verify: true }}
accounts {{ choria: {{ users: [ {{ nkey: {nkey} }} ] }} }}
"""


def problems(deployment: EdgeDeployment, code: int) -> dict[str, list[str]]:
    """Return the problems by key."""
    checked = run("config", "check", deployment.config, "--live", "--json")
    assert (checked.code, checked.json["valid"]) == (code, code == 0)
    by_key: dict[str, list[str]] = {}
    for item in checked.json["problems"]:
        assert (item["file"], item["line"]) == (str(deployment.config), None)
        assert item["remedy"]
        by_key.setdefault(item["key"], []).append(item["problem"])
    return by_key


@pytest.mark.e2e
def test_brokers_that_know_the_service_pass(tmp_path: Path) -> None:
    """The check needs no running service."""
    deployment = EdgeDeployment(tmp_path)
    with deployment.running(service=False, linked=False):
        assert problems(deployment, 0) == {}
        text = run("config", "check", deployment.config, "--live")
        assert (text.code, text.out.splitlines()) == (
            0,
            [
                f"{deployment.config}: valid",
                f"{deployment.url('fleet')} requires a client certificate",
                f"{deployment.url('edge')} does not ask for a client certificate",
            ],
        )
        listeners = run("config", "check", deployment.config, "--live", "--json").json["listeners"]
        assert [item["client_certificates"] for item in listeners] == ["required", "none"]
        assert all(item["client_certificates"] == item["expected"] for item in listeners)


@pytest.mark.e2e
def test_listener_that_asks_for_no_certificates_is_reported(tmp_path: Path) -> None:
    deployment = EdgeDeployment(tmp_path)
    config = deployment.server("fleet").config
    config.write_text(config.read_text().replace("verify: true", "verify: false", 1))
    with NatsServer(config):
        by_key = problems(deployment, 1)[URLS.format("fleet")]
    assert (
        f"{deployment.url('fleet')}: the listener does not ask for a client certificate, so no client is verified there"
        in by_key
    )


@pytest.mark.e2e
def test_every_broker_that_cannot_be_served_is_reported(tmp_path: Path) -> None:
    deployment = EdgeDeployment(tmp_path)
    with deployment.running(service=False, linked=False):
        deployment.write_secret("edge-user.seed", generate_seed(NkeyKind.USER))
        (tmp_path / "other-ca.pem").write_bytes(CertificateAuthority.create().certificate_pem)
        deployment.write_config("plugin.broker_auth.broker.fleet.tls.ca = other-ca.pem")
        by_key = problems(deployment, 1)
        assert set(by_key) == {URLS.format("fleet"), URLS.format("edge")}
        assert by_key[URLS.format("edge")][0].startswith(f"{deployment.url('edge')} does not answer the login")
        assert by_key[URLS.format("fleet")][0].startswith(f"TLS with {deployment.url('fleet')} fails")
        people = run("config", "check", deployment.config, "--live")
        assert people.code == 1
        assert (
            f"Error: {deployment.config}: {URLS.format('edge')}: {deployment.url('edge')} does not answer the login"
            in people.err
        )


@pytest.mark.e2e
def test_each_address_of_a_broker_is_checked(tmp_path: Path) -> None:
    deployment = EdgeDeployment(tmp_path)
    nobody = f"tls://127.0.0.1:{free_port()}"
    with deployment.running(service=False, linked=False):
        deployment.write_config(f"{URLS.format('fleet')} = {deployment.url('fleet')}, {nobody}")
        (problem,) = problems(deployment, 1)[URLS.format("fleet")]
        assert problem.startswith(f"{nobody} does not answer")


@pytest.mark.e2e
def test_broker_that_treats_the_service_as_a_client_is_an_error(tmp_path: Path) -> None:
    deployment = EdgeDeployment(tmp_path)
    seed = deployment.settings().zone("fleet").nkey_seed
    assert seed
    config = tmp_path / "misplaced.conf"
    config.write_text(
        MISPLACED.format(port=deployment.ports["fleet"], directory=tmp_path, nkey=public_nkey(seed.reveal()))
    )
    with NatsServer(config):
        (problem,) = problems(deployment, 1)[URLS.format("fleet")]
    assert problem == f"{deployment.url('fleet')} authenticates the service as an ordinary client (account choria)"


@pytest.mark.e2e
def test_unsafe_version_is_an_error(tmp_path: Path) -> None:
    deployment = EdgeDeployment(tmp_path)
    rendered = deployment.server("edge")
    with NatsServer(rendered.config, binary=servers.server(servers.BROKEN)):
        by_key = problems(deployment, 1)[URLS.format("edge")]
    assert by_key[0] == f"nats-server {servers.BROKEN} is older than {servers.OLDEST}"
    assert any("CVE-2026-33249" in problem for problem in by_key)


def test_invalid_configuration_is_not_checked_live(tmp_path: Path) -> None:
    deployment = EdgeDeployment(tmp_path)
    deployment.write_config("plugin.broker_auth.wrokers = 2")
    checked = run("config", "check", deployment.config, "--live", "--json")
    assert [item["key"] for item in checked.json["problems"]] == ["plugin.broker_auth.wrokers"]


def test_zone_without_seed_here_is_a_warning(tmp_path: Path) -> None:
    deployment = EdgeDeployment(tmp_path)
    (tmp_path / "edge-user.seed").unlink()
    checked = run("config", "check", deployment.config, "--live", "--json").json
    assert [item["key"] for item in checked["problems"]] == [URLS.format("fleet")]  # no server is running there
    assert any(re.match("not checked: the seed of zone edge", item["problem"]) for item in checked["warnings"])
