"""Certificates of the development PKI are accepted by Python's strict verifier and by Go in a TLS handshake."""

from __future__ import annotations

import ssl
import stat
from datetime import UTC, datetime, timedelta
from pathlib import Path

import nats
import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.x509.verification import PolicyBuilder, Store, VerificationError

from broker_auth.deploy.pki import Algorithm, CertificateAuthority, Pair, Validity, general_name, signer
from broker_auth.files.writing import write_private
from broker_auth.sandbox.natsserver import NatsServer


@pytest.fixture(scope="module")
def authority() -> CertificateAuthority:
    return CertificateAuthority.create()


def expired() -> Validity:
    now = datetime.now(UTC)
    return Validity(not_before=now - timedelta(days=2), not_after=now - timedelta(days=1))


def verify_client(authority: CertificateAuthority, pair: Pair, *between: x509.Certificate) -> list[x509.Certificate]:
    verifier = PolicyBuilder().store(Store([authority.certificate])).build_client_verifier()
    return verifier.verify(pair.certificate, list(between)).chain


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1", "::1", "broker.example.net"])
def test_server_certificate_is_valid_for_its_hosts(authority: CertificateAuthority, host: str) -> None:
    pair = authority.server(hosts=["localhost", "127.0.0.1", "::1", "broker.example.net"])
    subject = general_name(host)
    assert isinstance(subject, x509.DNSName | x509.IPAddress)
    verifier = PolicyBuilder().store(Store([authority.certificate])).build_server_verifier(subject)
    assert len(verifier.verify(pair.certificate, [])) == 2


def test_client_certificate_verifies_with_its_own_authority_only(authority: CertificateAuthority) -> None:
    pair = authority.client("fleet.example.net")
    assert len(verify_client(authority, pair)) == 2
    with pytest.raises(VerificationError):
        verify_client(CertificateAuthority.create(), pair)  # same name, another key


def test_expired_certificate_does_not_verify(authority: CertificateAuthority) -> None:
    with pytest.raises(VerificationError):
        verify_client(authority, authority.client("old.example.net", validity=expired()))


def test_intermediate_cannot_sign_further_authorities(authority: CertificateAuthority) -> None:
    middle = authority.intermediate("middle")
    pair = middle.client("fleet.example.net")
    assert len(verify_client(authority, pair, middle.certificate)) == 3
    below = middle.intermediate("below")
    with pytest.raises(VerificationError):
        verify_client(authority, below.client("x.example.net"), middle.certificate, below.certificate)


@pytest.mark.parametrize(
    ("algorithm", "kind"),
    [("rsa", rsa.RSAPublicKey), ("ed25519", ed25519.Ed25519PublicKey), ("ec", ec.EllipticCurvePublicKey)],
)
def test_signer_has_a_key_of_the_requested_algorithm(algorithm: Algorithm, kind: type) -> None:
    pair = signer(algorithm=algorithm, validity=expired())
    assert isinstance(pair.certificate.public_key(), kind)
    assert pair.certificate.not_valid_after_utc < datetime.now(UTC)
    pair.certificate.verify_directly_issued_by(pair.certificate)


def test_keys_are_readable_by_their_owner_only(authority: CertificateAuthority, tmp_path: Path) -> None:
    key = tmp_path / "x.key"
    key.touch(mode=0o644)  # the mode of an existing file must not be inherited
    certificate, written = authority.client("x").write(tmp_path, "x")
    assert written == key
    assert stat.S_IMODE(key.stat().st_mode) == 0o600
    assert b"PRIVATE" not in certificate.read_bytes()
    assert {item.name for item in tmp_path.iterdir()} == {"x.key", "x.pem"}
    write_private(key, b"new")
    assert key.read_bytes() == b"new"


@pytest.mark.e2e
async def test_go_accepts_our_certificates_and_refuses_foreign_and_expired_ones(
    authority: CertificateAuthority, tmp_path: Path
) -> None:
    certificate, key = authority.server().write(tmp_path, "server")
    ca = tmp_path / "ca.pem"
    ca.write_bytes(authority.certificate_pem)
    config = tmp_path / "nats.conf"
    tls = f'tls {{ cert_file: "{certificate}", key_file: "{key}", ca_file: "{ca}", verify: true }}'
    config.write_text(f'listen: "127.0.0.1:-1"\n{tls}\n')
    good = authority.client("good.example.net")
    refused = {
        "foreign": CertificateAuthority.create().client("good.example.net"),
        "expired": authority.client("old.example.net", validity=expired()),
    }

    def context(pair: Pair, name: str) -> ssl.SSLContext:
        chosen = ssl.create_default_context(cafile=str(ca))
        chosen.load_cert_chain(*pair.write(tmp_path, name))
        return chosen

    async def quiet(_: Exception) -> None:
        pass

    async with NatsServer(config) as server:
        url = f"tls://localhost:{server.port()}"
        connection = await nats.connect(url, tls=context(good, "good"), allow_reconnect=False)
        await connection.close()
        for name, pair in refused.items():
            mark = server.mark()
            with pytest.raises(Exception):  # noqa: B017, PT011 - nats-py raises what the socket does
                await nats.connect(url, tls=context(pair, name), allow_reconnect=False, error_cb=quiet)
            server.wait_for_log("TLS handshake error: .*certificate", since=mark)
