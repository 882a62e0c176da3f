"""A deployment in a directory: nats-servers, keys and a configuration, and the service as a process."""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import signal
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Final, TypeVar

import nats
from nats.aio.client import Client

from broker_auth.deploy.pki import CertificateAuthority, Pair
from broker_auth.deploy.render import render
from broker_auth.natsio.nkey import NkeyKind, generate_seed, public_nkey
from broker_auth.sandbox.lifetime import dies_with_parent
from broker_auth.sandbox.natsserver import NatsServer, free_port
from broker_auth.settings.load import load
from broker_auth.settings.model import Settings
from tests.deadlines import HANG_SECONDS

T = TypeVar("T")
PASSWORD: Final = "hunter2-provisioner"
_DECIDED_SECONDS: Final = 15  # longer than a rendered server leaves a connection undecided
FLEET_NAME: Final = "node1.example.net"
PROVISIONER_NAME: Final = "provisioner.example.net"
CONFIG: Final = """\
plugin.choria.network.provisioning.signer_cert = signer.pem
plugin.choria.network.provisioning.client_password = {password}
plugin.choria.network.system.user = admin
plugin.choria.network.system.password = hunter2-system
plugin.broker_auth.client_ca = ca.pem
plugin.broker_auth.provisioner.identities = {provisioner}
plugin.broker_auth.nkey_seed_file = user.seed
plugin.broker_auth.issuer_seed_file = account.seed
plugin.broker_auth.xkey_seed_file = curve.seed
plugin.broker_auth.tls.ca = ca.pem
plugin.broker_auth.tls.certificate = client.pem
plugin.broker_auth.tls.key = client.key
plugin.broker_auth.brokers = {names}
"""
BROKER: Final = """\
plugin.broker_auth.broker.{name}.urls = tls://127.0.0.1:{port}
plugin.broker_auth.broker.{name}.role = fleet
plugin.broker_auth.broker.{name}.server.listen = 127.0.0.1:{port}
plugin.broker_auth.broker.{name}.server.tls.certificate = server.pem
plugin.broker_auth.broker.{name}.server.tls.key = server.key
plugin.broker_auth.broker.{name}.server.tls.ca = ca.pem
plugin.broker_auth.broker.{name}.server.store_dir = {name}-js
"""


class Deployment:
    """Brokers of the fleet's role, each on a port of its own, all alike but for their names.

    Attributes:
        observer: seed of a second user of the callout account, to ask what services answer there.
    """

    def __init__(self, directory: Path, names: Sequence[str] = ("east",)) -> None:
        self.directory = directory
        self.config = directory / "broker.conf"
        self.ports = {name: free_port() for name in names}
        self.observer = generate_seed(NkeyKind.USER)
        self.authority = CertificateAuthority.create()
        (directory / "ca.pem").write_bytes(self.authority.certificate_pem)
        (directory / "signer.pem").write_bytes(self.authority.certificate_pem)
        self.write_pair(self.authority.server(), "server")
        self.write_pair(self.authority.client(FLEET_NAME), "client")
        self.write_pair(self.authority.client(PROVISIONER_NAME), "provisioner")
        for name, kind in (("user", NkeyKind.USER), ("account", NkeyKind.ACCOUNT), ("curve", NkeyKind.CURVE)):
            self.write_secret(f"{name}.seed", generate_seed(kind))
        self.write_config()
        self.servers = {name: NatsServer(self._render(name), debug=True) for name in names}

    def write_pair(self, pair: Pair, name: str) -> None:
        pair.write(self.directory, name)

    def write_secret(self, name: str, text: str) -> None:
        path = self.directory / name
        path.write_text(text)
        path.chmod(0o600)

    def write_config(self, *extra: str, password: str = PASSWORD) -> None:
        """The configuration, with more lines at its end."""
        head = CONFIG.format(password=password, provisioner=PROVISIONER_NAME, names=", ".join(self.ports))
        brokers = "".join(BROKER.format(name=name, port=port) for name, port in self.ports.items())
        self.write_secret("broker.conf", head + brokers + "".join(f"{line}\n" for line in extra))

    def settings(self) -> Settings:
        return load(self.config, {}, serving=True)

    def render_again(self) -> None:
        """Write the servers' configurations anew, after :meth:`write_config`."""
        for name in self.ports:
            self._render(name)

    def _render(self, name: str) -> Path:
        settings = self.settings()
        broker = next(broker for broker in settings.brokers if broker.name == name)
        seed = settings.zone("fleet").nkey_seed
        assert seed
        service, observer = public_nkey(seed.reveal()), public_nkey(self.observer)
        text = render(settings, broker)
        text, allowed = re.subn(r'auth_users: \[ "', f'auth_users: [ "{observer}", "', text)
        text, user = re.subn(
            rf'(users: \[\s*)(\{{\s*nkey: "{service}")', rf'\1{{ nkey: "{observer}" }}\n      \2', text
        )
        assert allowed == user == 1
        path = self.directory / f"{name}.conf"
        path.write_text(text)
        return path

    @contextlib.contextmanager
    def running(self) -> Iterator[Deployment]:
        with contextlib.ExitStack() as stack:
            for server in self.servers.values():
                stack.enter_context(server)
            yield self

    def url(self, broker: str = "east") -> str:
        return f"tls://127.0.0.1:{self.ports[broker]}"

    def tls(self, pair: str | None = "client") -> ssl.SSLContext:
        context = ssl.create_default_context(cafile=str(self.directory / "ca.pem"))
        if pair is not None:
            context.load_cert_chain(self.directory / f"{pair}.pem", self.directory / f"{pair}.key")
        return context

    async def connect(
        self, broker: str = "east", *, pair: str = "client", seconds: int = HANG_SECONDS, **options: Any
    ) -> Client:
        """Make one attempt to get in within ``seconds``, as a fleet member unless told otherwise."""

        async def quiet(_: Exception) -> None:
            """Failures are raised by connect itself."""

        given: dict[str, Any] = {
            "allow_reconnect": False,
            "connect_timeout": seconds,
            "error_cb": quiet,
        } | options
        client = await nats.connect(self.url(broker), tls=self.tls(pair), **given)
        try:
            # The client counts as connected before it is let in where the decision takes longer than 2 s.
            await client.flush(timeout=min(seconds, _DECIDED_SECONDS))
        except Exception:
            await client.close()
            raise
        return client

    async def provisioner(self, password: str = PASSWORD, broker: str = "east", **options: Any) -> Client:
        return await self.connect(broker, pair="provisioner", user="provisioner", password=password, **options)

    async def watch(self, broker: str = "east") -> Client:
        """Connect as the second user of the callout account, which no service decides about."""
        return await self.connect(broker, nkeys_seed_str=self.observer)


