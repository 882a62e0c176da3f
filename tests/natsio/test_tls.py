"""The TLS context for brokers: exactly as lenient about files and CAs as nats-server."""

from __future__ import annotations

import ssl
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.serialization import BestAvailableEncryption, Encoding, PrivateFormat

from broker_auth.deploy.pki import CertificateAuthority
from broker_auth.errors import InputError
from broker_auth.natsio.tls import TLSFiles, tls_context
from tests.builders import pemshapes
from tests.builders.pemshapes import GO_ONLY, NEITHER, PYTHON_ONLY

ONE, OTHER = CertificateAuthority.create("one"), CertificateAuthority.create("other")
SHAPES = {**GO_ONLY, **PYTHON_ONLY, **NEITHER}


def trusting(path: Path, data: bytes) -> ssl.SSLContext:
    path.write_bytes(data)
    context = tls_context(TLSFiles(ca=path))
    assert context is not None
    return context


@pytest.mark.parametrize("name", SHAPES)
def test_ca_file_in_any_format_is_used(tmp_path: Path, name: str) -> None:
    context = trusting(tmp_path / "ca.pem", SHAPES[name](ONE.certificate_pem, OTHER.certificate_pem))
    assert pemshapes.decoded(ONE.certificate_pem) in context.get_ca_certs(binary_form=True)


def test_both_of_two_joined_files_are_trusted(tmp_path: Path) -> None:
    context = trusting(tmp_path / "ca.pem", ONE.certificate_pem.rstrip() + OTHER.certificate_pem)
    assert context.cert_store_stats()["x509"] == 2


def test_names_of_brokers_are_verified(tmp_path: Path) -> None:
    context = trusting(tmp_path / "ca.pem", ONE.certificate_pem)
    assert (context.verify_mode, context.check_hostname) == (ssl.CERT_REQUIRED, True)
    assert context.minimum_version >= ssl.TLSVersion.TLSv1_2
    assert context.verify_flags & ssl.VERIFY_X509_PARTIAL_CHAIN  # as in Go, an intermediate may be trusted
    assert not context.verify_flags & ssl.VERIFY_X509_STRICT


def test_encrypted_key_is_refused_without_a_prompt(tmp_path: Path) -> None:
    pair = ONE.client("service")
    certificate, key = pair.write(tmp_path, "service")
    key.write_bytes(pair.key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"secret")))
    with pytest.raises(InputError, match="cannot be used for TLS"):
        tls_context(TLSFiles(certificate=certificate, key=key))
