"""Every mistake: one row, exactly one problem, at the right file, line and key."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import pytest
from cryptography.hazmat.primitives.serialization import BestAvailableEncryption, Encoding, PrivateFormat

from broker_auth.natsio.nkey import NkeyKind, generate_seed
from tests.settings.builder import CHORIA, HEX_KEY, ISSUER_MODE, Directory, P, certificate, check_file, private_pem


@dataclass(frozen=True, kw_only=True)
class Row:
    """A change to the valid configuration and the problem that it causes.

    ``about`` is a part of the problem, so that a row cannot pass for another reason.
    """

    key: str
    about: str
    change: Mapping[str, str | None] = field(default_factory=dict)
    prepare: Callable[[Directory], object] = lambda _: None


def one(key: str, value: str | None, about: str) -> Row:
    """Return a row that changes only the wrong key."""
    return Row(key=key, about=about, change={key: value})


def file(key: str, name: str, data: bytes | str, about: str, mode: int = 0o600) -> Row:
    """Return a row that changes only the file that a key names."""
    return Row(key=key, about=about, prepare=lambda made: made.write(name, data, mode))


B = f"{P}broker.default."
SIGNER = f"{CHORIA}provisioning.signer_cert"
PASSWORD_KEY = f"{CHORIA}provisioning.client_password"
NAMES = "plugin.security.issuer.names"
PUBLIC = "plugin.security.issuer.choria.public"
SEED = generate_seed(NkeyKind.USER)
BROKEN_SEED = SEED[:20] + ("A" if SEED[20] != "A" else "B") + SEED[21:]
PEM, PRIVATE = certificate("other")
WITH_ISSUER = dict(ISSUER_MODE)

PROBLEMS = {
    # values
    "no value": one(f"{P}workers", "", "no value"),
    "not a boolean": one(f"{P}provisioning.isolate_nodes", "perhaps", "boolean"),
    "no workers": one(f"{P}workers", "0", "out of range"),
    "too many workers": one(f"{P}workers", "257", "out of range"),
    "a later form of the file": one(f"{P}config_version", "2", "out of range"),
    "a bound of nothing": one(f"{P}streams.max_bytes", "0", "out of range"),
    "half a worker": one(f"{P}workers", "1.5", "whole number"),
    "not ASCII digits": one(f"{P}workers", "٣", "whole number"),
    "leeway too long": one(f"{P}token_leeway", "61s", "out of range"),
    "chain issuer's age too short": one(f"{P}chain_issuer_max_age", "59m", "out of range"),
    "grace too long": one(f"{P}session_grace", "91d", "out of range"),
    "leeway no duration": one(f"{P}token_leeway", "soon", "duration"),
    "no subscriptions": one(f"{P}provisioning.limits.max_subscriptions", "0", "out of range"),
    "unlimited payload": one(f"{P}provisioning.limits.max_payload", "-1", "out of range"),
    "negative connections": one(f"{P}provisioning.limits.max_connections", "-5", "out of range"),
    "zero replicas": one(f"{CHORIA}stream.event_replicas", "0", "out of range"),
    "six replicas": one(f"{CHORIA}stream.leader_election_replicas", "6", "out of range"),
    "replicas -2": one(f"{CHORIA}stream.machine_replicas", "-2", "out of range"),
    "no retention": one(f"{CHORIA}stream.advisory_retention", "1x", "duration"),
    "election without end": one(f"{CHORIA}stream.leader_election_ttl", "0s", "out of range"),
    "election that no provisioner takes part in": one(f"{P}streams.provisioner_election_ttl", "3s", "out of range"),
    "client host": one(f"{CHORIA}client_hosts", "10.0.0.0/8, 10.0.0.300", "10.0.0.300"),
    "client hosts empty": one(f"{CHORIA}client_hosts", ",", "empty"),
    "bad value of a key that is not used": one("plugin.security.file.ca", "ca\x07.pem", "control character"),
    "control character": one(f"{P}client_ca", "ca\x07.pem", "control character"),
    "open regular expression": one(f"{P}provisioner.identities", "/provisioner", "closing slash"),
    "bad regular expression": one(f"{P}provisioner.identities", "ok, /a(b/", "/a(b/"),
    "ambiguous regular expression": one(f"{P}provisioner.identities", "/[[a]/", "nested set"),
    "empty regular expression": one(f"{P}provisioner.identities", "//", "empty"),
    "long identity": one(f"{P}provisioner.identities", "x" * 513, "longer"),
    "account with space": one(f"{P}account.fleet", "my fleet", "usable name"),
    "global account": one(f"{P}account.system", "$G", "default account"),
    "accounts equal": one(f"{P}account.system", "provisioning", "same account"),
    "account equals a default": one(f"{P}account.fleet", "system", "same account"),
    "break-glass seed": one(f"{P}break_glass_nkey", SEED, "nkey"),
    # trusted keys
    "signer missing": one(SIGNER, "nowhere.pem", "does not exist"),
    "second signer missing": one(SIGNER, "signer.pem, nowhere.pem", "nowhere.pem does not exist"),
    "signer is a directory": one(SIGNER, ".", "is a directory"),
    "signer is a private key": one(SIGNER, "signer.key", "private key"),
    "signer is garbage": file(SIGNER, "signer.pem", "no key", "neither PEM"),
    "signer is a broken certificate": file(SIGNER, "signer.pem", PEM[:200], "PEM"),
    "client signer missing": one(f"{CHORIA}client_signer_cert", "nowhere.pem", "does not exist"),
    "server signer missing": one(f"{CHORIA}server_signer_cert", "nowhere.pem", "does not exist"),
    "home directory": one(SIGNER, "~/signer.pem", "does not exist"),
    "CA missing": one(f"{P}client_ca", "nowhere.pem", "does not exist"),
    "CA is not a certificate": one(f"{P}client_ca", "ca.key", "no readable PEM certificate"),
    "Choria CA missing": Row(
        key="plugin.security.choria.ca",
        about="does not exist",
        change={f"{P}client_ca": None, "plugin.security.choria.ca": "nowhere.pem"},
    ),
    "issuer without key": Row(key=NAMES, about=PUBLIC, change={**WITH_ISSUER, PUBLIC: None}),
    "issuer key too short": Row(key=PUBLIC, about="62 characters", change={**WITH_ISSUER, PUBLIC: HEX_KEY[2:]}),
    "issuer key not hex": Row(key=PUBLIC, about="public key", change={**WITH_ISSUER, PUBLIC: "x" * 64}),
    "issuer twice": Row(key=NAMES, about="twice", change={**WITH_ISSUER, NAMES: "choria, choria"}),
    "issuer with client signer": Row(
        key=f"{CHORIA}client_signer_cert",
        about="combined",
        change={**WITH_ISSUER, f"{CHORIA}client_signer_cert": "signer.pem"},
    ),
    "issuer with server signer": Row(
        key=f"{CHORIA}server_signer_cert",
        about="combined",
        change={**WITH_ISSUER, f"{CHORIA}server_signer_cert": "signer.pem"},
    ),
    "issuer with trusted signers": Row(
        key="plugin.security.choria.trusted_signers",
        about="combined",
        change={**WITH_ISSUER, "plugin.security.choria.trusted_signers": HEX_KEY},
    ),
    "mTLS switched off": one(f"{P}provisioner.require_mtls", "false", "organization issuers"),
    # users and secrets
    "system user alone": Row(
        key=f"{CHORIA}system.user", about="system.password", change={f"{CHORIA}system.password": None}
    ),
    "system password alone": Row(
        key=f"{CHORIA}system.password", about="system.user", change={f"{CHORIA}system.user": None}
    ),
    "system user is the provisioner": one(f"{CHORIA}system.user", "provisioner", "provisioners"),
    "previous client password alone": Row(
        key=f"{P}provisioning.previous_client_password",
        about="client_password",
        change={PASSWORD_KEY: None, f"{P}provisioning.previous_client_password": "x"},
    ),
    "previous system password alone": Row(
        key=f"{P}system.previous_password",
        about="system.password",
        change={
            f"{CHORIA}system.user": None,
            f"{CHORIA}system.password": None,
            f"{P}system.previous_password": "x",
        },
    ),
    "secret file missing": one(PASSWORD_KEY, "file:nowhere", "does not exist"),
    "secret without file": one(PASSWORD_KEY, "file:", "names no file"),
    "secret file empty": file(f"{CHORIA}system.password", "system.password", "\n", "empty"),
    "secret not UTF-8": file(f"{CHORIA}system.password", "system.password", b"\xff", "UTF-8"),
    "secret file too large": file(f"{CHORIA}system.password", "system.password", "x" * 5000, "larger"),
    "secret readable by others": file(f"{CHORIA}system.password", "system.password", "x", "0604", 0o604),
    "secret writable by group": file(f"{CHORIA}system.password", "system.password", "x", "0620", 0o620),
    # seeds
    "no user seed": one(f"{P}nkey_seed_file", None, "not set"),
    "no issuer seed": one(f"{P}issuer_seed_file", None, "not set"),
    "user seed missing": one(f"{P}nkey_seed_file", "nowhere.seed", "does not exist"),
    "account seed for the user": one(f"{P}nkey_seed_file", "account.seed", "an account"),
    "user seed for the issuer": one(f"{P}issuer_seed_file", "user.seed", "a user"),
    "account seed for the xkey": one(f"{P}xkey_seed_file", "account.seed", "an account"),
    "seed checksum": file(f"{P}nkey_seed_file", "user.seed", BROKEN_SEED, "checksum"),
    "seed file empty": file(f"{P}nkey_seed_file", "user.seed", "\n", "empty"),
    "seed readable by others": file(f"{P}nkey_seed_file", "user.seed", SEED, "0604", 0o604),
    "seed open to all": file(f"{P}xkey_seed_file", "curve.seed", generate_seed(NkeyKind.CURVE), "0644", 0o644),
    "seed written inline": one(f"{P}nkey_seed_file", SEED, "holds a seed"),
    # brokers
    "no URLs": one(f"{B}urls", None, "not set"),
    "URL without host": one(f"{B}urls", "tls://:4222", "host and port"),
    "URL without scheme": one(f"{B}urls", "broker.example.net:4222", "host and port"),
    "URL scheme": one(f"{B}urls", "http://127.0.0.1:4222", "scheme"),
    "URL port": one(f"{B}urls", "tls://127.0.0.1:65536", "65536"),
    "URL port zero": one(f"{B}urls", "tls://127.0.0.1:0", "port 0"),
    "URL path": one(f"{B}urls", "tls://127.0.0.1:4222/x", "host and port"),
    "URL with password": one(f"{B}urls", "tls://me:pass@127.0.0.1:4222", "user name"),
    "cipher suite": one(f"{B}server.tls.cipher_suites", "TLS_RSA_WITH_RC4_128_SHA", "write one of TLS_ECDHE_ECDSA"),
    "curve": one(f"{B}server.tls.curves", "P-256", "write one of X25519, CurveP256"),
    "client_advertise": one(f"{B}server.client_advertise", "nats.example.net", "is not"),
    "max_connections": one(f"{B}server.max_connections", "0", "whole number from 1"),
    "leaf names": Row(
        key=f"{B}server.leaf.gate",
        about="is also in",
        change={f"{B}server.leaf.user": "a, b", f"{B}server.leaf.gate": "b"},
    ),
    "role": one(f"{B}role", "leaf", "fleet, edge, gate, single"),
    "broker twice": one(f"{P}brokers", "default, default", "twice"),
    "broker name": one(f"{P}brokers", "default, two words", "usable name"),
    "second broker without URLs": Row(
        key=f"{P}broker.edge.urls", about="not set", change={f"{P}brokers": "default, edge"}
    ),
    "broker not served": one(f"{P}broker.edge.urls", "tls://127.0.0.1:4223", "not served"),
    "listen": one(f"{B}server.listen", "4222", "host:port"),
    "listen port": one(f"{B}server.monitor.listen", "127.0.0.1:70000", "70000"),
    "leaf remote": one(f"{B}server.leaf.remotes", "https://127.0.0.1:7422", "scheme"),
    "route with password": one(f"{B}server.cluster.routes", "tls://me:pass@127.0.0.1:6222", "user name"),
    "server name": one(f"{B}server.name", "a b", "usable name"),
    # TLS files
    "TLS CA missing": one(f"{P}tls.ca", "nowhere.pem", "does not exist"),
    "TLS CA garbage": Row(
        key=f"{P}tls.ca",
        about="no readable PEM",
        change={f"{P}tls.ca": "junk.pem"},
        prepare=lambda made: made.write("junk.pem", "junk"),
    ),
    "TLS certificate missing": one(f"{P}tls.certificate", "nowhere.pem", "does not exist"),
    "TLS certificate garbage": file(f"{P}tls.certificate", "service.pem", PEM[:300], "no readable PEM"),
    "TLS key missing": one(f"{P}tls.key", "nowhere.key", "does not exist"),
    "TLS key garbage": file(f"{P}tls.key", "service.key", "junk", "no readable PEM private key"),
    "TLS key of another": file(f"{P}tls.key", "service.key", private_pem(PRIVATE), "not the key"),
    "TLS key open to all": file(f"{P}tls.key", "service.key", private_pem(PRIVATE), "0644", 0o644),
    "TLS certificate without key": Row(key=f"{P}tls.certificate", about="tls.key", change={f"{P}tls.key": None}),
    "TLS key without certificate": Row(
        key=f"{P}tls.key", about="tls.certificate", change={f"{P}tls.certificate": None}
    ),
    "broker's TLS key missing": one(f"{B}tls.key", "nowhere.key", "does not exist"),
    "server certificate without key": one(f"{B}server.tls.certificate", "service.pem", "server.tls.key"),
    "server certificate garbage": Row(
        key=f"{B}server.tls.certificate",
        about="no readable PEM",
        change={f"{B}server.tls.certificate": "service.key", f"{B}server.tls.key": "service.key"},
    ),
    "server key open to all": Row(
        key=f"{B}server.leaf.tls.key",
        about="every user",
        change={f"{B}server.leaf.tls.certificate": "other.pem", f"{B}server.leaf.tls.key": "other.key"},
        prepare=lambda made: (made.write("other.pem", PEM), made.write("other.key", private_pem(PRIVATE), 0o604)),
    ),
    # keys
    "misspelt key": one(f"{P}xkey_seed_fil", "x", f"did you mean {P}xkey_seed_file?"),
    "misspelt broker key": one(f"{B}url", "x", f"did you mean {B}urls?"),
    "misspelt prefix": one("plugin.broker-auth.workers", "2", f"did you mean {P}workers?"),
    "nothing like a key": one(f"{P}zzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzz", "x", "not a known key"),
}


@pytest.mark.parametrize("row", PROBLEMS.values(), ids=PROBLEMS)
def test_one_mistake_is_one_problem_at_its_line(directory: Directory, row: Row) -> None:
    directory.set(row.change)
    row.prepare(directory)
    report = directory.check()
    assert [(problem.file, problem.line, problem.key) for problem in report.problems] == [
        (str(directory.config), directory.line(row.key) if row.key in directory.keys else None, row.key)
    ], [str(problem) for problem in report.problems]
    assert row.about in str(report.problems[0])
    assert report.settings is None


def test_all_problems_are_reported_at_once_in_the_order_of_lines(directory: Directory) -> None:
    directory.set({f"{P}workers": "0", f"{P}nkey_seed_file": None, f"{CHORIA}system.user": "provisioner", f"{P}x": "1"})
    report = directory.check()
    assert [problem.key for problem in report.problems] == [
        f"{CHORIA}system.user",
        f"{P}workers",
        f"{P}x",
        f"{P}nkey_seed_file",
    ]


def test_a_key_set_twice_names_both_lines(directory: Directory) -> None:
    text = directory.save().read_text()
    count = text.count("\n")
    directory.write(
        "broker.conf", text + "# a comment\nidentity = a\nidentity = b\n" + f"{P}workers = 1\n{P}workers = 1\n"
    )
    (problem,) = check_file(directory)
    assert (problem.line, problem.key) == (count + 5, f"{P}workers")
    assert f"lines {count + 4} and {count + 5}" in problem.what


def test_a_missing_configuration_file_is_one_problem(directory: Directory) -> None:
    (problem,) = check_file(directory)
    assert (problem.file, problem.line, problem.key) == (str(directory.config), None, None)
    assert "does not exist" in problem.what


def test_named_pipe_is_refused_without_blocking(directory: Directory) -> None:
    os.mkfifo(directory.config)
    (problem,) = check_file(directory)
    assert "not a regular file" in problem.what


def test_a_huge_file_is_refused(directory: Directory) -> None:
    directory.write("broker.conf", "# " + "x" * (256 * 1024))
    (problem,) = check_file(directory)
    assert "larger than" in problem.what


@pytest.mark.parametrize("mode", [0o604, 0o602, 0o644])
def test_an_inline_secret_in_a_file_open_to_others_is_a_problem(directory: Directory, mode: int) -> None:
    directory.save(mode)
    (problem,) = check_file(directory)
    assert (problem.line, problem.key) == (directory.line(PASSWORD_KEY), PASSWORD_KEY)
    assert f"chmod 600 {directory.config}" in problem.remedy


def test_a_file_without_inline_secrets_may_be_open(directory: Directory) -> None:
    directory.write("client.password", "x")
    directory.set({PASSWORD_KEY: "file:client.password"})
    directory.save(0o644)
    assert check_file(directory) == ()


def test_an_encrypted_tls_key_is_refused(directory: Directory) -> None:
    directory.write(
        "service.key", PRIVATE.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"phrase"))
    )
    (problem,) = directory.check().problems
    assert (problem.key, "encrypted" in problem.what) == (f"{P}tls.key", True)


def test_websocket_urls_need_aiohttp(directory: Directory, monkeypatch: pytest.MonkeyPatch) -> None:
    directory.set({f"{B}urls": "wss://127.0.0.1:443"})
    monkeypatch.setitem(sys.modules, "aiohttp", None)  # as in an environment without it
    (problem,) = directory.check().problems
    assert (problem.line, problem.key) == (directory.line(f"{B}urls"), f"{B}urls")
    assert "broker-auth[websocket]" in problem.remedy
    monkeypatch.setitem(sys.modules, "aiohttp", pytest)  # any module: it is imported, but not used
    assert directory.check().ok
    directory.set({f"{B}urls": "wss://127.0.0.1:443, tls://127.0.0.1:4222"})
    (problem,) = directory.check().problems
    assert (problem.key, "mixes" in problem.what) == (f"{B}urls", True)


def test_problem_names_the_broker_whose_file_is_wrong(directory: Directory) -> None:
    directory.set(
        {
            f"{P}brokers": "default, edge",
            f"{P}broker.edge.urls": "tls://127.0.0.1:4223",
            f"{P}broker.edge.tls.ca": "nowhere.pem",
        }
    )
    (problem,) = directory.check().problems
    assert (problem.line, problem.key) == (directory.line(f"{P}broker.edge.tls.ca"), f"{P}broker.edge.tls.ca")


def test_problem_of_a_shared_file_is_reported_once(directory: Directory) -> None:
    directory.set(
        {f"{P}brokers": "default, edge", f"{P}broker.edge.urls": "tls://127.0.0.1:4223", f"{P}tls.ca": "nowhere.pem"}
    )
    (problem,) = directory.check().problems
    assert problem.key == f"{P}tls.ca"
