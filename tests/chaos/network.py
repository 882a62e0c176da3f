"""Hosts as network namespaces on one bridge, whose network cables can be unplugged."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final

NETWORK: Final = "10.99.0"
INSIDE: Final = "--inside"


def enter(arguments: Sequence[str]) -> None:
    """Run this program again in new namespaces, which end with it; return only there.

    Raises:
        SystemExit: the system does not allow it.
    """
    if INSIDE in sys.argv:
        return
    allowed = subprocess.run(["unshare", "--net", "--mount", "true"], capture_output=True, check=False)
    if os.geteuid() != 0 or allowed.returncode:
        sys.exit("tests.chaos needs network namespaces: run it as root, where unshare(1) and ip(8) work")
    command = ["unshare", "--net", "--mount", sys.executable, "-W", "ignore", "-m", "tests.chaos", INSIDE, *arguments]
    os.execvp(command[0], command)  # noqa: S606 - ourselves


class Network:
    """A bridge with hosts; the caller has the address ``.1``, named hosts have ``.11`` and following."""

    def __init__(self, names: Sequence[str], directory: Path) -> None:
        self.addresses = {name: f"{NETWORK}.{number}" for number, name in enumerate(names, 11)}
        hosts = directory / "hosts"
        lines = ["127.0.0.1 localhost", *(f"{address} {name}" for name, address in self.addresses.items())]
        hosts.write_text("\n".join(lines) + "\n")
        _run("mount", "--bind", str(hosts), "/etc/hosts")
        _run("mount", "-t", "tmpfs", "tmpfs", "/run")
        _run("ip", "link", "set", "lo", "up")
        _run("ip", "link", "add", "br0", "type", "bridge")
        _run("ip", "addr", "add", f"{NETWORK}.1/24", "dev", "br0")
        _run("ip", "link", "set", "br0", "up")
        for name, address in self.addresses.items():
            _run("ip", "netns", "add", name)
            _run("ip", "link", "add", name, "type", "veth", "peer", "name", "eth0", "netns", name)
            _run("ip", "link", "set", name, "master", "br0", "up")
            _run("ip", "-n", name, "link", "set", "lo", "up")
            _run("ip", "-n", name, "addr", "add", f"{address}/24", "dev", "eth0")
            _run("ip", "-n", name, "link", "set", "eth0", "up")

    def cable(self, host: str, *, plugged: bool) -> None:
        """Connect or disconnect a host's cable; neither end of a connection is notified."""
        _run("ip", "link", "set", host, "up" if plugged else "down")

    def start(self, host: str, command: Sequence[str], log: Path, **environ: str) -> subprocess.Popen[bytes]:
        """Start a program on a host, as the leader of a new process group."""
        with log.open("ab") as file:
            return subprocess.Popen(
                ["ip", "netns", "exec", host, *command],
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=file,
                env={**os.environ, **environ},
                start_new_session=True,
            )

    def status(self, host: str, path: str) -> str:
        """Return the HTTP status of a health endpoint, requested on its host; ``000`` without an answer."""
        url = f"http://127.0.0.1:9464{path}"
        command = ["ip", "netns", "exec", host, "curl", "-s", "-m", "1", "-o", "/dev/null", "-w", "%{http_code}", url]
        return subprocess.run(command, capture_output=True, text=True, check=False).stdout or "000"


def signal_group(process: subprocess.Popen[bytes], number: signal.Signals) -> None:
    """Send a signal to a program and its descendants."""
    os.killpg(process.pid, number)


def _run(*command: str) -> None:
    subprocess.run(command, check=True)
