"""The Choria Broker as it decides by itself, for comparison: whatever program ``$CHORIA`` names."""

from __future__ import annotations

import os
import socket
import subprocess
import time
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Final

from broker_auth.bench.site import BenchDeployment
from broker_auth.deploy.pki import LOCAL_NAMES
from broker_auth.errors import InputError, OperationError
from broker_auth.sandbox.lifetime import dies_with_parent

VARIABLE: Final = "CHORIA"
LEFT_OUT: Final = f"set {VARIABLE} to the path of a choria program to measure its broker, too"
_IDENTITY: Final = "choria.example.net"
_START_SECONDS: Final = 30.0
_STOP_SECONDS: Final = 10.0


def find_program(environ: Mapping[str, str] | None = None) -> Path | None:
    """Return the program that ``$CHORIA`` names, or None where it is not set.

    Raises:
        InputError: it names no program.
    """
    chosen = (os.environ if environ is None else environ).get(VARIABLE)
    if not chosen:
        return None
    if Path(chosen).is_dir() or not os.access(chosen, os.X_OK):
        raise InputError(f"{VARIABLE}: {chosen} is not a program; name a choria binary")
    return Path(chosen).absolute()


class ChoriaBroker:
    """A Choria Broker that admits members by certificate and nodes by provisioning token; a context manager."""

    def __init__(self, program: Path, deployment: BenchDeployment) -> None:
        self._program, self._deployment = program, deployment
        self._log = deployment.directory / "choria.log"

    def __enter__(self) -> ChoriaBroker:
        directory = self._deployment.directory
        config = directory / "choria.conf"
        config.write_text("".join(f"{key} = {value}\n" for key, value in self._settings().items()), encoding="utf-8")
        command = dies_with_parent([str(self._program), "broker", "run", "--config", str(config)])
        # Nothing of this machine's own Choria, such as /etc/choria or ~/.choriarc.
        environment = {"HOME": str(directory), "PATH": os.defpath, "USER": "bench"}
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(command, cwd=directory, env=environment, stdout=log, stderr=log)  # noqa: S603 - the user's
        try:
            self._wait_listening()
        except BaseException:
            self.__exit__(None, None, None)
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._process.terminate()
        try:
            self._process.wait(_STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._process.pid

    def _settings(self) -> dict[str, object]:
        directory = self._deployment.directory
        names = [*LOCAL_NAMES, _IDENTITY]
        certificate, key = self._deployment.trust.authority.server(_IDENTITY, hosts=names).write(directory, "choria")
        network = "plugin.choria.network"
        return {
            "identity": _IDENTITY,
            "logfile": directory / "choria-own.log",
            "plugin.choria.broker_network": "true",
            f"{network}.listen_address": "127.0.0.1",
            f"{network}.client_port": self._deployment.brokers[0].port,
            f"{network}.peer_port": 0,
            f"{network}.provisioning.signer_cert": directory / "signer.pem",
            f"{network}.provisioning.client_password": self._deployment.password,
            "plugin.security.provider": "file",
            "plugin.security.file.ca": directory / "ca.pem",
            "plugin.security.file.certificate": certificate,
            "plugin.security.file.key": key,
        }

    def _wait_listening(self) -> None:
        deadline = time.monotonic() + _START_SECONDS
        while time.monotonic() < deadline and self._process.poll() is None:
            try:
                socket.create_connection(("127.0.0.1", self._deployment.brokers[0].port), timeout=1).close()
            except OSError:
                time.sleep(0.05)
            else:
                return
        lines = self._log.read_text(encoding="utf-8", errors="replace").splitlines()
        raise OperationError(f"the Choria Broker did not start: {(lines or ['it printed nothing'])[-1]}")
