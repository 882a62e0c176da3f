"""The example's provisioner signs what it should and refuses the rest: people copy it."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

import factory
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import dsa, ec, ed448, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID
from hypothesis import given
from hypothesis import strategies as st
from identities import CertificateSigner, RefusalError, TokenSigner, read_csr
from inventory import Inventory, is_name
from provisioner import announced
from sealed import ProofError, read_secret, seal, unseal

from broker_auth.deploy.pki import CertificateAuthority
from broker_auth.sandbox.identities import Issuer
from broker_auth.tokens.issue import new_seed, signing_key_from_seed
from broker_auth.tokens.jws import parse

NAME: Final = "node1.example.net"
KEY: Final = ed25519.Ed25519PrivateKey.generate()
SECRET: Final = bytes(range(32))
Edwards = ed25519.Ed25519PrivateKey | ed448.Ed448PrivateKey
Key = Edwards | ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey | dsa.DSAPrivateKey


def csr(*names: str, key: Key = KEY, extensions: tuple[x509.ExtensionType, ...] = ()) -> str:
    """Return a request for these common names."""
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name) for name in names])
    builder = x509.CertificateSigningRequestBuilder().subject_name(subject)
    for extension in extensions:
        builder = builder.add_extension(extension, critical=False)
    algorithm = None if isinstance(key, Edwards) else hashes.SHA256()
    return builder.sign(key, algorithm).public_bytes(Encoding.PEM).decode()


def alternative(*names: str) -> x509.SubjectAlternativeName:
    return x509.SubjectAlternativeName([x509.DNSName(name) for name in names])


@pytest.mark.parametrize(
    "request_",
    [
        csr(NAME),
        csr(NAME, extensions=(alternative(NAME),)),
        csr(NAME, key=ec.generate_private_key(ec.SECP256R1())),
        csr(NAME, key=ec.generate_private_key(ec.SECP384R1())),
    ],
    ids=["ed25519", "alternative-name", "p256", "p384"],
)
def test_request_for_the_nodes_own_name_is_accepted(request_: str) -> None:
    assert read_csr(NAME, request_)


REFUSED: Final[dict[str, Callable[[], str]]] = {
    "another name": lambda: csr("provisioner.example.net"),
    "no name": lambda: csr(),
    "two names": lambda: csr(NAME, "provisioner.example.net"),
    "another case": lambda: csr("NODE1.example.net"),
    "another alternative name": lambda: csr(NAME, extensions=(alternative("provisioner.example.net"),)),
    "one more alternative name": lambda: csr(NAME, extensions=(alternative(NAME, "provisioner.example.net"),)),
    "a URI": lambda: csr(
        NAME, extensions=(x509.SubjectAlternativeName([x509.UniformResourceIdentifier("spiffe://x")]),)
    ),
    "to be a CA": lambda: csr(NAME, extensions=(x509.BasicConstraints(ca=True, path_length=None),)),
    "to be a server": lambda: csr(NAME, extensions=(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]),)),
    "RSA": lambda: csr(NAME, key=rsa.generate_private_key(65537, 2048)),
    "P-521": lambda: csr(NAME, key=ec.generate_private_key(ec.SECP521R1())),
    "Ed448": lambda: csr(NAME, key=ed448.Ed448PrivateKey.generate()),
    "DSA": lambda: csr(NAME, key=dsa.generate_private_key(2048)),
    "a signature of another key": lambda: forged(),
}


@pytest.mark.parametrize("what", REFUSED)
def test_request_for_anything_else_is_refused(what: str) -> None:
    with pytest.raises(RefusalError):
        read_csr(NAME, REFUSED[what]())


def forged() -> str:
    """Return a request that holds one key and is signed by another."""
    mine = x509.load_pem_x509_csr(csr(NAME).encode())
    other = KEY.public_key().public_bytes_raw()
    replaced = ed25519.Ed25519PrivateKey.generate().public_key().public_bytes_raw()
    der = mine.public_bytes(Encoding.DER).replace(other, replaced)
    return x509.load_der_x509_csr(der).public_bytes(Encoding.PEM).decode()


def test_certificate_says_what_the_ca_decides_and_ends_with_it(tmp_path: Path) -> None:
    nodes = CertificateAuthority.create().intermediate("nodes")
    nodes.pair.write(tmp_path, "nodes-ca")
    signer = CertificateSigner(tmp_path / "nodes-ca.pem")
    identity, ends = signer.sign(NAME, read_csr(NAME, csr(NAME, extensions=(alternative(NAME),))), 10 * 366 * 86_400)
    certificate, above = x509.load_pem_x509_certificates(identity["certificate"].encode())
    certificate.verify_directly_issued_by(above)
    assert above == nodes.certificate
    assert certificate.public_key() == KEY.public_key()
    assert ends == certificate.not_valid_after_utc.timestamp() == nodes.certificate.not_valid_after_utc.timestamp()
    extensions = {type(extension.value): extension.value for extension in certificate.extensions}
    assert extensions[x509.BasicConstraints] == x509.BasicConstraints(ca=False, path_length=None)
    assert extensions[x509.ExtendedKeyUsage] == x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CLIENT_AUTH])
    assert extensions[x509.SubjectAlternativeName] == alternative(NAME)


def test_root_ca_is_not_sent_along(tmp_path: Path) -> None:
    CertificateAuthority.create().pair.write(tmp_path, "nodes-ca")
    identity, ends = CertificateSigner(tmp_path / "nodes-ca.pem").sign(NAME, KEY.public_key(), 3600)
    assert len(x509.load_pem_x509_certificates(identity["certificate"].encode())) == 1
    assert time.time() + 3500 < ends <= time.time() + 3600


def test_ca_with_another_key_is_not_used(tmp_path: Path) -> None:
    CertificateAuthority.create().pair.write(tmp_path, "nodes-ca")
    (tmp_path / "nodes-ca.key").write_bytes(CertificateAuthority.create().pair.key_pem)
    with pytest.raises(ValueError, match="do not belong together"):
        CertificateSigner(tmp_path / "nodes-ca.pem")


def test_token_is_for_the_nodes_key_and_name_and_without_permissions(tmp_path: Path) -> None:
    issuer = Issuer(signing_key_from_seed(new_seed(), "organization")).chain_issuer("up=provisioner", "provisioner")
    (tmp_path / "provisioner.jwt").write_text(issuer.token)
    (tmp_path / "provisioner.seed").write_text(issuer.seed.hex())
    signer = TokenSigner(tmp_path / "provisioner.jwt")
    identity, ends = signer.sign(NAME, KEY.public_key(), 10 * 366 * 86_400)
    claims = parse(identity["token"]).claims
    assert (claims["identity"], claims["public_key"]) == (NAME, KEY.public_key().public_bytes_raw().hex())
    assert claims["exp"] == ends == signer.ends
    assert not claims["permissions"]
    with pytest.raises(RefusalError):
        signer.sign(NAME, ec.generate_private_key(ec.SECP256R1()).public_key(), 3600)


@pytest.mark.parametrize(
    ("value", "fits"),
    [
        ("node1.example.net", True),
        ("n_1-x", True),
        ("a" * 64, True),
        ("a" * 65, False),
        ("", False),
        ("a..b", False),
        (".a", False),
        ("../a", False),
        ("a/b", False),
        ("a.*", False),
        ("a.>", False),
        ("A", False),
        ("a\n", False),
        ("ä", False),
        (1, False),
        (None, False),
    ],
)
def test_names_that_fit_a_subject_a_certificate_and_a_path(value: object, fits: bool) -> None:
    assert is_name(value) is fits
    assert announced(json.dumps({"identity": value}).encode()) == (value if fits else "")


@given(st.binary(max_size=200))
def test_no_announcement_is_an_error(data: bytes) -> None:
    assert announced(data) == "" or is_name(announced(data))


def test_deeply_nested_announcement_is_not_an_error() -> None:
    assert announced(b"[" * 100_000) == ""


def test_sealed_message_opens_for_its_secret_and_sender_only() -> None:
    data = seal(SECRET, f"node {NAME}", {"nonce": "1"})
    assert unseal(SECRET, f"node {NAME}", data) == {"nonce": "1"}
    for secret, sender in ((bytes(32), f"node {NAME}"), (SECRET, f"provisioner {NAME}"), (SECRET, "node other")):
        with pytest.raises(ProofError):
            unseal(secret, sender, data)


@given(st.integers(min_value=0, max_value=76), st.integers(min_value=1, max_value=255))
def test_altered_message_is_not_opened(position: int, change: int) -> None:
    data = bytearray(seal(SECRET, f"node {NAME}", {"nonce": "12"}))
    data[position] ^= change
    with pytest.raises(ProofError):
        unseal(SECRET, f"node {NAME}", bytes(data))


@given(st.binary(max_size=200))
def test_unproven_bytes_are_refused_before_they_are_parsed(data: bytes) -> None:
    with pytest.raises(ProofError):
        unseal(SECRET, f"node {NAME}", data)


@pytest.mark.parametrize("text", ["", "00", "0" * 63, "0" * 65, "g" * 64])
def test_secret_of_another_form_is_refused_and_not_quoted(text: str) -> None:
    with pytest.raises(ValueError, match="64 hex characters") as caught:
        read_secret(text)
    assert not text or text not in str(caught.value)


def test_inventory_stays_as_it_was_while_the_file_contains_an_error(tmp_path: Path) -> None:
    path = tmp_path / "inventory"
    path.write_text(f"{NAME} {'a' * 64}\n")
    inventory = Inventory(path)
    for number, content in enumerate((b"\xff\xfe", b"node2.example.net short\n", b"../x " + b"a" * 64), 1):
        path.write_bytes(content)
        os.utime(path, ns=(number, number))
        inventory.refresh()
        assert list(inventory.secrets) == [NAME]


def test_factory_writes_secrets_that_only_their_owner_can_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("pki/ca.pem", "provisioning.jwt", "keys/client_password"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("x")
    for identity in (NAME, "node2.example.net"):
        monkeypatch.setattr("sys.argv", ["factory.py", str(tmp_path), identity])
        factory.main()
    files = [tmp_path / "nodes" / NAME / "device.secret", tmp_path / "provisioner" / "inventory"]
    assert [file.stat().st_mode & 0o777 for file in files] == [0o600, 0o600]
    assert list(Inventory(files[1]).secrets) == [NAME, "node2.example.net"]
    assert Inventory(files[1]).secrets[NAME] == read_secret(files[0].read_text())


@pytest.mark.parametrize("identity", ["Node1.example.net", "../x", "a b", ""])
def test_factory_refuses_names_that_would_spoil_the_inventory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, identity: str
) -> None:
    monkeypatch.setattr("sys.argv", ["factory.py", str(tmp_path), identity])
    with pytest.raises(SystemExit) as ended:
        factory.main()
    assert ended.value.code == 2
    assert list(tmp_path.iterdir()) == []
