"""Files of nats-servers: `config check` agrees with the real nats-server and with Python on each format."""

from __future__ import annotations

import ssl
import subprocess
from datetime import timedelta
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
)

from broker_auth.deploy.natsbinary import find_binary
from broker_auth.deploy.pki import CertificateAuthority, Pair, Validity
from tests.builders import pemshapes
from tests.builders.pemshapes import BOTH_READ, GO_ONLY, NEITHER, PYTHON_ONLY, Shape
from tests.settings.builder import NOW, Directory, P

B = f"{P}broker.default."
SERVER = f"{B}server.tls."
AUTHORITY, OTHER = CertificateAuthority.create("fleet CA"), CertificateAuthority.create("other CA")
MIDDLE = AUTHORITY.intermediate("middle")
PAIR = AUTHORITY.server()
CHAINED = MIDDLE.server()


def set_server(directory: Directory, certificate: bytes, key: bytes, ca: bytes = AUTHORITY.certificate_pem) -> None:
    """Configure a nats-server's files."""
    directory.write("server.pem", certificate)
    directory.write("server.key", key)
    directory.write("server-ca.pem", ca)
    directory.set({f"{SERVER}certificate": "server.pem", f"{SERVER}key": "server.key", f"{SERVER}ca": "server-ca.pem"})


def problems(directory: Directory) -> list[str]:
    return [str(problem) for problem in directory.check().problems]


def warnings(directory: Directory) -> list[str]:
    return [str(warning) for warning in directory.check().warnings]


def nats_server_takes(directory: Path) -> bool:
    """Return whether the real nats-server starts with these files."""
    files = {name: directory / f"server{end}" for name, end in (("cert", ".pem"), ("key", ".key"), ("ca", "-ca.pem"))}
    tls = "\n".join(f'{name}_file: "{path}"' for name, path in files.items())
    (directory / "server.conf").write_text(f"listen: 127.0.0.1:4222\ntls {{\n{tls}\nverify: true\n}}\n")
    command = [str(find_binary()), "-t", "-c", str(directory / "server.conf")]
    return subprocess.run(command, check=False, capture_output=True, timeout=60).returncode == 0


def python_takes(path: Path) -> bool:
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(path)
    except ssl.SSLError:
        return False
    return True


ALL = {**BOTH_READ, **GO_ONLY, **PYTHON_ONLY, **NEITHER}


@pytest.mark.parametrize("name", ALL)
def test_ca_file_is_refused_exactly_if_nats_server_refuses_it(directory: Directory, name: str) -> None:
    data = ALL[name](AUTHORITY.certificate_pem, OTHER.certificate_pem)
    set_server(directory, PAIR.certificate_pem, PAIR.key_pem, data)
    reported = problems(directory)
    assert nats_server_takes(directory.path) == (not reported), reported
    assert (name in BOTH_READ or name in GO_ONLY) == (not reported)
    assert python_takes(directory.path / "server-ca.pem") == (name in BOTH_READ or name in PYTHON_ONLY)
    assert all("server-ca.pem: line " in problem for problem in reported)
    if name in GO_ONLY and name != "blank lines":
        assert any("server-ca.pem: line " in warning and "skip" in warning for warning in warnings(directory))


@pytest.mark.parametrize("name", ALL)
def test_service_accepts_files_that_any_program_accepts(directory: Directory, name: str) -> None:
    data = ALL[name](AUTHORITY.certificate_pem, OTHER.certificate_pem)
    directory.write("ca.pem", data)
    assert problems(directory) == []
    messages = warnings(directory)
    assert bool(messages) == (name not in BOTH_READ and name != "blank lines"), messages
    assert all("ca.pem: line " in warning for warning in messages)


AS_CHAIN = {name: shape for name, shape in ALL.items() if "CERTIFICATE" not in name or name in BOTH_READ}


@pytest.mark.parametrize("name", AS_CHAIN)
def test_certificate_is_refused_exactly_if_nats_server_refuses_it(directory: Directory, name: str) -> None:
    data = AS_CHAIN[name](CHAINED.certificate_pem, MIDDLE.certificate_pem)
    set_server(directory, data, CHAINED.key_pem)
    reported = problems(directory)
    assert nats_server_takes(directory.path) == (not reported), reported


def test_negative_serial_number_causes_a_warning(directory: Directory) -> None:
    """nats-server 2.10 accepts it, 2.11 and newer do not."""
    ca, leaf = pemshapes.negative_serial(AUTHORITY.certificate_pem), pemshapes.negative_serial(PAIR.certificate_pem)
    set_server(directory, leaf, PAIR.key_pem, ca)
    messages = warnings(directory)
    assert problems(directory) == []
    assert [name in warning for name, warning in zip(("server.pem", "server-ca.pem"), messages, strict=True)] == [
        True
    ] * 2
    assert all(
        "2.11 and newer refuses the certificate: its serial number is negative" in warning for warning in messages
    )


