"""A cluster of three fleet servers, two edges and two service hosts, each in a separate network namespace."""

from __future__ import annotations

import asyncio
import resource
import signal
import ssl
import subprocess
import sys
from pathlib import Path
from typing import Final

from broker_auth.deploy.init import write_zone_keys
from broker_auth.deploy.natsbinary import find_binary
from broker_auth.deploy.pki import CertificateAuthority, signer
from broker_auth.deploy.render import render
from broker_auth.deploy.workspace import Workspace
from broker_auth.natsio.nkey import NkeyKind, generate_seed
from broker_auth.sandbox.identities import Issuer
from broker_auth.settings.load import load
from broker_auth.tokens.issue import load_signing_key
from tests.chaos.network import Network, signal_group

FLEET: Final = ("nats1", "nats2", "nats3")
EDGES: Final = ("edge1", "edge2")
SERVICES: Final = ("service1", "service2")
CLOCK: Final = """\
import os, time
_real, _file = time.time, os.environ["CHAOS_CLOCK"]
def _time():
    try:
        return _real() + os.stat(_file).st_size
    except OSError:
        return _real()
time.time = _time
"""
_HEAD: Final = """\
plugin.choria.network.provisioning.signer_cert = signer.pem
plugin.choria.network.system.user = system
plugin.choria.network.system.password = hunter2-system
plugin.choria.network.provisioning.client_password = hunter2-provisioner
plugin.broker_auth.provisioner.identities = provisioner.example.net
plugin.broker_auth.client_ca = ca.pem
plugin.broker_auth.brokers = fleet, edge1, edge2
plugin.broker_auth.workers = 2
plugin.broker_auth.nkey_seed_file = user.seed
plugin.broker_auth.issuer_seed_file = account.seed
plugin.broker_auth.xkey_seed_file = curve.seed
plugin.broker_auth.tls.ca = ca.pem
plugin.broker_auth.tls.certificate = client.pem
plugin.broker_auth.tls.key = client.key
plugin.broker_auth.metrics.listen = 127.0.0.1:9464
plugin.broker_auth.broker.fleet.role = fleet
plugin.broker_auth.broker.fleet.urls = tls://nats1:4222, tls://nats2:4222, tls://nats3:4222
plugin.broker_auth.broker.fleet.server.name = nats1
plugin.broker_auth.broker.fleet.server.listen = 0.0.0.0:4222
plugin.broker_auth.broker.fleet.server.tls.certificate = server.pem
plugin.broker_auth.broker.fleet.server.tls.key = server.key
plugin.broker_auth.broker.fleet.server.tls.ca = ca.pem
plugin.broker_auth.broker.fleet.server.store_dir = js-nats1
plugin.broker_auth.broker.fleet.server.cluster.name = fleet
plugin.broker_auth.broker.fleet.server.cluster.listen = 0.0.0.0:6222
plugin.broker_auth.broker.fleet.server.cluster.routes = tls://nats1:6222, tls://nats2:6222, tls://nats3:6222
plugin.broker_auth.broker.fleet.server.leaf.listen = 0.0.0.0:7422
plugin.broker_auth.broker.fleet.server.leaf.tls.ca = leaf-ca.pem
plugin.broker_auth.broker.fleet.server.leaf.user = edge1.leaf, edge2.leaf
"""
_EDGE: Final = """\
plugin.broker_auth.zone.{name}.nkey_seed_file = keys/{name}/service.seed
plugin.broker_auth.zone.{name}.issuer_seed_file = keys/{name}/issuer.seed
plugin.broker_auth.zone.{name}.xkey_seed_file = keys/{name}/xkey.seed
plugin.broker_auth.broker.{name}.role = edge
plugin.broker_auth.broker.{name}.urls = tls://{name}:4223
plugin.broker_auth.broker.{name}.server.name = {name}
plugin.broker_auth.broker.{name}.server.listen = 0.0.0.0:4223
plugin.broker_auth.broker.{name}.server.tls.certificate = edge.pem
plugin.broker_auth.broker.{name}.server.tls.key = edge.key
plugin.broker_auth.broker.{name}.server.leaf.remotes = tls://nats1:7422, tls://nats2:7422, tls://nats3:7422
plugin.broker_auth.broker.{name}.server.leaf.tls.ca = ca.pem
plugin.broker_auth.broker.{name}.server.leaf.tls.certificate = {name}-leaf.pem
plugin.broker_auth.broker.{name}.server.leaf.tls.key = {name}-leaf.key
"""


