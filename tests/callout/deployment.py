"""A fleet without an edge in a directory: nats-servers, keys and a configuration, and services for it."""

from __future__ import annotations

import asyncio
import contextlib
import re
import ssl
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Final, TypeVar

import nats
from nats.aio.client import Client

from broker_auth.deploy.pki import CertificateAuthority, Pair
from broker_auth.deploy.render import render
from broker_auth.natsio.nkey import NkeyKind, generate_seed, public_nkey
from broker_auth.sandbox.client import Credentials
from broker_auth.sandbox.natsserver import NatsServer, free_port
from broker_auth.sandbox.service import ServiceProcess
from broker_auth.settings.load import load
from broker_auth.settings.model import Settings
from tests.builders.seeds import write_secret, write_zone_seeds
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


class FleetDeployment:
    """Independent brokers of the fleet's role that differ in name and port only.

    A :class:`.Sandbox` has one broker of this role, and one service from start to end. Here a test chooses the number
    of brokers, starts and stops servers and services by itself, several at a time, and watches the callout account.

    Attributes:
        observer: seed of a second user of the callout account, to ask which services answer there.
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
        write_zone_seeds(directory)
        self.write_config()
        self.servers = {name: NatsServer(self._render(name), debug=True) for name in names}

    def write_pair(self, pair: Pair, name: str) -> None:
        pair.write(self.directory, name)

    def write_secret(self, name: str, text: str) -> None:
        write_secret(self.directory / name, text)

    def write_config(self, *extra: str, password: str = PASSWORD) -> None:
        """Write the configuration, with more lines at its end."""
        head = CONFIG.format(password=password, provisioner=PROVISIONER_NAME, names=", ".join(self.ports))
        brokers = "".join(BROKER.format(name=name, port=port) for name, port in self.ports.items())
        self.write_secret("broker.conf", head + brokers + "".join(f"{line}\n" for line in extra))

    def settings(self) -> Settings:
        return load(self.config, {}, serving=True)

    def render_again(self) -> None:
        """Write the servers' configurations again, after :meth:`write_config`."""
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
    def running(self) -> Iterator[FleetDeployment]:
        """Start every server; stop them at the end."""
        with contextlib.ExitStack() as stack:
            for server in self.servers.values():
                stack.enter_context(server)
            yield self

    def url(self, broker: str = "east") -> str:
        return f"tls://127.0.0.1:{self.ports[broker]}"

    def tls(self, pair: str | None = "client") -> ssl.SSLContext:
        """Return a client's TLS context, with a certificate or without."""
        files = [self.directory / f"{pair}.{end}" for end in ("pem", "key")] if pair else [None, None]
        return Credentials(ca=self.directory / "ca.pem", certificate=files[0], key=files[1]).tls()

    async def connect(
        self, broker: str = "east", *, pair: str = "client", seconds: int = HANG_SECONDS, **options: Any
    ) -> Client:
        """Attempt to log in once within ``seconds``, by default as a fleet member."""

        async def quiet(_: Exception) -> None:
            """Ignore failures, which connect raises."""

        options = {"allow_reconnect": False, "connect_timeout": seconds, "error_cb": quiet, **options}
        client = await nats.connect(self.url(broker), tls=self.tls(pair), **options)
        try:
            # nats-py reports a connection before the server has admitted it, if the decision takes longer than 2 s.
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

    def service(self, *options: str, name: str = "service", **environ: str) -> ServiceProcess:
        """Return a service for all brokers, not started; ``environ`` adds environment variables."""
        return ServiceProcess(self.config, self.directory / f"{name}.log", options, environ=environ)


async def eventually(look: Callable[[], T | None], seconds: float = HANG_SECONDS) -> T:
    """Return the result of ``look`` once it is true: a process publishes its state shortly after a change."""
    async with asyncio.timeout(seconds):
        while not (result := look()):
            await asyncio.sleep(0.05)
    return result
