"""Loading of valid configurations."""

from __future__ import annotations

from ipaddress import ip_network
from pathlib import Path

import pytest

from broker_auth.errors import ConfigurationError
from broker_auth.settings.load import check, load
from broker_auth.settings.model import (
    AccountNames,
    KeySource,
    ProvisioningSettings,
    Role,
    Settings,
    StreamSettings,
    Zone,
)
from tests.settings.builder import CHORIA, HEX_KEY, ISSUER_MODE, PASSWORD, SYSTEM_PASSWORD, Directory, P

B = f"{P}broker.default."


def settings_of(directory: Directory, *, serving: bool = True) -> Settings:
    report = directory.check(serving=serving)
    assert report.settings is not None, [str(problem) for problem in report.problems]
    return report.settings


def revealed(settings: Settings) -> list[str]:
    return [secret.reveal() for secret in settings.provisioning.client_passwords]


def test_the_valid_configuration_has_no_findings(directory: Directory) -> None:
    report = directory.check()
    assert ([str(problem) for problem in (*report.problems, *report.warnings)], report.ok) == ([], True)


def test_the_valid_configuration(directory: Directory) -> None:
    settings = settings_of(directory)
    broker = settings.brokers[0]
    assert settings.path == directory.config
    assert revealed(settings) == [PASSWORD]
    assert [secret.reveal() for secret in settings.system_passwords] == [SYSTEM_PASSWORD]
    assert settings.provisioning.signers == (KeySource(name="signer.pem", path=directory.path / "signer.pem"),)
    assert (broker.name, broker.urls, broker.role) == ("default", ("tls://127.0.0.1:4222",), Role.FLEET)
    assert broker.tls.key == directory.path / "service.key"
    for secret, name in (
        (settings.zone("fleet").nkey_seed, "user"),
        (settings.zone("fleet").issuer_seed, "account"),
        (settings.zone("fleet").xkey_seed, "curve"),
    ):
        assert secret is not None
        assert secret.reveal() == (directory.path / f"{name}.seed").read_text().strip()


def test_defaults_are_those_of_the_model(tmp_path: Path) -> None:
    path = tmp_path / "broker.conf"
    path.write_text("")
    settings = load(path, {}, serving=False)
    assert settings == Settings(
        path=path,
        brokers=(),
        zones=(Zone(name="fleet"),),
        accounts=AccountNames(),
        provisioning=ProvisioningSettings(),
        system_user=None,
        system_passwords=(),
        client_hosts=(),
        client_signers=(),
        server_signers=(),
        deny_server_connections=False,
        issuers=(),
        pub_sub_ca=False,
        client_ca=(),
        token_leeway=0.0,
        chain_issuer_max_age=366 * 86_400.0,
        streams=StreamSettings(),
    )


