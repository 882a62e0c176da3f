"""The wheel works without the checkout."""

from __future__ import annotations

import re
import tomllib
from importlib.metadata import PathDistribution
from pathlib import Path

import pytest

import broker_auth
from broker_auth.deploy.plan import Topology
from broker_auth.tokens.issue import new_seed, signing_key_from_seed
from tests.packaging.conftest import ROOT, Installed


@pytest.fixture(scope="module")
def distribution(installed: Installed) -> PathDistribution:
    """Return the metadata of the installation."""
    return PathDistribution(next(installed.target.glob("broker_auth-*.dist-info")))


def test_program_runs_from_its_installation(installed: Installed) -> None:
    shown = installed.run("--version")
    assert (shown.returncode, shown.stdout) == (0, f"broker-auth {broker_auth.__version__}\n"), shown.stderr
    where = installed.python("-c", "import broker_auth; print(broker_auth.__file__)")
    assert Path(where.stdout.strip()) == installed.target / "broker_auth" / "__init__.py"


def test_wheel_is_complete_and_contains_nothing_else(installed: Installed) -> None:
    names = {name for name in installed.names if ".dist-info/" not in name}
    modules = {str(path.relative_to(ROOT)) for path in (ROOT / "broker_auth").rglob("*.py")}
    programs = {
        f"broker_auth/sandbox/onboarding/{path.name}" for path in (ROOT / "examples" / "onboarding").glob("*.py")
    }
    assert names == modules | programs | {"broker_auth/py.typed", "broker_auth/deploy/nats-server.conf.j2"}


def test_demo_finds_its_programs_in_the_wheel(installed: Installed) -> None:
    printed = installed.python("-c", "from broker_auth.sandbox.devices import program; print(program('node.py'))")
    assert Path(printed.stdout.strip()) == installed.target / "broker_auth" / "sandbox" / "onboarding" / "node.py"


def test_metadata_is_correct(distribution: PathDistribution) -> None:
    metadata = distribution.metadata
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert metadata["Name"] == "broker-auth"
    assert metadata["Version"] == broker_auth.__version__ == project["version"]
    license_fields = metadata.get_all("License", []) + metadata.get_all("License-Expression", [])
    assert "Apache-2.0" in license_fields
    assert metadata["Requires-Python"] == ">=3.11"
    assert metadata["Description-Content-Type"] == "text/markdown"
    assert set(metadata.get_all("Provides-Extra", [])) == set(project["optional-dependencies"])
    needed = [line for line in distribution.requires or [] if "extra ==" not in line]
    assert {_name(line) for line in needed} == {_name(line) for line in project["dependencies"]}
    assert all(">=" in line for line in needed)
    # The project uses private parts of nats-py, so its version has an upper bound.
    assert [_name(line) for line in needed if "<" in line] == ["nats-py"]


def _name(requirement: str) -> str:
    return re.split(r"[><=\[; ]", requirement, maxsplit=1)[0].lower()


def test_wheel_contains_the_license_and_the_command(distribution: PathDistribution) -> None:
    files = [str(file) for file in distribution.files or []]
    assert any(file.endswith("LICENSE") for file in files)
    scripts = {point.name: point.value for point in distribution.entry_points if point.group == "console_scripts"}
    assert scripts == {"broker-auth": "broker_auth.cli:main"}


@pytest.mark.parametrize(
    "topology", [item for item in Topology if item is not Topology.MIXED]
)  # that needs another nats-server
def test_init_uses_the_packaged_template(installed: Installed, topology: Topology) -> None:
    directory = installed.elsewhere / topology
    written = installed.run("init", directory, "--topology", topology, "--dev-pki")
    assert written.returncode == 0, written.stderr
    checked = installed.run("config", "check", directory / "broker.conf")
    assert (checked.returncode, checked.stderr) == (0, "")
    role = "single" if topology is Topology.SINGLE else "fleet"
    rendered = installed.run("config", "render", directory / "broker.conf", "--role", role)
    assert rendered.returncode == 0, rendered.stderr
    assert "auth_callout" in rendered.stdout


def test_token_check_works(installed: Installed, tmp_path: Path) -> None:
    seed = new_seed()
    key, token = tmp_path / "signer.seed", tmp_path / "token.jwt"
    key.write_text(seed.reveal())
    key.chmod(0o600)
    signed = installed.run("token", "provisioning", token, key, "--token", "x", "--urls", "tls://127.0.0.1:4222")
    assert signed.returncode == 0, signed.stderr
    for signer, code in ((signing_key_from_seed(seed, "signer").public_hex, 0), ("0" * 62 + "01", 1)):
        assert installed.run("token", "check", token, "--signer", signer).returncode == code
