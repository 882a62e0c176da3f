"""The wheel, built and installed by pip in a directory without the checkout."""

from __future__ import annotations

import os
import subprocess
import sys
import sysconfig
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import pytest

from tests.deadlines import LONG_SECONDS

ROOT: Final = Path(__file__).parents[2]
_PIP: Final = (sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check")


@dataclass(frozen=True, slots=True, kw_only=True)
class Installed:
    """The wheel, and the directory where it is installed."""

    wheel: Path
    target: Path
    elsewhere: Path

    @property
    def names(self) -> list[str]:
        """The files in the wheel."""
        with zipfile.ZipFile(self.wheel) as archive:
            return archive.namelist()

    def run(self, *arguments: object) -> subprocess.CompletedProcess[str]:
        """Run the installed ``broker-auth``."""
        return self.python(self.target / "bin" / "broker-auth", *arguments)

    def python(self, *arguments: object) -> subprocess.CompletedProcess[str]:
        """Run this Python with the checkout neither as working directory nor on the path.

        ``-S`` excludes editable installations, which would import the checkout; the dependencies are imported
        from this Python's directories.
        """
        path = os.pathsep.join((str(self.target), sysconfig.get_path("purelib"), sysconfig.get_path("platlib")))
        return subprocess.run(
            [sys.executable, "-S", "-P", *map(str, arguments)],
            cwd=self.elsewhere,
            env={"PYTHONPATH": path, "PATH": os.environ["PATH"]},
            capture_output=True,
            text=True,
            timeout=LONG_SECONDS,
            check=False,
        )


@pytest.fixture(scope="session")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Installed:
    """Build the wheel of this checkout, and install it."""
    directory = tmp_path_factory.mktemp("wheel")
    target, elsewhere = directory / "target", directory / "elsewhere"
    elsewhere.mkdir()
    _pip("wheel", "--no-deps", "--no-build-isolation", "--wheel-dir", str(directory), str(ROOT))
    wheel = next(directory.glob("broker_auth-*.whl"))
    _pip("install", "--no-deps", "--no-index", "--target", str(target), str(wheel))
    return Installed(wheel=wheel, target=target, elsewhere=elsewhere)


def _pip(*arguments: str) -> None:
    done = subprocess.run([*_PIP, *arguments], capture_output=True, text=True, timeout=LONG_SECONDS, check=False)
    assert done.returncode == 0, done.stderr
