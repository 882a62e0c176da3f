"""Members with certificates as private CAs issue them, through nats-server and a running service."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner
from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from broker_auth.certificates.certificate import certificates_from_pem
from broker_auth.cli import main
from broker_auth.sandbox.client import Credentials, connect
from broker_auth.sandbox.site import Site
from tests.builders import certificates as c
from tests.builders.certificates import Made, make, name

pytestmark = pytest.mark.e2e


async def test_members_with_version_1_and_teletex_certificates_get_in(tmp_path: Path) -> None:
    site = Site(tmp_path / "site")
    old = c.root(subject=name(("O", "Müller AG", c.TELETEX), ("CN", "Werk", c.TELETEX)), number=80)
    first = c.root(subject=name(("CN", "version 1 CA")), number=81, version=1)
    fleet = _authority(site)
    with site.ca.open("a") as bundle:
        bundle.write(old.pem + first.pem)
    members = {
        "v1": make(fleet, version=1),
        "teletex": make(old, subject=name(("CN", "Größe", c.TELETEX))),
        "below-v1": make(first, subject=name(("CN", "Users"), ("CN", "Jo Doe"))),
    }
    async with site:
        for who, made in members.items():
            client = await connect(site.fleet_url, who, _credentials(site, who, made))
            await client.close()
        shown = {record.client: (record.account, record.name) for record in site.audit_records()}
        assert shown == {
            "v1": ("choria", "node1.example.net"),
            "teletex": ("choria", "Größe"),
            "below-v1": ("choria", "Jo Doe"),
        }
        fingerprint = members["teletex"].parsed.fingerprint
        found = CliRunner().invoke(main, ["why", f"sha256:{fingerprint}", "--audit", str(site.audit_file)])
        assert (found.exit_code, "Größe" in found.stdout) == (0, True)
        checked = CliRunner().invoke(main, ["config", "check", str(site.deployment.configuration)])
        assert checked.exit_code == 0


def _authority(site: Site) -> Made:
    """The deployment's own CA, as an issuer of hand-made certificates."""
    key = load_pem_private_key(site.ca.with_suffix(".key").read_bytes(), None)
    assert isinstance(key, EllipticCurvePrivateKey)
    certificate = certificates_from_pem(site.ca.read_bytes())[0]
    return Made(certificate.der, certificate.subject, key)


def _credentials(site: Site, who: str, made: Made) -> Credentials:
    certificate, key = site.directory / f"{who}.pem", site.directory / f"{who}.key"
    certificate.write_text(made.pem)
    key.write_bytes(made.key_pem)
    return Credentials(ca=site.ca, certificate=certificate, key=key)
