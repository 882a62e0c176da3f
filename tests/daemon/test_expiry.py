"""Every configured certificate is watched once."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

from broker_auth.daemon.expiry import Expiry, expiries
from tests.settings.builder import CHORIA, NOW, Directory, P, certificate, private_pem, public_pem


def test_expiry_of_signers_cas_and_own_certificates(tmp_path: Path) -> None:
    directory = Directory(tmp_path)
    for name, days in (("ca", 30), ("service", 20), ("signer", 10), ("other", 5)):
        pem, key = certificate(name, days)
        directory.write(f"{name}.pem", pem)
        directory.write(f"{name}.key", private_pem(key))
        directory.write(f"{name}.pub", public_pem(key))
    directory.set(
        {
            f"{CHORIA}provisioning.signer_cert": "signer.pem, other.pub",
            f"{P}client_ca": "ca.pem",
            f"{P}brokers": "one, two",
            f"{P}broker.one.urls": "tls://127.0.0.1:4222",
            f"{P}broker.two.urls": "tls://127.0.0.1:4223",
            f"{P}broker.two.tls.ca": "other.pem",
            f"{P}broker.default.urls": None,
            **{f"{P}{name}": None for name in ("nkey_seed_file", "issuer_seed_file", "xkey_seed_file")},
            f"{CHORIA}system.user": None,
            f"{CHORIA}system.password": None,
        }
    )
    settings = directory.check(serving=False).settings
    assert settings

    def expected(what: str, name: str, days: float) -> Expiry:
        path = name if what == "signer" else str(tmp_path / name)
        return Expiry(what, path, (NOW + timedelta(days=days)).replace(microsecond=0).timestamp())

    assert set(expiries(settings)) == {
        expected("signer", "signer.pem", 10),
        expected("ca", "ca.pem", 30),
        expected("ca", "other.pem", 5),
        expected("own", "service.pem", 20),
    }
    assert len(expiries(settings)) == 4  # the CA is used for peers and for a broker, but shown once

    (tmp_path / "ca.pem").unlink()
    assert len(expiries(settings)) == 3
