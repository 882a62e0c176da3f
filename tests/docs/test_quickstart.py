"""The commands of README.md and the quick start work unchanged in a checkout with Python."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import sysconfig
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest

from broker_auth.deploy.natsbinary import find_binary
from broker_auth.sandbox.lifetime import dies_with_parent
from broker_auth.sandbox.natsserver import free_port
from tests.docs.pages import DOCS, ROOT, fenced

pytestmark = pytest.mark.e2e
README: Final = ROOT / "README.md"
SECONDS: Final = 280.0
PARTS: Final = ("broker_auth", "examples", "pyproject.toml", "nats-server.conf.j2", "README.md", "LICENSE", "Makefile")
# Programs that run until they are stopped, and their output when ready. A reader runs each in a separate terminal.
READY: Final = {
    "nats-server -c": "Server is ready",
    "broker-auth serve": "ready brokers=fleet,edge",
    "python examples/onboarding/provisioner.py": "provisioner: 1 in the inventory",
    "python examples/onboarding/node.py": "member: node1.example.net in account choria",
}
# Each port on the page is replaced by a free port, because other tests run on this machine.
PORTS: Final = {"4222": "--port", "4223": "--edge-port", "7422": "--leaf-port"}


def commands(page: Path) -> list[str]:
    """Return every command in the console blocks of a page, each in one line."""
    lines = []
    for block in fenced(page.read_text(encoding="utf-8"), "console"):
        text = "\n".join(block).replace("\\\n", " ")
        lines += [line.removeprefix("$ ") for line in text.splitlines() if line.startswith("$ ")]
    return lines


def script(typed: list[str], ports: dict[str, int]) -> Iterator[str]:
    """Yield the lines of a shell script that runs these commands as a reader would."""
    yield "set -eu"
    yield "trap 'kill $(jobs -p) 2>/dev/null; wait' EXIT"
    for number, command in enumerate(typed):
        for page, port in ports.items():
            command = re.sub(rf":{page}\b", f":{port}", command)
        if command.startswith("make "):  # other tests run the demo and the test suite
            command = command.replace("make ", "make --dry-run ", 1)
        if command.startswith("broker-auth init "):
            command += "".join(f" {option} {ports[page]}" for page, option in PORTS.items())
        yield f"echo {shlex.quote('$ ' + command)}"
        ready = next((text for start, text in READY.items() if command.startswith(start)), None)
        if ready is None:
            yield command
            continue
        yield f"{command} > log{number} 2>&1 &"
        yield f"until grep -q {shlex.quote(ready)} log{number}; do kill -0 $! || cat log{number}; sleep 0.1; done"


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a writable copy of this checkout."""
    directory = tmp_path_factory.mktemp("readme") / "broker-auth"
    directory.mkdir()
    for part in PARTS:
        if (ROOT / part).is_dir():
            shutil.copytree(ROOT / part, directory / part, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(ROOT / part, directory)
    return directory


@pytest.fixture(scope="module")
def offline(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Return an environment in which pip finds every dependency without the network, in any virtual environment.

    The dependencies are those of this Python: `sitecustomize` appends their directory to the environment's path. It
    does not process the `.pth` files there, so an editable installation of this project is not imported.
    """
    directory = tmp_path_factory.mktemp("offline")
    paths = [path for name in ("purelib", "platlib") if (path := sysconfig.get_path(name))]
    (directory / "sitecustomize.py").write_text(f"import sys\nsys.path += {list(dict.fromkeys(paths))!r}\n")
    for name, program in (("python3", os.path.realpath(sys.executable)), ("nats-server", find_binary())):
        (directory / name).symlink_to(program)
    scripts = sysconfig.get_path("scripts")  # contains a broker-auth that a reader does not have
    searched = [str(directory), *(item for item in os.environ["PATH"].split(os.pathsep) if item != scripts)]
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(("PIP_", "VIRTUAL_ENV"))}
    return inherited | {
        "PYTHONPATH": str(directory),
        "PATH": os.pathsep.join(searched),
        "PIP_NO_INDEX": "1",
        "PIP_NO_BUILD_ISOLATION": "0",  # pip reads 0 as: build without isolation, with the installed packages
        "PIP_DISABLE_PIP_VERSION_CHECK": "1",
        "PIP_QUIET": "1",
    }


@pytest.mark.timeout(300)
def test_every_command_of_the_readme_works(checkout: Path, offline: dict[str, str]) -> None:
    typed = [*commands(README), "command -v broker-auth"]
    ports = {page: free_port() for page in PORTS}
    bash = dies_with_parent([shutil.which("bash") or "bash", "-c", "\n".join(script(typed, ports))])
    with subprocess.Popen(
        bash,
        cwd=checkout,
        env=offline,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    ) as reader:
        try:
            output, _ = reader.communicate(timeout=SECONDS)
        finally:
            if reader.returncode is None:
                os.killpg(reader.pid, signal.SIGKILL)
    assert reader.returncode == 0, output
    shown = {part.partition("\n")[0]: part.partition("\n")[2] for part in output.split("$ ")}
    conns, doctor = (next(text for line, text in shown.items() if command in line) for command in ("report", "doctor"))
    assert re.search(r"choria\s.*node1\.example\.net", conns)
    assert re.search(r"^0 errors", doctor, re.MULTILINE)
    assert output.splitlines()[-1] == str(checkout / "venv" / "bin" / "broker-auth")


def test_tutorial_has_the_commands_of_the_readme() -> None:
    readme = commands(README)
    start = commands(DOCS / "tutorial.md")
    assert start
    assert start == [command for command in readme if command in start]
    assert set(readme) - set(start) == {command for command in readme if command.startswith(("make ", "pip wheel"))} | {
        readme[-1]
    }


def test_script_waits_for_started_programs() -> None:
    typed = commands(README)
    assert all(any(command.startswith(start) for command in typed) for start in READY)
    assert set(PORTS) - {"7422"} <= set(re.findall(r":(\d{4})\b", " ".join(typed)))