def _pkcs8(key: ec.EllipticCurvePrivateKey, passphrase: bytes = b"") -> bytes:
    encryption = BestAvailableEncryption(passphrase) if passphrase else NoEncryption()
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, encryption)


def _key(pair: Pair) -> ec.EllipticCurvePrivateKey:
    assert isinstance(pair.key, ec.EllipticCurvePrivateKey)
    return pair.key


def _sec1(pair: Pair, passphrase: bytes = b"") -> bytes:
    encryption = BestAvailableEncryption(passphrase) if passphrase else NoEncryption()
    return _key(pair).private_bytes(Encoding.PEM, PrivateFormat.TraditionalOpenSSL, encryption)


KEYS = {
    "plain": (PAIR.key_pem, ""),
    "SEC 1 behind EC parameters": (pemshapes.EC_PARAMETERS + _sec1(PAIR), ""),
    "behind its certificate": (PAIR.certificate_pem + PAIR.key_pem, ""),
    "behind text": (pemshapes.BAG + PAIR.key_pem, ""),
    "under another label": (pemshapes.relabelled(PAIR.key_pem, "EC PRIVATE KEY"), ""),
    "of another pair": (CHAINED.key_pem, "is not the key of"),
    "behind another": (CHAINED.key_pem + PAIR.key_pem, "is not the key of"),
    "encrypted": (_pkcs8(_key(PAIR), b"secret"), "is encrypted"),
    "encrypted as OpenSSL did": (_sec1(PAIR, b"secret"), "is encrypted"),
    "of OpenSSH": (_key(PAIR).private_bytes(Encoding.PEM, PrivateFormat.OpenSSH, NoEncryption()), "OpenSSH"),
    "damaged": (pemshapes.relabelled(PAIR.key_pem, "PRIVATE KEY", der=b"0\x03abc"), "line 1: it cannot be read"),
    "indented": (pemshapes.indented(PAIR.key_pem), "indented"),
    "joined to its certificate": (PAIR.certificate_pem.rstrip() + PAIR.key_pem, "joined"),
    "a certificate": (PAIR.certificate_pem, "it holds CERTIFICATE"),
    "a public key": (b"-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n", "it holds PUBLIC KEY"),
    "empty": (b"", "it is empty"),
    "binary": (pemshapes.decoded(PAIR.key_pem), "DER"),
    "on a curve that Go lacks": (_pkcs8(ec.generate_private_key(ec.SECP256K1())), "secp256k1"),
}


@pytest.mark.parametrize("name", KEYS)
def test_key_is_refused_exactly_if_nats_server_refuses_it(directory: Directory, name: str) -> None:
    data, reason = KEYS[name]
    set_server(directory, PAIR.certificate_pem, data)
    reported = problems(directory)
    assert nats_server_takes(directory.path) == (not reason)
    assert len(reported) == bool(reason), reported
    assert all(reason in problem and f"{SERVER}key" in problem for problem in reported)
    assert not any("secret" in problem for problem in reported)


@pytest.mark.parametrize("side", ["leaf.tls.", "tls."])
def test_each_pair_of_a_nats_server_is_checked(directory: Directory, side: str) -> None:
    directory.write("server.pem", PAIR.certificate_pem)
    directory.write("server.key", CHAINED.key_pem)
    directory.set({f"{B}server.{side}certificate": "server.pem", f"{B}server.{side}key": "server.key"})
    (reported,) = problems(directory)
    assert f"server.{side}key" in reported
    assert "is not the key of" in reported


def test_key_of_a_later_certificate_is_recognized(directory: Directory) -> None:
    set_server(directory, MIDDLE.certificate_pem + CHAINED.certificate_pem, CHAINED.key_pem)
    (reported,) = problems(directory)
    line = MIDDLE.certificate_pem.count(b"\n") + 1
    assert f"is the key of the certificate in line {line}" in reported
    assert "put that certificate first" in reported
    assert not nats_server_takes(directory.path)


def test_chain_in_the_wrong_order_causes_a_warning(directory: Directory) -> None:
    top = AUTHORITY.certificate_pem
    set_server(directory, CHAINED.certificate_pem + MIDDLE.certificate_pem + top, CHAINED.key_pem)
    assert warnings(directory) == []
    set_server(directory, CHAINED.certificate_pem + top + MIDDLE.certificate_pem, CHAINED.key_pem)
    (reported,) = warnings(directory)
    assert "(CN=fleet CA) is not the issuer" in reported


def days(start: float, end: float) -> Validity:
    return Validity(not_before=NOW + timedelta(days=start), not_after=NOW + timedelta(days=end))


TIMES = {"expired": days(-20, -10), "expires": days(-20, 10), "is not valid before": days(1, 100)}