class Site:
    """The deployment: its configuration, network and processes by host."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.config = directory / "broker.conf"
        self.network = Network((*FLEET, *EDGES, *SERVICES), directory)
        self.processes: dict[str, subprocess.Popen[bytes]] = {}
        self._write()

    def _write(self) -> None:
        authority, leaf = CertificateAuthority.create(), CertificateAuthority.create("leaf CA")
        (self.directory / "ca.pem").write_bytes(authority.certificate_pem)
        (self.directory / "leaf-ca.pem").write_bytes(leaf.certificate_pem)
        authority.server(hosts=FLEET).write(self.directory, "server")
        authority.server(hosts=EDGES, routes=False).write(self.directory, "edge")
        authority.client("member.example.net").write(self.directory, "client")
        for name in EDGES:
            leaf.client(f"{name}.leaf").write(self.directory, f"{name}-leaf")
        own = signer()
        own.write(self.directory, "signer")
        self.token = Issuer(load_signing_key(own.key_pem, "signer.key")).node_token()
        for name, kind in (("user", NkeyKind.USER), ("account", NkeyKind.ACCOUNT), ("curve", NkeyKind.CURVE)):
            self._secret(f"{name}.seed", generate_seed(kind))
        for name in EDGES:
            write_zone_keys(Workspace(self.directory, force=False), name)
        self.write_config()
        self.clock.mkdir()
        (self.clock / "sitecustomize.py").write_text(CLOCK)
        for name in FLEET:
            key = "BROKER_AUTH_BROKER_FLEET_SERVER"
            self._render("fleet", name, {f"{key}_NAME": name, f"{key}_STORE_DIR": f"js-{name}"})
        for name in EDGES:
            self._render(name, name, {})

    @property
    def clock(self) -> Path:
        """The directory of the module that shifts the clock of a process."""
        return self.directory / "clock"

    def write_config(self, *extra: str) -> None:
        """Write the configuration, with ``extra`` lines at its end."""
        edges = "".join(_EDGE.format(name=name) for name in EDGES)
        self._secret("broker.conf", _HEAD + edges + "".join(f"{line}\n" for line in extra))

    def set_clock(self, host: str, ahead: int) -> None:
        """Set the clock of a service host ``ahead`` seconds ahead."""
        (self.directory / f"{host}.ahead").write_bytes(b"x" * ahead)

    @property
    def tls(self) -> ssl.SSLContext:
        """The TLS context of a fleet member; edges request no certificate."""
        context = ssl.create_default_context(cafile=str(self.directory / "ca.pem"))
        context.load_cert_chain(self.directory / "client.pem", self.directory / "client.key")
        return context

    def start(self, host: str) -> None:
        """Start the program of a host."""
        log = self.directory / f"{host}.log"
        if host in SERVICES:
            command = [sys.executable, "-m", "broker_auth", "serve", "--config", str(self.config)]
            environ = {
                "PYTHONPATH": str(self.clock),
                "CHAOS_CLOCK": str(self.directory / f"{host}.ahead"),
                "BROKER_AUTH_PID_FILE": str(self.directory / f"{host}.pid"),
                "BROKER_AUTH_AUDIT_OUTPUT": f"file:{self.directory}/{host}.jsonl",
            }
            self.processes[host] = self.network.start(host, command, log, **environ)
        else:
            command = [str(find_binary()), "-c", str(self.directory / f"{host}.conf")]
            self.processes[host] = self.network.start(host, command, log)

    async def stop(self, host: str, number: signal.Signals = signal.SIGTERM) -> None:
        """Stop the program of a host, and wait for its end."""
        process = self.processes[host]
        process.send_signal(number)
        await asyncio.to_thread(process.wait, 30)

    def signal(self, host: str, number: signal.Signals) -> None:
        """Send a signal to every process of a host."""
        signal_group(self.processes[host], number)

    def children(self, host: str) -> list[int]:
        """Return the processes of a service's zones, and their workers."""
        return descendants(self.processes[host].pid)

    async def ready(self, host: str, seconds: float = 40) -> None:
        """Wait until a service serves every zone."""
        async with asyncio.timeout(seconds):
            for path in ("/readyz", "/readyz/edge1", "/readyz/edge2"):
                while await asyncio.to_thread(self.network.status, host, path) != "200":
                    await asyncio.sleep(0.2)

    def apply_streams(self) -> None:
        """Create the fleet's streams, with a replica on each server."""
        command = [sys.executable, "-m", "broker_auth", "streams", "apply", "--config", str(self.config)]
        subprocess.run(command, stdout=subprocess.DEVNULL, check=True)

    def doctor(self) -> str:
        """Return the doctor's exit code, errors and warnings."""
        command = [sys.executable, "-m", "broker_auth", "doctor", "--config", str(self.config)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        lines = [line for line in done.stdout.splitlines() if line.startswith(("error", "warning"))]
        return "\n".join([f"doctor: exit {done.returncode}", *lines])

    def end(self) -> None:
        """Kill all processes."""
        for process in self.processes.values():
            if process.poll() is None:
                signal_group(process, signal.SIGKILL)
                process.wait()

    def _render(self, broker: str, name: str, environ: dict[str, str]) -> None:
        settings = load(self.config, environ, serving=True)
        configured = next(one for one in settings.brokers if one.name == broker)
        (self.directory / f"{name}.conf").write_text(render(settings, configured))

    def _secret(self, name: str, text: str) -> None:
        path = self.directory / name
        path.write_text(text)
        path.chmod(0o600)


def descendants(pid: int) -> list[int]:
    """Return the descendants of a process."""
    own = [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    return own + [deeper for child in own for deeper in descendants(child)]


def limit_files(pid: int, *, exhausted: bool) -> None:
    """Limit the files of a process to those that are open now, or restore the limit."""
    used = len(list(Path(f"/proc/{pid}/fd").iterdir()))
    hard = resource.prlimit(pid, resource.RLIMIT_NOFILE)[1]
    resource.prlimit(pid, resource.RLIMIT_NOFILE, (used if exhausted else min(4096, hard), hard))