class Service:
    """``broker-auth serve`` as a process; stopped for certain by the context manager."""

    def __init__(self, deployment: Deployment, *options: str, name: str = "service", **environ: str) -> None:
        self.deployment = deployment
        self.log_file = deployment.directory / f"{name}.log"
        self.out_file = deployment.directory / f"{name}.out"
        self._options = options
        self._environ = environ
        self._lines: list[str] = []
        self._ended = False
        self._news = threading.Condition()

    def start(self) -> Service:
        """Start it, for the first time or again; :meth:`ready` waits until it serves."""
        self._ended = False
        command = [sys.executable, "-m", "broker_auth", "serve", "--config", str(self.deployment.config)]
        with self.out_file.open("ab") as out:
            self.process = subprocess.Popen(
                dies_with_parent([*command, *self._options]),
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=subprocess.PIPE,
                text=True,
                env={**os.environ, **self._environ},
                start_new_session=True,
            )
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        return self

    def ready(self, timeout: float = HANG_SECONDS) -> Service:
        """Return once every broker reaches every worker."""
        self.wait_for_log(r"ready brokers=", timeout)
        return self

    def __enter__(self) -> Service:
        self.start()
        try:
            return self.ready()
        except BaseException:
            self.stop()
            raise

    def __exit__(self, *_: object) -> None:
        self.stop()

    def signal(self, number: signal.Signals) -> None:
        self.process.send_signal(number)

    def stop(self, timeout: float = HANG_SECONDS) -> int:
        """End it in order, and return its exit code; at once if that takes too long, which fails the test."""
        self.process.terminate()
        return self.wait(timeout)

    def wait(self, timeout: float = HANG_SECONDS) -> int:
        try:
            return self.process.wait(timeout)
        except subprocess.TimeoutExpired:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.process.pid, signal.SIGKILL)  # it leads its own session: workers too
            self.process.wait()
            raise
        finally:
            self._reader.join(5)

    @property
    def workers(self) -> list[int]:
        """Process ids of its workers."""
        children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text()
        return [int(pid) for pid in children.split()]

    def mark(self) -> int:
        with self._news:
            return len(self._lines)

    def log(self, since: int = 0) -> list[str]:
        with self._news:
            return self._lines[since:]

    def wait_for_log(self, pattern: str, timeout: float = HANG_SECONDS, *, since: int = 0) -> str:
        """The first line logged after ``since`` that the pattern is found in."""
        wanted, deadline = re.compile(pattern), time.monotonic() + timeout
        with self._news:
            while True:
                if found := next(filter(wanted.search, self._lines[since:]), None):
                    return found
                if self._ended or not self._news.wait(deadline - time.monotonic()):
                    raise AssertionError(f"no {pattern!r} in the log:\n" + "\n".join(self._lines[-15:]))

    def _read(self) -> None:
        assert self.process.stderr
        with self.process.stderr as source, self.log_file.open("a") as sink:
            for line in source:
                sink.write(line)
                with self._news:
                    self._lines.append(line.rstrip("\n"))
                    self._news.notify_all()
        with self._news:
            self._ended = True
            self._news.notify_all()


async def eventually(look: Callable[[], T | None], seconds: float = HANG_SECONDS) -> T:
    """What ``look`` returns once that is true: what a process says of itself comes a beat after the deed."""
    async with asyncio.timeout(seconds):
        while not (seen := look()):
            await asyncio.sleep(0.05)
    return seen
