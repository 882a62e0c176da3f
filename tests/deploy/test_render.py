"""Rendered configurations are accepted by nats-server, complete, and safe against injection."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from broker_auth.deploy.natsbinary import check_configuration
from broker_auth.deploy.render import render, select_broker
from broker_auth.deploy.template import quote
from broker_auth.errors import InputError
from broker_auth.natsio.bucket import OUTPOSTS
from broker_auth.natsio.nkey import public_nkey
from broker_auth.natsio.subjects import CALLOUT_ACCOUNT, reader_account
from broker_auth.natsio.tls import TLSFiles
from broker_auth.policy.gauge import provisioner_reserve
from broker_auth.sandbox.natsserver import NatsServer, free_port
from broker_auth.settings.model import AccountNames, Role
from tests.deploy.shapes import LEAF_NAME, Shape, Topology, build, with_readers, with_server, with_zones

MIXED = pytest.param("mixed", marks=pytest.mark.mixed_server)
TOPOLOGIES = ["edge", "websocket", "single", MIXED]

SHARED = [
    ("websocket", "fleet", True),
    ("single", "fleet", True),
    pytest.param("mixed", "fleet", True, marks=pytest.mark.mixed_server),
]


def rendered(shape: Shape) -> dict[str, str]:
    return {broker.name: render(shape.settings, broker) for broker in shape.settings.brokers}


def statements(text: str) -> list[str]:
    """Return the lines without comments and indentation."""
    return [line.strip() for line in text.splitlines() if line.strip() and not line.strip().startswith("#")]


@pytest.mark.e2e
@pytest.mark.parametrize("cluster", [False, True], ids=["alone", "cluster"])
@pytest.mark.parametrize("xkey", [False, True], ids=["plain", "xkey"])
@pytest.mark.parametrize("topology", TOPOLOGIES)
def test_nats_server_accepts_every_rendered_configuration(
    tmp_path: Path, topology: Topology, xkey: bool, cluster: bool
) -> None:
    shape = build(tmp_path, topology, xkey=xkey, cluster=cluster)
    for name, text in rendered(shape).items():
        config = tmp_path / f"{name}.conf"
        config.write_text(text)
        check_configuration(config)
        assert ("xkey:" in text) is xkey
        assert ("cluster {" in text) is (cluster and name == "fleet")


@pytest.mark.parametrize("topology", TOPOLOGIES)
def test_rendered_configuration_has_no_plaintext_listener_default_user_or_secret(
    tmp_path: Path, topology: Topology
) -> None:
    shape = build(tmp_path, topology, cluster=True)
    for text in rendered(shape).values():
        lines = statements(text)
        listeners = sum(line.startswith("listen:") for line in lines)
        assert listeners == sum(line in ("tls {",) for line in lines) - text.count("remotes:")
        assert "allow_non_tls" not in text
        assert "no_tls" not in text
        assert "no_auth_user" not in text
        assert "password" not in "\n".join(lines)
        for zone in shape.settings.zones:
            for seed in (zone.nkey_seed, zone.issuer_seed, zone.xkey_seed):
                assert seed
                assert seed.reveal() not in text


def test_configuration_contains_only_the_public_keys_of_its_zone(tmp_path: Path) -> None:
    shape = build(tmp_path)
    texts = rendered(shape)
    for zone in shape.settings.zones:
        seeds = [zone.nkey_seed, zone.issuer_seed, zone.xkey_seed]
        for key in [*(public_nkey(seed.reveal()) for seed in seeds if seed), zone.break_glass_nkey, zone.kick_nkey]:
            assert key
            assert [name for name, text in texts.items() if key in text] == [zone.name]


def test_edge_configuration_has_no_fleet_account_and_no_streams(tmp_path: Path) -> None:
    shape = build(tmp_path)
    lines = "\n".join(statements(rendered(shape)["edge"]))
    assert shape.settings.accounts.fleet not in lines
    assert "jetstream" not in lines


@pytest.mark.parametrize(("topology", "name", "shared"), [*SHARED, ("edge", "edge", False), ("edge", "fleet", False)])
def test_connections_are_reserved_if_nodes_and_provisioners_share_an_account(
    tmp_path: Path, topology: Topology, name: str, shared: bool
) -> None:
    shape = build(tmp_path, topology)
    text = rendered(shape)[name]
    limit = shape.settings.provisioning.max_connections
    assert (f"max_connections: {limit + provisioner_reserve(limit)}" in text) is shared
    # The service shows the nodes that wait at an edge, and needs no other number there.
    assert text.count("SERVER.CONNS") == (6 if shared else 3 if name == "edge" else 0)


def test_only_the_fleet_listener_verifies_clients(tmp_path: Path) -> None:
    for topology, name, verifies in (("edge", "fleet", 1), ("edge", "edge", 0), ("single", "fleet", 0)):
        directory = tmp_path / f"{topology}-{name}"
        directory.mkdir()
        lines = statements(rendered(build(directory, topology))[name])  # type: ignore[arg-type]
        assert lines.count("verify: true") == verifies


def test_reader_is_a_user_of_the_fleet_only_and_with_the_bucket_only(tmp_path: Path) -> None:
    shape = with_readers(build(tmp_path), "away")
    texts = rendered(shape)
    for zone, nkey in shape.settings.readers.items():
        assert {name: text.count(nkey) for name, text in texts.items()} == {"fleet": 2, "edge": 0}  # and in auth_users
        assert f'"{reader_account(zone)}": {{' in texts["fleet"]
        assert texts["fleet"].count(f'"{OUTPOSTS.prefix}{zone}"') == 4  # exported, imported, imported as, published
    without = dataclasses.replace(shape, settings=dataclasses.replace(shape.settings, revocations_bucket=False))
    assert not any("READER" in text for text in rendered(without).values())
    taken = dataclasses.replace(shape.settings.accounts, fleet=reader_account("away"))
    with pytest.raises(InputError, match="reserved"):
        render(dataclasses.replace(shape.settings, accounts=taken), shape.broker("fleet"))


@pytest.mark.parametrize("which", ["break_glass_nkey", "kick_nkey"])
def test_user_of_the_system_account_is_rendered_only_if_configured(tmp_path: Path, which: str) -> None:
    shape = build(tmp_path)
    key: str | None = None
    for name, text in rendered(shape).items():
        key = getattr(shape.zone(name), which)
        assert key
        assert text.count(key) == 2  # as a user and in auth_users
    without = with_zones(shape, **{which: None})
    assert all(text.count("nkey: ") == 2 for text in rendered(without).values())  # the service's and the other
    assert key
    broken = with_zones(shape, **{which: key[:-1] + ("A" if key[-1] != "A" else "B")}).settings
    with pytest.raises(InputError):
        render(broken, broken.brokers[0])


@pytest.mark.e2e
@pytest.mark.parametrize(
    "name", ['a"b', "a\\", "$HOME", "a'b", "a#b{}", "ünïcode ☃", '"; no_auth_user: x; "', "a b", "%q", "\\x41"]
)
def test_any_file_name_is_rendered_unchanged(tmp_path: Path, name: str) -> None:
    """The server reads its certificate from that path, so the name was rendered unchanged."""
    directory = tmp_path / name
    directory.mkdir()
    shape = build(directory, "single")
    config = tmp_path / "nats.conf"
    config.write_text(render(shape.settings, shape.broker("fleet")))
    with NatsServer(config) as server:
        assert server.running
    assert (directory / "js").is_dir()


@pytest.mark.parametrize("value", ["a\nb", "a\rb", "a\x00b", "a\tb", "a\x7fb", "a\x85b", "a\ud800b"])
def test_control_characters_are_refused(tmp_path: Path, value: str) -> None:
    with pytest.raises(InputError, match="control character"):
        quote(value)
    shape = with_server(build(tmp_path, "single"), "fleet", listen=value)
    with pytest.raises(InputError, match="control character"):
        render(shape.settings, shape.broker("fleet"))


@pytest.mark.parametrize("name", ["", "a b", 'a"b', "a{b", "$G", CALLOUT_ACCOUNT, "-a", "a\n"])
def test_invalid_account_names_are_refused(tmp_path: Path, name: str) -> None:
    shape = build(tmp_path)
    settings = dataclasses.replace(shape.settings, accounts=AccountNames(provisioning=name))
    with pytest.raises(InputError, match="not a valid account name"):
        render(settings, shape.broker("fleet"))


@pytest.mark.parametrize(
    ("topology", "name", "field", "missing"),
    [
        ("edge", "fleet", "listen", "server.listen"),
        ("edge", "fleet", "tls", "server.tls.ca"),
        ("edge", "fleet", "leaf_users", "server.leaf.user"),
        ("edge", "edge", "leaf_remotes", "server.leaf.remotes"),
        ("edge", "edge", "leaf_tls", "server.leaf.tls.key"),
        ("single", "fleet", "tls", "server.tls.certificate"),
    ],
)
def test_missing_setting_is_named(tmp_path: Path, topology: Topology, name: str, field: str, missing: str) -> None:
    empty = TLSFiles() if field.endswith("tls") else () if field in ("leaf_remotes", "leaf_users") else None
    shape = with_server(build(tmp_path, topology), name, **{field: empty})
    with pytest.raises(InputError, match=missing.replace(".", r"\.")):
        render(shape.settings, shape.broker(name))


def test_routes_with_addresses_are_refused(tmp_path: Path) -> None:
    """Members are identified by the DNS names in their certificates: an address would lock all of them out."""
    shape = build(tmp_path, cluster=True)
    for route in ("tls://192.0.2.1:6222", "nats-route://[2001:db8::1]:6222"):
        numbered = with_server(shape, "fleet", cluster_routes=("tls://nats1.example.net:6222", route))
        with pytest.raises(
            InputError, match=r"cluster\.routes: \S+: nats-server identifies cluster members by the DNS names"
        ):
            render(numbered.settings, numbered.broker("fleet"))
    alone = with_server(shape, "fleet", cluster_routes=())
    with pytest.raises(InputError, match=r"server\.cluster\.routes"):
        render(alone.settings, alone.broker("fleet"))


@pytest.mark.parametrize(
    ("name", "listen", "routes", "expected"),
    [
        ("nats2", "0.0.0.0:6222", "nats1.example.net:6222 nats2.example.net:6222", "nats2.example.net:6222"),
        (
            "nats2.example.net",
            "0.0.0.0:6222",
            "nats1.example.net:6222 nats2.example.net:7222",
            "nats2.example.net:7222",
        ),
        ("b", "127.0.0.1:6002", "localhost:6001 localhost:6002", "localhost:6002"),
        ("other", "0.0.0.0:6222", "nats1.example.net:6222 nats2.example.net:6222", None),
        ("nats", "0.0.0.0:6222", "nats.a.example.net:6222 nats.b.example.net:6222", None),
        ("nats2", "0.0.0.0:6222", "nats1.example.net nats2.example.net", None),
    ],
)
def test_cluster_member_advertises_its_own_route(
    name: str, listen: str, routes: str, expected: str | None, tmp_path: Path
) -> None:
    urls = tuple(f"tls://{route}" for route in routes.split())
    changes = {"name": name, "cluster_listen": listen, "cluster_routes": urls}
    shape = with_server(build(tmp_path, cluster=True), "fleet", **changes)
    advertised = [
        line for line in statements(render(shape.settings, shape.broker("fleet"))) if line.startswith("advertise:")
    ]
    assert advertised == ([f'advertise: "{expected}"'] if expected else [])


@pytest.mark.parametrize("seed", ["nkey_seed", "issuer_seed"])
def test_missing_seed_is_named(tmp_path: Path, seed: str) -> None:
    shape = with_zones(build(tmp_path), **{seed: None})
    with pytest.raises(InputError, match=rf"broker_auth\.{seed}_file"):
        render(shape.settings, shape.broker("fleet"))
    with pytest.raises(InputError, match=rf"broker_auth\.zone\.edge\.{seed}_file"):
        render(shape.settings, shape.broker("edge"))


@pytest.mark.parametrize("listen", ["0.0.0.0:8222", "192.0.2.1:8222", "example.net:8222", ":8222", "8222"])
def test_monitor_must_listen_on_loopback(tmp_path: Path, listen: str) -> None:
    shape = with_server(build(tmp_path), "fleet", monitor_listen=listen)
    with pytest.raises(InputError, match="loopback"):
        render(shape.settings, shape.broker("fleet"))


@pytest.mark.e2e
@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
def test_monitor_listens_at_the_configured_address(tmp_path: Path, host: str) -> None:
    port = free_port()
    shape = with_server(build(tmp_path), "fleet", monitor_listen=f"{host}:{port}")
    config = tmp_path / "nats.conf"
    config.write_text(render(shape.settings, shape.broker("fleet")))
    with NatsServer(config) as server:
        assert server.port("monitor") == port


def test_several_leaf_users_are_rendered(tmp_path: Path) -> None:
    shape = with_server(build(tmp_path), "fleet", leaf_users=(LEAF_NAME, "other.example.net"))
    lines = statements(rendered(shape)["fleet"])
    for user in (LEAF_NAME, "other.example.net"):
        assert f'{{ user: "{user}", account: "provisioning" }}' in lines


def test_broker_is_selected_by_role_and_name(tmp_path: Path) -> None:
    settings = build(tmp_path).settings
    assert select_broker(settings, Role.EDGE).name == "edge"
    with pytest.raises(InputError, match="no broker of role single is configured; choose from fleet \\(fleet\\), edge"):
        select_broker(settings, Role.SINGLE)
    doubled = dataclasses.replace(
        settings, brokers=(*settings.brokers, dataclasses.replace(settings.brokers[1], name="edge2"))
    )
    with pytest.raises(InputError, match="choose one of edge, edge2"):
        select_broker(doubled, Role.EDGE)
    assert select_broker(doubled, Role.EDGE, "edge2").name == "edge2"
