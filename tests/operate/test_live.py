"""``config check --live``: real brokers that can be served with a configuration, and others."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from broker_auth.deploy.pki import CertificateAuthority
from broker_auth.natsio.nkey import NkeyKind, generate_seed, public_nkey
from broker_auth.sandbox.natsserver import NatsServer, free_port
from tests import servers
from tests.cli.running import run
from tests.operate.site import Site

URLS = "plugin.broker_auth.broker.{}.urls"
# A server that knows the service's nkey as somebody of the fleet's.
MISPLACED = """
listen: "127.0.0.1:{port}"
tls {{ cert_file: "{directory}/server.pem", key_file: "{directory}/server.key", ca_file: "{directory}/ca.pem" }}
accounts {{ choria: {{ users: [ {{ nkey: {nkey} }} ] }} }}
"""


def problems(site: Site, code: int) -> dict[str, list[str]]:
    """What is wrong with each broker."""
    checked = run("config", "check", site.config, "--live", "--json")
    assert (checked.code, checked.json["valid"]) == (code, code == 0)
    found: dict[str, list[str]] = {}
    for item in checked.json["problems"]:
        assert (item["file"], item["line"]) == (str(site.config), None)
        assert item["remedy"]
        found.setdefault(item["key"], []).append(item["problem"])
    return found


@pytest.mark.e2e
def test_brokers_that_know_the_service(tmp_path: Path) -> None:
    """No service needs to run, and none is asked."""
    site = Site(tmp_path)
    with site.running(service=False, linked=False):
        assert problems(site, 0) == {}
        text = run("config", "check", site.config, "--live")
        assert (text.code, text.out) == (0, f"{site.config}: valid\n")


@pytest.mark.e2e
def test_every_broker_that_cannot_be_served_is_named(tmp_path: Path) -> None:
    site = Site(tmp_path)
    with site.running(service=False, linked=False):
        site.write_secret("edge-user.seed", generate_seed(NkeyKind.USER))
        (tmp_path / "other-ca.pem").write_bytes(CertificateAuthority.create().certificate_pem)
        site.write_config("plugin.broker_auth.broker.fleet.tls.ca = other-ca.pem")
        found = problems(site, 1)
        assert set(found) == {URLS.format("fleet"), URLS.format("edge")}
        assert found[URLS.format("edge")][0].startswith(f"{site.url('edge')} does not answer the login")
        assert found[URLS.format("fleet")][0].startswith(f"TLS with {site.url('fleet')} fails")
        people = run("config", "check", site.config, "--live")
        assert people.code == 1
        assert (
            f"Error: {site.config}: {URLS.format('edge')}: {site.url('edge')} does not answer the login" in people.err
        )


@pytest.mark.e2e
def test_each_address_of_a_broker_is_tried(tmp_path: Path) -> None:
    site = Site(tmp_path)
    nobody = f"tls://127.0.0.1:{free_port()}"
    with site.running(service=False, linked=False):
        site.write_config(f"{URLS.format('fleet')} = {site.url('fleet')}, {nobody}")
        (problem,) = problems(site, 1)[URLS.format("fleet")]
        assert problem.startswith(f"{nobody} does not answer")


@pytest.mark.e2e
def test_a_broker_that_takes_the_service_for_somebody_else(tmp_path: Path) -> None:
    site = Site(tmp_path)
    seed = site.settings().zone("fleet").nkey_seed
    assert seed
    config = tmp_path / "misplaced.conf"
    config.write_text(MISPLACED.format(port=site.ports["fleet"], directory=tmp_path, nkey=public_nkey(seed.reveal())))
    with NatsServer(config):
        (problem,) = problems(site, 1)[URLS.format("fleet")]
    assert problem == f"{site.url('fleet')} takes the service for an ordinary client, into account choria"


@pytest.mark.e2e
def test_a_version_that_breaks_what_is_promised(tmp_path: Path) -> None:
    site = Site(tmp_path)
    rendered = site.server("edge")
    with NatsServer(rendered.config, binary=servers.server(servers.BROKEN)):
        found = problems(site, 1)[URLS.format("edge")]
    assert found[0] == f"nats-server {servers.BROKEN} is older than {servers.OLDEST}"
    assert any("CVE-2026-33249" in problem for problem in found)


def test_a_wrong_configuration_is_not_tried(tmp_path: Path) -> None:
    site = Site(tmp_path)
    site.write_config("plugin.broker_auth.wrokers = 2")
    checked = run("config", "check", site.config, "--live", "--json")
    assert [item["key"] for item in checked.json["problems"]] == ["plugin.broker_auth.wrokers"]


def test_a_zone_whose_seed_is_elsewhere_is_a_warning(tmp_path: Path) -> None:
    site = Site(tmp_path)
    (tmp_path / "edge-user.seed").unlink()
    checked = run("config", "check", site.config, "--live", "--json").json
    assert [item["key"] for item in checked["problems"]] == [URLS.format("fleet")]  # nothing runs there
    assert any(re.match("not checked: the seed of zone edge", item["problem"]) for item in checked["warnings"])
