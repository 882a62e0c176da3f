"""Members with unusual certificates of private CAs are admitted by a running service."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner
from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from broker_auth.certificates.certificate import certificates_from_pem
from broker_auth.cli import main
from broker_auth.sandbox.client import Credentials, connect
from broker_auth.sandbox.sandbox import Sandbox
from tests.builders import certificates as c
from tests.builders.certificates import Made, make, name

pytestmark = pytest.mark.e2e


async def test_members_with_version_1_and_teletex_certificates_are_admitted(tmp_path: Path) -> None:
    sandbox = Sandbox(tmp_path / "sandbox")
    old = c.root(subject=name(("O", "Müller AG", c.TELETEX), ("CN", "Werk", c.TELETEX)), number=80)
    first = c.root(subject=name(("CN", "version 1 CA")), number=81, version=1)
    fleet = _authority(sandbox)
    with sandbox.ca.open("a") as bundle:
        bundle.write(old.pem + first.pem)
    members = {
        "v1": make(fleet, version=1),
        "teletex": make(old, subject=name(("CN", "Größe", c.TELETEX))),
        "below-v1": make(first, subject=name(("CN", "Users"), ("CN", "Jo Doe"))),
    }
    async with sandbox:
        for who, made in members.items():
            client = await connect(sandbox.fleet_url, who, _credentials(sandbox, who, made))
            await client.close()
            assert sandbox.audit_record(who), "written shortly after the answer"
        shown = {record.client: (record.account, record.name) for record in sandbox.audit_records()}
        assert shown == {
            "v1": ("choria", "node1.example.net"),
            "teletex": ("choria", "Größe"),
            "below-v1": ("choria", "Jo Doe"),
        }
        fingerprint = members["teletex"].parsed.fingerprint
        done = CliRunner().invoke(main, ["why", f"sha256:{fingerprint}", "--audit", str(sandbox.audit_file)])
        assert (done.exit_code, "Größe" in done.stdout) == (0, True)
        checked = CliRunner().invoke(main, ["config", "check", str(sandbox.deployment.configuration)])
        assert checked.exit_code == 0


def _authority(sandbox: Sandbox) -> Made:
    """Return the deployment's own CA as an issuer of hand-made certificates."""
    key = load_pem_private_key(sandbox.ca.with_suffix(".key").read_bytes(), None)
    assert isinstance(key, EllipticCurvePrivateKey)
    certificate = certificates_from_pem(sandbox.ca.read_bytes())[0]
    return Made(certificate.der, certificate.subject, key)


def _credentials(sandbox: Sandbox, who: str, made: Made) -> Credentials:
    certificate, key = sandbox.directory / f"{who}.pem", sandbox.directory / f"{who}.key"
    certificate.write_text(made.pem)
    key.write_bytes(made.key_pem)
    return Credentials(ca=sandbox.ca, certificate=certificate, key=key)
