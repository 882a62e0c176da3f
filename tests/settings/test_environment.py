"""The environment overrides the file, and a variable that means nothing is a problem."""

from __future__ import annotations

import pytest

from broker_auth.settings.keys.choria import SIGNER_CERT
from broker_auth.settings.keys.key import variable
from tests.settings.builder import CHORIA, HEX_KEY, Directory, P


def test_a_variable_overrides_the_file(directory: Directory) -> None:
    directory.set({f"{P}workers": "2"})
    settings = directory.check({"BROKER_AUTH_WORKERS": "3"}).settings
    assert settings is not None
    assert settings.zone("fleet").workers == 3


def test_a_variable_replaces_even_a_broken_value(directory: Directory) -> None:
    directory.set({f"{P}workers": "many", f"{P}brokers": "a b"})
    assert directory.check({"BROKER_AUTH_WORKERS": "3", "BROKER_AUTH_BROKERS": "default"}).ok


def test_choria_keys_and_secrets_can_be_overridden(directory: Directory) -> None:
    report = directory.check({"BROKER_AUTH_PLUGIN_CHORIA_NETWORK_PROVISIONING_CLIENT_PASSWORD": "from env"})
    assert report.settings is not None
    assert [secret.reveal() for secret in report.settings.provisioning.client_passwords] == ["from env"]


def test_brokers_and_issuers_named_by_the_environment_have_variables(directory: Directory) -> None:
    directory.set({f"{CHORIA}provisioning.signer_cert": None})
    report = directory.check(
        {
            "BROKER_AUTH_BROKERS": "default, edge-1",
            "BROKER_AUTH_BROKER_EDGE_1_URLS": "tls://127.0.0.1:4223",
            "BROKER_AUTH_BROKER_EDGE_1_ROLE": "edge",
            "BROKER_AUTH_PLUGIN_SECURITY_ISSUER_NAMES": "choria",
            "BROKER_AUTH_PLUGIN_SECURITY_ISSUER_CHORIA_PUBLIC": HEX_KEY,
        }
    )
    assert report.settings is not None, [str(found) for found in report.problems]
    assert [(broker.name, broker.urls) for broker in report.settings.brokers] == [
        ("default", ("tls://127.0.0.1:4222",)),
        ("edge-1", ("tls://127.0.0.1:4223",)),
    ]
    assert [issuer.name for issuer in report.settings.issuers] == ["choria"]


def test_a_relative_path_in_the_environment_starts_at_the_file(directory: Directory) -> None:
    directory.set({f"{P}client_ca": None})
    report = directory.check({"BROKER_AUTH_CLIENT_CA": "ca.pem"})
    assert report.settings is not None
    assert report.settings.client_ca == (directory.path / "ca.pem",)


@pytest.mark.parametrize(
    ("name", "value", "about"),
    [
        ("BROKER_AUTH_WORKERS", "0", "out of range"),
        ("BROKER_AUTH_WORKERS", " ", "no value"),
        ("BROKER_AUTH_WORKER", "1", "did you mean BROKER_AUTH_WORKERS?"),
        ("BROKER_AUTH_BROKER_EDGE_URLS", "tls://127.0.0.1:1", "BROKER_AUTH_BROKER_DEFAULT_URLS"),
        ("BROKER_AUTH_NKEY_SEED_FILE", "nowhere", "does not exist"),
        ("BROKER_AUTH_ZZZZZZZZZZZZZZZZZZZZZZZZZZZZZZZZZZ", "1", "does not stand for a key"),
        ("BROKER_AUTH_CLIENT_CA", "ca\udcff.pem", "control character"),
    ],
)
def test_a_bad_variable_is_one_problem_that_names_it(directory: Directory, name: str, value: str, about: str) -> None:
    (problem,) = directory.check({name: value}).problems
    assert (problem.file, problem.line, problem.key) == ("environment", None, name)
    assert about in str(problem)


def test_brokers_that_share_a_variable_cannot_use_it(directory: Directory) -> None:
    directory.set(
        {
            f"{P}brokers": "a-b, a_b",
            f"{P}broker.default.urls": None,
            f"{P}broker.a-b.urls": "tls://127.0.0.1:1",
            f"{P}broker.a_b.urls": "tls://127.0.0.1:2",
        }
    )
    assert directory.check().ok
    (problem,) = directory.check({"BROKER_AUTH_BROKER_A_B_URLS": "tls://127.0.0.1:3"}).problems
    assert f"{P}broker.a-b.urls or {P}broker.a_b.urls" in problem.what


def test_other_variables_and_the_programs_own_are_left_alone(directory: Directory) -> None:
    assert directory.check({"PATH": "/bin", "BROKER_AUTH_CONFIG": "x", "_BROKER_AUTH_COMPLETE": "x"}).ok


def test_names_of_variables() -> None:
    assert variable(f"{P}broker.default.tls.ca") == "BROKER_AUTH_BROKER_DEFAULT_TLS_CA"
    assert variable(SIGNER_CERT.name) == "BROKER_AUTH_PLUGIN_CHORIA_NETWORK_PROVISIONING_SIGNER_CERT"
