"""The configuration of a listener that verifies a client certificate if one is given.

It is rendered only for a nats-server that accepts it, so most of these tests need one; the others use a program that
accepts everything.
"""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from broker_auth.deploy.natsbinary import BINARY_VARIABLE, OPTIONAL_CERTIFICATES
from broker_auth.deploy.render import render
from broker_auth.errors import InputError
from broker_auth.natsio.tls import TLSFiles
from broker_auth.sandbox.natsserver import NatsServer
from broker_auth.settings.load import check
from broker_auth.settings.model import BrokerSettings, ClientCertificates, Role
from tests.deploy.shapes import Shape, build, with_server


@pytest.fixture
def accepting(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Name a program that accepts every configuration."""
    program = tmp_path / "accepting-nats-server"
    program.write_text("#!/bin/sh\nexit 0\n")
    program.chmod(0o755)
    monkeypatch.setenv(BINARY_VARIABLE, str(program))


def text_of(shape: Shape) -> str:
    return render(shape.settings, shape.broker("fleet"))


def client_listener(text: str) -> str:
    """Return the TLS block of the listener for clients."""
    match = re.search(r"^tls \{\n(.*?)^\}", text, re.DOTALL | re.MULTILINE)
    assert match
    return match[1]


@pytest.mark.usefixtures("accepting")
def test_only_the_client_listener_has_the_option_and_names_its_ca(tmp_path: Path) -> None:
    text = text_of(build(tmp_path, "mixed", cluster=True))
    assert text.count(f"{OPTIONAL_CERTIFICATES}: true") == 1
    block = client_listener(text)
    assert f"{OPTIONAL_CERTIFICATES}: true" in block
    assert f'ca_file: "{tmp_path}/ca.pem"' in block
    assert "verify: true" not in block  # nats-server refuses both
    assert "verify_cert_and_check_known_urls: true" in text  # the routes still demand certificates


@pytest.mark.usefixtures("accepting")
def test_listener_without_a_ca_is_refused(tmp_path: Path) -> None:
    shape = build(tmp_path, "mixed")
    files = shape.broker("fleet").server.tls
    shape = with_server(shape, "fleet", tls=TLSFiles(certificate=files.certificate, key=files.key))
    with pytest.raises(InputError, match=r"server of role mixed is incomplete; set \S+\.server\.tls\.ca$"):
        text_of(shape)


@pytest.mark.e2e
def test_configuration_is_not_rendered_for_a_server_that_refuses_it(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=f"does not accept {OPTIONAL_CERTIFICATES}"):
        text_of(build(tmp_path, "mixed"))


@pytest.mark.e2e
@pytest.mark.mixed_server
async def test_server_starts_with_the_rendered_configuration(tmp_path: Path) -> None:
    config = tmp_path / "fleet.conf"
    config.write_text(text_of(build(tmp_path, "mixed", cluster=True)))
    async with NatsServer(config) as server:
        assert server.running


def test_mixed_broker_is_in_the_fleets_zone_and_takes_everybody(tmp_path: Path) -> None:
    broker: BrokerSettings = build(tmp_path, "mixed").broker("fleet")
    assert broker.zone == "fleet"
    assert not broker.role.is_outpost
    assert broker.role.verifies_clients
    assert broker.takes_nodes_and_provisioners


def test_roles_differ_in_what_their_listeners_do_about_certificates() -> None:
    modes = {role: role.client_certificates for role in Role}
    assert modes == {
        Role.FLEET: ClientCertificates.REQUIRED,
        Role.MIXED: ClientCertificates.OPTIONAL,
        Role.EDGE: ClientCertificates.NONE,
        Role.GATE: ClientCertificates.NONE,
        Role.SINGLE: ClientCertificates.NONE,
    }


def test_mixed_listener_cannot_decide_by_itself(tmp_path: Path) -> None:
    """A default user on it would admit strangers as members of the fleet."""
    config = tmp_path / "broker.conf"
    config.write_text(
        "plugin.broker_auth.fleet.auth = static\nplugin.broker_auth.brokers = fleet\n"
        "plugin.broker_auth.broker.fleet.role = mixed\nplugin.broker_auth.broker.fleet.urls = tls://127.0.0.1:4222\n"
    )
    problems = [str(problem) for problem in check(config, {}).problems]
    assert any("admits clients without a certificate cannot decide by itself" in problem for problem in problems)
