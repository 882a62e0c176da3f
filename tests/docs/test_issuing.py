"""docs/issuing-certificates.md: its commands create the files for ``init``, without warnings."""

from __future__ import annotations

import os
import shlex
import shutil
import stat
import subprocess
from pathlib import Path

import pytest
from click.testing import CliRunner

from broker_auth.certificates.files import read_certificates
from broker_auth.cli import main
from broker_auth.deploy.natsbinary import check_configuration
from broker_auth.settings.crls import read_crls
from broker_auth.settings.load import check
from tests.docs.pages import DOCS, fenced
from tests.docs.test_commands import calls

pytestmark = pytest.mark.e2e
PAGE = (DOCS / "issuing-certificates.md").read_text(encoding="utf-8")
OPENSSL, STEP = "## With OpenSSL", "## With step"


def commands(start: str, end: str) -> str:
    """Return the shell commands of a part of the page."""
    part = PAGE.partition(start)[2].partition(end)[0]
    return "\n".join(line for block in fenced(part, "bash") for line in block)


def run(script: str, directory: Path) -> None:
    done = subprocess.run(
        ["bash", "-eu", "-o", "pipefail", "-c", script],
        cwd=directory,
        capture_output=True,
        text=True,
        check=False,
        timeout=100,
        stdin=subprocess.DEVNULL,
        env=os.environ | {"STEPPATH": str(directory / "step")},
    )
    assert done.returncode == 0, done.stderr


def deploy(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Run the page's ``init`` with the certificates in ``directory``, and check the result."""
    (call,) = [call for block in fenced(PAGE, "console") for call in calls(block)]
    monkeypatch.chdir(directory)
    done = CliRunner().invoke(main, ["init", "deployment", *call[2:]])
    assert done.exit_code == 0, shlex.join(call) + done.output
    assert "Warning" not in done.output
    report = check(directory / "deployment/broker.conf", {})
    assert report.settings is not None
    assert [str(warning) for warning in report.warnings] == []
    for name in ("nats1", "nats2", "nats3", "eu", "us"):
        check_configuration(directory / f"deployment/{name}.conf")
    for key in (directory / "pki").glob("*.key"):
        assert stat.S_IMODE(key.stat().st_mode) == 0o600


def test_certificates_of_openssl_make_a_deployment_without_a_warning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run(commands(OPENSSL, STEP), tmp_path)
    deploy(tmp_path, monkeypatch)


def test_crl_of_openssl_lists_what_was_revoked(tmp_path: Path) -> None:
    run(commands(OPENSSL, STEP) + "\n" + commands("## Revoke with a CRL", "Tested by"), tmp_path)
    pki = tmp_path / "pki"
    (crl,) = read_crls([pki / "fleet.crl"], read_certificates(pki / "ca.pem"))
    assert len(crl.serials) == 1
    assert read_certificates(pki / "member.pem")[0].serial in crl.serials


@pytest.mark.skipif(shutil.which("step") is None, reason="step is not installed")
def test_certificates_of_step_make_a_deployment_without_a_warning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run(commands(STEP, "## Next steps"), tmp_path)
    deploy(tmp_path, monkeypatch)


def test_openssl_and_step_create_the_same_files() -> None:
    """Compare the file names; step also needs templates."""
    openssl, step = commands(OPENSSL, STEP), commands(STEP, "## Next steps")
    for name in ("ca", "leaf-ca", "server", "service", "provisioner", "operator", "member", "signer"):
        assert f"pki/{name}.pem" in step, name
        assert f"issue {name} " in openssl or f"ca {name} " in openssl or f"pki/{name}.pem" in openssl, name