def test_every_key_reaches_its_field(directory: Directory) -> None:
    server = f"{B}server."
    directory.set(
        {
            f"{CHORIA}provisioning.provisioner_without_token": "YES",
            f"{CHORIA}client_hosts": "192.0.2.7, 10.0.0.5/8,2001:db8::/32",
            f"{CHORIA}client_signer_cert": f"signer.pem,{HEX_KEY.upper()}",
            f"{CHORIA}server_signer_cert": HEX_KEY,
            f"{CHORIA}deny_server_connections": "1",
            f"{CHORIA}stream.event_retention": "1h30m",
            f"{CHORIA}stream.event_replicas": "1",
            f"{CHORIA}stream.machine_retention": "2w",
            f"{CHORIA}stream.machine_replicas": "-1",
            f"{CHORIA}stream.advisory_retention": "0",
            f"{CHORIA}stream.advisory_replicas": "3",
            f"{CHORIA}stream.leader_election_ttl": "90",
            f"{CHORIA}stream.leader_election_replicas": "5",
            f"{P}streams.provisioner_election_ttl": "30s",
            f"{P}account.fleet": "f",
            f"{P}account.provisioning": "p",
            f"{P}account.system": "$SYS",
            f"{P}provisioner.identities": r"one, /a,{1,2}\.b/ ,two,/x\/,y/,",
            f"{P}provisioning.isolate_nodes": "n",
            f"{P}provisioning.allow_non_expiring_tokens": "t",
            f"{P}provisioning.limits.max_subscriptions": "1",
            f"{P}provisioning.limits.max_payload": "2",
            f"{P}provisioning.limits.max_connections": "3",
            f"{P}provisioning.previous_client_password": "old",
            f"{P}system.previous_password": "older",
            f"{P}workers": "4",
            f"{P}token_leeway": "1m",
            f"{P}chain_issuer_max_age": "90d",
            f"{P}session_grace": "7d",
            f"{B}role": "edge",
            f"{B}tls.ca": "service.pem",
            f"{server}name": "n1",
            f"{server}listen": "0.0.0.0:4222",
            f"{server}tls.certificate": "service.pem",
            f"{server}tls.key": "service.key",
            f"{server}tls.ca": "ca.pem",
            f"{server}websocket.listen": "[::]:443",
            f"{server}leaf.listen": "h:7422",
            f"{server}leaf.remotes": "tls://a:1, tls://b:2/",
            f"{server}leaf.tls.certificate": "signer.pem",
            f"{server}leaf.tls.key": "signer.key",
            f"{server}leaf.tls.ca": "/ca.pem",
            f"{server}leaf.user": "edge1.example.net, edge2.example.net",
            f"{server}leaf.gate": "gate.example.net",
            f"{server}leaf.branch": "branch.example.net",
            f"{server}tls.cipher_suites": "TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256",
            f"{server}tls.curves": "X25519, CurveP384",
            f"{server}client_advertise": "nats.example.net:4222",
            f"{server}max_connections": "100",
            f"{server}store_dir": "js",
            f"{server}cluster.name": "c",
            f"{server}cluster.listen": "h:6222",
            f"{server}cluster.routes": "nats-route://a:6222",
            f"{server}monitor.listen": "127.0.0.1:8222",
        }
    )
    settings = settings_of(directory)
    here = directory.path
    assert settings.client_hosts == tuple(map(ip_network, ("192.0.2.7/32", "10.0.0.0/8", "2001:db8::/32")))
    assert settings.client_signers == (
        KeySource(name="signer.pem", path=here / "signer.pem"),
        KeySource(name=HEX_KEY[:16], hex=HEX_KEY),
    )
    assert settings.server_signers == (KeySource(name=HEX_KEY[:16], hex=HEX_KEY),)
    assert settings.streams == StreamSettings(
        event_retention=5400.0,
        event_replicas=1,
        machine_retention=14 * 86400.0,
        machine_replicas=-1,
        advisory_retention=0.0,
        advisory_replicas=3,
        leader_election_ttl=90.0,
        leader_election_replicas=5,
        provisioner_election_ttl=30.0,
    )
    assert settings.accounts == AccountNames(fleet="f", provisioning="p", system="$SYS")
    provisioning = settings.provisioning
    assert provisioning.provisioner_identities == ("one", r"/a,{1,2}\.b/", "two", r"/x\/,y/")
    assert (provisioning.provisioner_without_token, provisioning.isolate_nodes) == (True, False)
    assert provisioning.allow_non_expiring_tokens
    assert (provisioning.max_subscriptions, provisioning.max_payload, provisioning.max_connections) == (1, 2, 3)
    assert revealed(settings) == [PASSWORD, "old"]
    assert [secret.reveal() for secret in settings.system_passwords] == [SYSTEM_PASSWORD, "older"]
    assert (settings.zones[0].workers, settings.token_leeway, settings.deny_server_connections) == (4, 60.0, True)
    assert settings.chain_issuer_max_age == 90 * 86_400
    assert settings.session_grace == 7 * 86_400
    broker, server_settings = settings.brokers[0], settings.brokers[0].server
    assert (broker.role, broker.tls.ca, broker.tls.certificate) == (
        Role.EDGE,
        here / "service.pem",
        here / "service.pem",
    )
    assert (server_settings.name, server_settings.listen) == ("n1", "0.0.0.0:4222")
    assert (server_settings.tls.ca, server_settings.tls.certificate, server_settings.tls.key) == (
        here / "ca.pem",
        here / "service.pem",
        here / "service.key",
    )
    assert (server_settings.websocket_listen, server_settings.leaf_listen) == ("[::]:443", "h:7422")
    assert server_settings.leaf_remotes == ("tls://a:1", "tls://b:2")
    assert (server_settings.leaf_tls.ca, server_settings.leaf_tls.certificate, server_settings.leaf_tls.key) == (
        Path("/ca.pem"),
        here / "signer.pem",
        here / "signer.key",
    )
    assert server_settings.leaf_users == ("edge1.example.net", "edge2.example.net")
    assert (server_settings.leaf_gates, server_settings.leaf_branches) == (
        ("gate.example.net",),
        ("branch.example.net",),
    )
    assert server_settings.cipher_suites == ("TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256",)
    assert server_settings.curves == ("X25519", "CurveP384")
    assert (server_settings.client_advertise, server_settings.max_connections) == ("nats.example.net:4222", 100)
    assert server_settings.store_dir == here / "js"
    assert (server_settings.cluster_name, server_settings.cluster_listen) == ("c", "h:6222")
    assert (server_settings.cluster_routes, server_settings.monitor_listen) == (
        ("nats-route://a:6222",),
        "127.0.0.1:8222",
    )


