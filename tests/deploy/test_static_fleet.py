"""Files of ``init`` and ``config render`` for a static fleet."""

from __future__ import annotations

import dataclasses
import re
import stat
import sys
from pathlib import Path

import bcrypt
import pytest
from click.testing import CliRunner

from broker_auth.cli import main
from broker_auth.deploy.init import initialize
from broker_auth.deploy.natsbinary import check_configuration
from broker_auth.deploy.passwords import hash_password
from broker_auth.deploy.plan import Plan
from broker_auth.deploy.render import render
from broker_auth.errors import InputError
from broker_auth.natsio.subjects import CALLOUT_ACCOUNT
from broker_auth.sandbox.natsserver import free_port
from broker_auth.secret import Secret
from broker_auth.settings.load import check
from broker_auth.settings.model import FleetAuth, Role, Settings
from tests.deploy.shapes import Shape, Topology, build, with_server

PASSWORD = 'hunter2-"\\'
SYSTEM_PASSWORD = "hunter2-system"


def static(directory: Path, topology: Topology = "edge") -> Shape:
    shape = build(directory, topology)
    zones = tuple(
        dataclasses.replace(zone, served=not zone.is_fleet, nkey_seed=None, issuer_seed=None, xkey_seed=None)
        if zone.is_fleet
        else zone
        for zone in shape.settings.zones
    )
    provisioning = dataclasses.replace(
        shape.settings.provisioning, enabled=True, client_passwords=(Secret(PASSWORD), Secret("previous"))
    )
    settings = dataclasses.replace(
        shape.settings,
        zones=zones,
        provisioning=provisioning,
        system_user='admin"; }',
        system_passwords=(Secret(SYSTEM_PASSWORD),),
    )
    return dataclasses.replace(shape, settings=settings)


def fleet(settings: Settings) -> str:
    return render(settings, settings.brokers[0])


def users(text: str) -> dict[str, str]:
    """Return the password hash of each user."""
    pairs = re.findall(r'user: ("(?:[^"\\]|\\.)*"),?\s+password: "([^"]*)"', text)
    return {user.strip('"').replace("\\", ""): hashed for user, hashed in pairs}


@pytest.mark.e2e
def test_nats_server_accepts_it(tmp_path: Path) -> None:
    config = tmp_path / "fleet.conf"
    config.write_text(fleet(static(tmp_path).settings))
    check_configuration(config)


def test_fleet_has_no_callout_and_the_edge_has_no_default_user(tmp_path: Path) -> None:
    settings = static(tmp_path).settings
    texts = {broker.name: render(settings, broker) for broker in settings.brokers}
    for word, name in (("auth_callout", "edge"), (CALLOUT_ACCOUNT, "edge"), ("no_auth_user", "fleet")):
        assert [name_found for name_found, text in texts.items() if word in text] == [name]


def test_passwords_are_there_as_hashes_only(tmp_path: Path) -> None:
    text = fleet(static(tmp_path).settings)
    assert "hunter2" not in text
    hashes = users(text)
    assert set(hashes) == {"provisioner", 'admin"; }'}
    for hashed, password in ((hashes["provisioner"], PASSWORD), (hashes['admin"; }'], SYSTEM_PASSWORD)):
        assert bcrypt.checkpw(password.encode(), hashed.encode())
        assert not bcrypt.checkpw(b"previous", hashed.encode())
        assert hashed.startswith("$2a$")


def test_rendering_twice_gives_the_same_text(tmp_path: Path) -> None:
    settings = static(tmp_path).settings
    assert fleet(settings) == fleet(settings)


def test_salts_differ_between_users_and_deployments() -> None:
    owners = (("a", "k"), ("b", "k"), ("a", "l"), ("ak", ""))
    hashes = [hash_password(Secret("x"), *owner) for owner in owners]
    assert len({hashed[:29] for hashed in hashes}) == len(owners)


def test_salt_does_not_depend_on_the_password() -> None:
    first, second = (hash_password(Secret(text), "a") for text in ("x", "y"))
    assert first[:29] == second[:29]
    assert first != second


def test_without_provisioning_there_is_no_provisioner(tmp_path: Path) -> None:
    settings = static(tmp_path).settings
    settings = dataclasses.replace(
        settings, provisioning=dataclasses.replace(settings.provisioning, enabled=False), system_user=None
    )
    assert users(fleet(settings)) == {}
    assert "contains no secret" in fleet(settings)


def test_listener_without_client_certificates_is_refused(tmp_path: Path) -> None:
    shape = static(tmp_path)
    with pytest.raises(InputError, match="cannot decide by itself"):
        fleet(with_server(shape, "fleet", websocket_listen="127.0.0.1:4443").settings)
    single = dataclasses.replace(shape.settings.brokers[0], role=Role.SINGLE)
    with pytest.raises(InputError, match="cannot decide by itself"):
        render(shape.settings, single)


def test_missing_library_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "bcrypt", None)
    with pytest.raises(InputError, match=r"broker-auth\[static\]"):
        fleet(static(tmp_path).settings)


def test_init_makes_no_key_of_the_fleet_and_keeps_hashes_private(tmp_path: Path) -> None:
    ports = {name: free_port() for name in ("port", "edge_port", "leaf_port", "websocket_port")}
    plan = Plan(directory=tmp_path / "d", dev_pki=True, fleet_auth=FleetAuth.STATIC, **ports)  # type: ignore[arg-type]
    deployment = initialize(plan)
    keys = {path.name for path in (tmp_path / "d" / "keys").iterdir()}
    users = {f"{user}.{half}" for user in ("break-glass", "kick") for half in ("seed", "public")}
    assert keys == users | {"client_password", "system_password", "edge"}
    modes = {name: stat.S_IMODE(path.stat().st_mode) for name, path in deployment.servers.items()}
    assert modes == {"fleet": 0o600, "edge": 0o644}
    report = check(deployment.configuration, {})
    assert [warning.key for warning in report.warnings] == ["plugin.broker_auth.fleet.auth"]
    with pytest.raises(InputError, match="already contains broker"):
        initialize(plan)


@pytest.mark.parametrize(
    "options",
    [("--topology", "websocket"), ("--topology", "single"), ("--provisioner", "p.example.net"), ("--issuer", "a=b")],
)
def test_init_refuses_what_does_not_go_with_it(tmp_path: Path, options: tuple[str, str]) -> None:
    done = CliRunner().invoke(main, ["init", str(tmp_path / "d"), "--dev-pki", "--fleet-auth", "static", *options])
    assert done.exit_code == 2
    assert options[0] in done.output
    assert not (tmp_path / "d").exists()


def test_config_zone_makes_the_keys_of_the_fleet(tmp_path: Path) -> None:
    config = tmp_path / "broker.conf"
    config.touch()
    done = CliRunner().invoke(main, ["config", "zone", str(config), "fleet"])
    assert done.exit_code == 0, done.output
    assert "plugin.broker_auth.issuer_seed_file = keys/issuer.seed" in done.stdout.splitlines()
