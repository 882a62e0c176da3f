"""Settings that are allowed but probably not intended: one row, no problem, exactly one warning at its place."""

from __future__ import annotations

import pytest

from broker_auth.settings.load import check
from tests.settings.builder import CHORIA, HEX_KEY, ISSUER_MODE, NOW, Directory, P, certificate
from tests.settings.test_problems import PASSWORD_KEY, SIGNER, Row, one

B = f"{P}broker.default."


def aged(key: str, name: str, days: float, about: str) -> Row:
    """Return a row whose certificate expires in ``days``, with the name and place of the valid one."""
    return Row(key=key, about=about, prepare=lambda made: made.write(name, certificate(name, days)[0]))


WARNINGS = {
    "x509 mode without password": Row(key=PASSWORD_KEY, about="not enabled", change={PASSWORD_KEY: None}),
    "x509 mode without signer": Row(key=SIGNER, about="not enabled", change={SIGNER: None}),
    "issuer mode without password": Row(
        key=PASSWORD_KEY, about="not enabled", change={**ISSUER_MODE, PASSWORD_KEY: None}
    ),
    "Ed25519 signer in issuer mode": Row(key=SIGNER, about="never used", change={**ISSUER_MODE, SIGNER: HEX_KEY}),
    "any verified peer may provision": one(f"{P}provisioner.identities", None, "every verified certificate"),
    "no CA": one(f"{P}client_ca", None, "not set"),
    "no xkey": one(f"{P}xkey_seed_file", None, "in clear"),
    "signer expired": aged(SIGNER, "signer.pem", -1, "expired on"),
    "signer about to expire": aged(SIGNER, "signer.pem", 29, "expires on"),
    "CA expired": Row(
        key=f"{P}client_ca",
        about="expired on",
        change={f"{P}client_ca": "old.pem"},
        prepare=lambda made: made.write("old.pem", certificate("old", -1)[0]),
    ),
    "sessions that cannot be revoked": one(f"{P}session_grace", "7d", "without plugin.broker_auth.revocations"),
    "plaintext URL": one(f"{B}urls", "nats://broker.example.net:4222", "TLS"),
    "plaintext URL of an address": one(f"{B}urls", "nats://192.0.2.1:4222", "TLS"),
    "unlisted issuer": one("plugin.security.issuer.choria.public", HEX_KEY, "not listed"),
    "misspelt provisioning key": Row(
        key=f"{CHORIA}provisioning.client_pasword",
        about="client_password?",
        change={f"{CHORIA}provisioning.client_pasword": "x"},
    ),
    "upper-case system key": one(f"{CHORIA}System.Password", "x", "no effect"),
    "misspelt issuer key": one("plugin.security.issuer.choria.publik", HEX_KEY, "issuer.choria.public?"),
    "guarded key like no other": one(f"{CHORIA}system.zzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzz", "x", "no effect"),
    "misspelt client hosts": one(f"{CHORIA}client_host", "10.0.0.0/8", "client_hosts?"),
    "misspelt deny": one(f"{CHORIA}deny_server_conections", "1", "deny_server_connections?"),
    "server certificate elsewhere": Row(
        key=f"{B}server.tls.certificate",
        about="not on this machine",
        change={f"{B}server.tls.certificate": "/nowhere/c.pem", f"{B}server.tls.key": "/nowhere/c.key"},
    ),
}


@pytest.mark.parametrize("row", WARNINGS.values(), ids=WARNINGS)
def test_one_doubtful_setting_is_one_warning_at_its_line(directory: Directory, row: Row) -> None:
    directory.set(row.change)
    row.prepare(directory)
    report = directory.check()
    assert [str(problem) for problem in report.problems] == []
    assert report.settings is not None
    assert [(problem.file, problem.line, problem.key) for problem in report.warnings] == [
        (str(directory.config), directory.line(row.key) if row.key in directory.keys else None, row.key)
    ], [str(problem) for problem in report.warnings]
    assert row.about in str(report.warnings[0])