@pytest.mark.parametrize("says", TIMES)
@pytest.mark.parametrize("place", ["leaf", "intermediate", "server CA", "CA of brokers", "CA of clients", "own"])
def test_times_of_every_certificate_are_checked(directory: Directory, says: str, place: str) -> None:
    validity = TIMES[says]
    bad = AUTHORITY.intermediate("bad", validity=validity)
    old = CertificateAuthority.create("bad CA", validity=validity).certificate_pem
    leaf = AUTHORITY.server(validity=validity) if place == "leaf" else PAIR
    set_server(directory, leaf.certificate_pem, leaf.key_pem)
    if place == "intermediate":
        pair = bad.server()
        set_server(directory, pair.certificate_pem + bad.certificate_pem, pair.key_pem)
    elif place == "server CA":
        set_server(directory, PAIR.certificate_pem, PAIR.key_pem, AUTHORITY.certificate_pem + old)
    elif place == "own":
        pair = bad.client("service")
        directory.write("service.pem", pair.certificate_pem + bad.certificate_pem)
        directory.write("service.key", pair.key_pem)
    elif place.startswith("CA"):
        directory.write("bad-ca.pem", AUTHORITY.certificate_pem + old)
        directory.set({f"{P}tls.ca" if place == "CA of brokers" else f"{P}client_ca": "bad-ca.pem"})
    (reported,) = warnings(directory)
    assert says in reported
    assert problems(directory) == []


def test_wrong_usages_cause_warnings(directory: Directory) -> None:
    client = AUTHORITY.client("localhost", names=["127.0.0.1"])
    set_server(directory, client.certificate_pem, client.key_pem)
    (reported,) = warnings(directory)
    assert "lacks serverAuth, so clients refuse it" in reported
    server = AUTHORITY.server(routes=False)
    set_server(directory, server.certificate_pem, server.key_pem)
    assert warnings(directory) == []
    directory.set({f"{B}server.cluster.listen": "127.0.0.1:6222"})
    assert "lacks clientAuth" in warnings(directory)[0]
    directory.set({f"{B}server.cluster.listen": None})
    directory.write("service.pem", server.certificate_pem)
    directory.write("service.key", server.key_pem)
    (reported,) = warnings(directory)
    assert "service.pem: its extended key usage lacks clientAuth, so servers refuse it" in reported


@pytest.mark.parametrize(
    ("names", "url", "named"),
    [
        (["broker.example.net"], "tls://broker.example.net:4222", True),
        (["broker.example.net"], "tls://BROKER.example.net.:4222", True),
        (["*.example.net"], "tls://broker.example.net:4222", True),
        (["nats_1"], "tls://nats_1:4222", True),
        (["192.0.2.7"], "tls://192.0.2.7:4222", True),
        (["::1"], "tls://[0:0::1]:4222", True),
        (["*.example.net"], "tls://example.net:4222", False),
        (["*.example.net"], "tls://a.b.example.net:4222", False),
        (["broker.example.net"], "tls://192.0.2.7:4222", False),
        (["192.0.2.8"], "tls://192.0.2.7:4222", False),
        (["nats1"], "tls://nats_1:4222", False),
    ],
)
def test_host_missing_in_the_certificate_causes_a_warning(
    directory: Directory, names: list[str], url: str, named: bool
) -> None:
    pair = AUTHORITY.server("cn", hosts=names)
    set_server(directory, pair.certificate_pem, pair.key_pem)
    directory.set({f"{B}urls": url})
    messages = warnings(directory)
    assert len(messages) == (not named), messages
    assert all("server.pem: does not name" in warning for warning in messages)


def test_missing_server_files_are_only_warnings(directory: Directory) -> None:
    set_server(directory, PAIR.certificate_pem, PAIR.key_pem)
    (directory.path / "server.key").unlink()
    assert problems(directory) == []


def test_ed25519_pair_is_accepted(directory: Directory) -> None:
    key = ed25519.Ed25519PrivateKey.generate()
    data = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    set_server(directory, PAIR.certificate_pem, data)
    (reported,) = problems(directory)
    assert "is not the key of" in reported  # read, but of another pair


OWN: dict[str, tuple[Shape, bool]] = {
    **{name: (shape, True) for name, shape in BOTH_READ.items()},
    **{name: (shape, False) for name, shape in NEITHER.items()},
}


@pytest.mark.parametrize("name", OWN)
def test_service_pair_is_loaded_with_openssl(directory: Directory, name: str) -> None:
    shape, usable = OWN[name]
    pair = MIDDLE.client("service")
    directory.write("service.pem", shape(pair.certificate_pem, MIDDLE.certificate_pem))
    directory.write("service.key", pair.key_pem)
    reported = problems(directory)
    assert len(reported) == (not usable), reported
    assert all("service.pem cannot be used with" in problem for problem in reported)
