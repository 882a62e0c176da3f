"""docs/systemd.md: its commands restrict files to their users; tested with processes of two users, as root."""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
from click.testing import CliRunner

from broker_auth.cli import main
from broker_auth.deploy.init import initialize
from broker_auth.deploy.natsbinary import find_binary
from broker_auth.deploy.plan import Edge, Plan
from tests.docs.pages import DOCS, fenced
from tests.docs.test_commands import calls

SERVICE, NATS = 61_234, 61_235  # unused user and group ids
PAGE = (DOCS / "systemd.md").read_text(encoding="utf-8")

pytestmark = [
    pytest.mark.e2e,
    pytest.mark.skipif(os.geteuid() != 0, reason="only root can be two users"),
]


def run_as(user: int, *command: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command,
        user=user,
        group=user,
        extra_groups=[],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
        cwd="/",
    )


def reads(user: int, path: Path) -> bool:
    return run_as(user, "cat", path).returncode == 0


@pytest.fixture(scope="module")
def root() -> Iterator[Path]:
    """Yield a directory that all users can reach, with ``etc`` and ``pki`` as the page's commands create them."""
    directory = Path(tempfile.mkdtemp(prefix="layout-"))
    directory.chmod(0o755)
    try:
        initialize(
            Plan(
                directory=directory / "made",
                dev_pki=True,
                fleet_hosts=("nats.example.net",),
                named_edges=(Edge("edge", "edge.example.net"),),
            )
        )
        (directory / "made/pki").rename(directory / "pki")
        _follow_the_page(directory)
        yield directory
    finally:
        shutil.rmtree(directory)


def _follow_the_page(directory: Path) -> None:
    steps = ["\n".join(block) for block in fenced(PAGE, "bash")]
    (certificates,) = [step for step in steps if "/etc/nats/tls" in step]
    (permissions,) = [step for step in steps if step.startswith("chgrp")]
    commands = [call for block in fenced(PAGE, "console") for call in calls(block) if call[0] in ("init", "config")]
    _shell(certificates, directory)
    for command in commands:
        done = CliRunner().invoke(main, [word.replace("/etc/", f"{directory}/etc/") for word in command])
        assert done.exit_code == 0, shlex.join(command) + done.output
    for seed in (directory / "etc/broker-auth/keys").rglob("break-glass.seed"):
        seed.unlink()
    _shell(permissions, directory)


def _shell(script: str, directory: Path) -> None:
    script = script.replace("/etc/", f"{directory}/etc/").replace("-g nats", f"-g {NATS}")
    script = script.replace("-g broker-auth", f"-g {SERVICE}").replace("chgrp -R broker-auth", f"chgrp -R {SERVICE}")
    subprocess.run(["bash", "-eu", "-c", f"umask 077\n{script}"], cwd=directory, check=True, timeout=60)


def _files(directory: Path, names: Sequence[str]) -> list[Path]:
    return [path for pattern in names for path in directory.glob(pattern) if path.is_file()]


def test_each_user_can_read_only_its_own_files(root: Path) -> None:
    etc = root / "etc"
    own = _files(etc / "broker-auth", ["broker.conf", "keys/**/*", "tls/*"])
    nats = _files(etc / "nats", ["tls/*.key"])
    public = _files(etc / "nats", ["*.conf", "tls/*.pem"])
    assert (len(own), len(nats), len(public)) == (20, 3, 7)
    assert [path for path in own if not reads(SERVICE, path) or reads(NATS, path)] == []
    assert [path for path in nats if not reads(NATS, path) or reads(SERVICE, path)] == []
    assert [path for path in public if not (reads(NATS, path) and reads(SERVICE, path))] == []


def test_neither_user_can_change_a_file(root: Path) -> None:
    for path in (root / "etc").rglob("*"):
        for user in (SERVICE, NATS):
            assert run_as(user, "test", "-w", path).returncode == 1, path


def test_nats_server_accepts_its_configuration_as_its_user(root: Path) -> None:
    binary = shutil.copy(find_binary(), root / "nats-server")  # other users may not reach the original
    for name in ("fleet", "edge"):
        done = run_as(NATS, binary, "-t", "-c", root / f"etc/nats/{name}.conf")
        assert done.returncode == 0, done.stderr


# Other users may not reach this Python, so it loads everything as root before it changes the user.
_CHECK = """
import os, sys
from pathlib import Path
from broker_auth.settings.load import check
path, user = Path(sys.argv[1]), int(sys.argv[2])
check(path, {})
os.setgroups([])
os.setgid(user)
os.setuid(user)
report = check(path, {})
print(*report.problems, *report.warnings, sep="\\n")
sys.exit(report.settings is None)
"""


def _checked(root: Path, user: int) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", _CHECK, root / "etc/broker-auth/broker.conf", str(user)],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


@pytest.mark.parametrize(("user", "status"), [(SERVICE, 0), (0, 0), (NATS, 1)], ids=["service", "root", "nats"])
def test_configuration_is_valid_for_the_service_and_for_root(root: Path, user: int, status: int) -> None:
    done = _checked(root, user)
    assert (done.returncode, done.stderr) == (status, "")
    assert (done.stdout.strip() == "") == (status == 0)


def test_root_can_add_a_zone_to_group_readable_keys(root: Path) -> None:
    configuration = root / "etc/broker-auth/broker.conf"
    done = CliRunner().invoke(main, ["config", "zone", str(configuration), "edge2"])
    assert done.exit_code == 0, done.output
    shutil.rmtree(root / "etc/broker-auth/keys/edge2")


def test_error_for_another_user_names_the_service_user(root: Path) -> None:
    """The error is one line, not a line for each unreadable file."""
    done = _checked(root, NATS)
    (line,) = done.stdout.splitlines()
    assert "broker.conf" in line
    assert "cannot be read (Permission denied); run this as the service's user, as in: sudo -u broker-auth" in line
