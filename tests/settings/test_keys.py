"""The key table: complete, unambiguous, and the source of the reference."""

from __future__ import annotations

import pytest

from broker_auth.settings.keys.table import KEYS, find, nearest, reference, variables

# docs/configuration.md#keys-of-this-service and docs/configuration.md#keys-of-choria, as a second list.
PROMISED = [
    "plugin.choria.network.provisioning.signer_cert",
    "plugin.choria.network.provisioning.client_password",
    "plugin.choria.network.provisioning.provisioner_without_token",
    "plugin.choria.network.system.user",
    "plugin.choria.network.system.password",
    "plugin.choria.network.client_hosts",
    "plugin.choria.network.client_signer_cert",
    "plugin.choria.network.server_signer_cert",
    "plugin.choria.network.deny_server_connections",
    "plugin.security.issuer.names",
    "plugin.security.issuer.choria.public",
    "plugin.security.choria.ca",
    "plugin.security.file.ca",
    "plugin.security.choria.trusted_signers",
    "plugin.choria.network.stream.event_retention",
    "plugin.choria.network.stream.event_replicas",
    "plugin.choria.network.stream.machine_retention",
    "plugin.choria.network.stream.machine_replicas",
    "plugin.choria.network.stream.advisory_retention",
    "plugin.choria.network.stream.advisory_replicas",
    "plugin.choria.network.stream.leader_election_ttl",
    "plugin.choria.network.stream.leader_election_replicas",
    "plugin.broker_auth.brokers",
    "plugin.broker_auth.broker.x.urls",
    "plugin.broker_auth.broker.x.role",
    "plugin.broker_auth.broker.x.tls.ca",
    "plugin.broker_auth.broker.x.tls.certificate",
    "plugin.broker_auth.broker.x.tls.key",
    "plugin.broker_auth.tls.ca",
    "plugin.broker_auth.tls.certificate",
    "plugin.broker_auth.tls.key",
    "plugin.broker_auth.nkey_seed_file",
    "plugin.broker_auth.issuer_seed_file",
    "plugin.broker_auth.xkey_seed_file",
    "plugin.broker_auth.account.fleet",
    "plugin.broker_auth.account.provisioning",
    "plugin.broker_auth.account.system",
    "plugin.broker_auth.provisioner.identities",
    "plugin.broker_auth.provisioner.require_mtls",
    "plugin.broker_auth.provisioning.isolate_nodes",
    "plugin.broker_auth.provisioning.allow_non_expiring_tokens",
    "plugin.broker_auth.provisioning.limits.max_subscriptions",
    "plugin.broker_auth.provisioning.limits.max_payload",
    "plugin.broker_auth.provisioning.limits.max_connections",
    "plugin.broker_auth.client_ca",
    "plugin.broker_auth.workers",
    "plugin.broker_auth.token_leeway",
    "plugin.broker_auth.chain_issuer_max_age",
    "plugin.broker_auth.session_grace",
]


@pytest.mark.parametrize("written", PROMISED)
def test_every_documented_key_is_known(written: str) -> None:
    match = find(written)
    assert match is not None
    assert match[0].of(match[1]) == written


@pytest.mark.parametrize(
    "written",
    ["plugin.broker_auth.broker.a.b.urls", "plugin.broker_auth.broker..urls", "plugin.broker_auth.Workers", ""],
)
def test_unknown_keys_are_not_matched(written: str) -> None:
    assert find(written) is None


def test_no_two_keys_share_a_name_or_a_variable() -> None:
    assert len({key.name for key in KEYS}) == len(KEYS)
    shared = {name: keys for name, keys in variables(("default",), ("choria",)).items() if len(keys) > 1}
    assert shared == {}


def test_suggested_key_keeps_the_written_name() -> None:
    assert nearest("plugin.broker_auth.broker.edge.tls.certifcate") == "plugin.broker_auth.broker.edge.tls.certificate"


def test_passwords_are_marked_secret() -> None:
    assert {key.name for key in KEYS if key.secret} == {key.name for key in KEYS if key.name.endswith("password")}


def test_the_reference_describes_every_key_once() -> None:
    lines = reference().splitlines()
    assert [line for line in lines if line.startswith("### ")] == [f"### `{key.name}`" for key in KEYS]
    for key in KEYS:
        assert key.meaning in lines
        assert key.meaning.endswith(".")