def test_group_writable_file_with_a_secret_causes_a_warning(directory: Directory) -> None:
    directory.save(0o660)
    report = check(directory.config, {}, now=NOW)
    (warning,) = report.warnings
    assert (report.ok, warning.line, warning.key) == (True, directory.line(PASSWORD_KEY), PASSWORD_KEY)


@pytest.mark.parametrize("url", ["nats://127.0.0.1:4222", "nats://[::1]:4222", "nats://localhost", "tls://192.0.2.1"])
def test_safe_urls_cause_no_warning(directory: Directory, url: str) -> None:
    directory.set({f"{B}urls": url})
    assert directory.check().warnings == ()


ODD_ELSEWHERE = {
    "issuer mode needs neither signer nor identities": {**ISSUER_MODE, f"{P}provisioner.identities": None},
    "Ed25519 signer in x509 mode": {SIGNER: HEX_KEY},
    "no provisioning at all": {SIGNER: None, PASSWORD_KEY: None},
    "no provisioning, no identities": {SIGNER: None, PASSWORD_KEY: None, f"{P}provisioner.identities": None},
}


@pytest.mark.parametrize("change", ODD_ELSEWHERE.values(), ids=ODD_ELSEWHERE)
def test_settings_doubtful_only_in_another_mode_cause_no_warning(
    directory: Directory, change: dict[str, str | None]
) -> None:
    directory.set(change)
    report = directory.check()
    assert (report.problems, report.warnings) == ((), ())


# From go-choria's config; this service does not use them, and they resemble its own keys.
FOREIGN = (
    f"{CHORIA}client_port",
    f"{CHORIA}peer_port",
    f"{CHORIA}peer_user",
    f"{CHORIA}peer_password",
    f"{CHORIA}peers",
    f"{CHORIA}stream.store",
    "plugin.choria.stats_port",
    "plugin.choria.middleware_hosts",
    "plugin.security.provider",
    "plugin.security.file.certificate",
    "plugin.security.file.key",
    "plugin.security.choria.certificate",
    "plugin.security.choria.key",
    "plugin.security.choria.token_file",
    "plugin.security.choria.seed_file",
    "identity",
    "loglevel",
)


@pytest.mark.parametrize("key", FOREIGN)
def test_unused_choria_keys_are_ignored_silently(directory: Directory, key: str) -> None:
    directory.set({key: "anything"})
    report = directory.check()
    assert (report.problems, report.warnings) == ((), ())


@pytest.mark.parametrize(
    ("key", "value", "warned"),
    [
        (f"{CHORIA}leafnode_port", "6222", True),
        (f"{CHORIA}leafnode_port", "0", False),
        (f"{CHORIA}websocket_port", "4333", True),
        (f"{CHORIA}gateway_port", "7222", True),
        (f"{CHORIA}client_tls_force_required", "false", True),
        (f"{CHORIA}client_tls_force_required", "true", False),
        ("plugin.choria.broker_network", "false", True),
        ("plugin.choria.broker_network", "true", False),
    ],
)
def test_ignored_key_that_affects_admission_causes_a_warning(
    directory: Directory, key: str, value: str, warned: bool
) -> None:
    directory.set({key: value})
    report = directory.check()
    assert report.ok
    assert [warning.key for warning in report.warnings] == [key] * warned


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({}, "provider 'puppet' takes `puppet config print ssldir`/certs/ca.pem"),
        ({"plugin.security.provider": "puppet", "plugin.choria.ssldir": "/ssl"}, "takes /ssl/certs/ca.pem"),
        ({"plugin.security.provider": "certmanager"}, "takes ca.crt of the secret that cert-manager made"),
        ({"plugin.security.provider": "pkcs11"}, "provider 'pkcs11' takes its own"),
    ],
)
def test_missing_ca_is_explained_by_the_security_provider(
    directory: Directory, keys: dict[str, str], message: str
) -> None:
    directory.set({f"{P}client_ca": None, **keys})
    assert message in " ".join(str(warning) for warning in directory.check().warnings)


def test_empty_value_of_unused_choria_key_is_ignored(directory: Directory) -> None:
    directory.set({"collectives": ""})
    report = directory.check()
    assert (report.problems, report.warnings) == ((), ())