def test_issuer_mode(directory: Directory) -> None:
    directory.set({**ISSUER_MODE, f"{P}provisioner.require_mtls": "false"})
    settings = settings_of(directory)
    assert settings.issuers == (KeySource(name="choria", hex=HEX_KEY),)
    assert (settings.issuer_mode, settings.provisioning.require_mtls, settings.pub_sub_ca) == (True, False, False)


def test_client_ca_falls_back_to_chorias(directory: Directory) -> None:
    directory.set({f"{P}client_ca": None, "plugin.security.file.ca": "ca.pem"})
    settings = settings_of(directory)
    assert (settings.client_ca, settings.pub_sub_ca) == ((directory.path / "ca.pem",), False)
    directory.set({"plugin.security.choria.ca": "signer.pem"})
    settings = settings_of(directory)
    assert (settings.client_ca, settings.pub_sub_ca) == ((directory.path / "signer.pem",), True)
    directory.set({f"{P}client_ca": "service.pem"})
    settings = settings_of(directory)
    assert (settings.client_ca, settings.pub_sub_ca) == ((directory.path / "service.pem",), True)


def test_relative_paths_start_at_the_configuration_directory(
    directory: Directory, monkeypatch: pytest.MonkeyPatch
) -> None:
    directory.save()
    monkeypatch.chdir(directory.path.parent)
    settings = load(Path(directory.path.name, "broker.conf"), {}, serving=True)
    assert settings.client_ca == (directory.path / "ca.pem",)


def test_a_secret_file_loses_one_line_end_only(directory: Directory) -> None:
    directory.write("system.password", " two words \r\n")
    assert settings_of(directory).system_passwords[0].reveal() == " two words "


def test_without_serving_service_files_are_not_required_or_opened(directory: Directory) -> None:
    for name in ("user.seed", "account.seed", "curve.seed", "service.key", "service.pem"):
        directory.write(name, "junk", 0o644)
    directory.set({f"{B}urls": None, f"{B}server.listen": "0.0.0.0:4222"})
    settings = settings_of(directory, serving=False)
    zone = settings.zones[0]
    assert (zone.nkey_seed, zone.issuer_seed, zone.xkey_seed) == (None, None, None)
    assert [(broker.name, broker.urls) for broker in settings.brokers] == [("default", ())]
    assert len(directory.check().problems) >= 4  # the same configuration cannot serve


def test_without_serving_the_policy_is_still_checked(directory: Directory) -> None:
    directory.set({f"{CHORIA}provisioning.signer_cert": "nowhere.pem", f"{P}workers": "0"})
    assert len(directory.check(serving=False).problems) == 2


def test_load_raises_with_every_problem(directory: Directory) -> None:
    directory.set({f"{P}workers": "0", f"{P}token_leeway": "2h"})
    path = directory.save()
    with pytest.raises(ConfigurationError) as caught:
        load(path, {}, serving=True)
    assert caught.value.problems == check(path, {}).problems
    assert len(caught.value.problems) == 2
    assert "\n" not in str(caught.value)
