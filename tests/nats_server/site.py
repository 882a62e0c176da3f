"""Small nats-servers, each for one fact, and their clients; all are stopped after the test."""

from __future__ import annotations

import asyncio
import ssl
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any, Literal

import nats
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.errors import NoRespondersError

from broker_auth.deploy.natsbinary import check_configuration
from broker_auth.deploy.pki import CertificateAuthority, Pair
from broker_auth.natsio.client import round_trip
from broker_auth.natsio.nkey import NkeyKind, generate_seed, public_nkey
from broker_auth.sandbox.natsserver import NatsServer
from tests.deadlines import HANG_SECONDS
from tests.nats_server.responder import Answer, CalloutResponder, Signer
from tests.nats_server.wire import Wire

TLS = Literal["none", "open", "verify"]


async def quiet(_: Exception) -> None:
    """Ignore an error, because tests assert on errors."""


async def echo(client: Client, subject: str) -> None:
    """Reply to each message on the subject with its payload."""

    async def answer(message: Msg) -> None:
        await message.respond(message.data)

    await client.subscribe(subject, cb=answer)
    await round_trip(client)


async def reachable(client: Client, subject: str) -> bytes:
    """Repeat a request until it is answered, because servers propagate subscriptions asynchronously."""
    async with asyncio.timeout(HANG_SECONDS):
        while True:
            try:
                return (await client.request(subject, b"there?", timeout=1)).data
            except (NoRespondersError, TimeoutError):
                continue


class Site:
    """Servers with an account ``APP`` for clients, ``AUTH`` for the callout and ``SYS``.

    Attributes:
        signer: signs answers that its servers accept.
    """

    def __init__(self, directory: Path, stack: AsyncExitStack) -> None:
        self.directory = directory
        self.stack = stack
        self.authority = CertificateAuthority.create()
        self.ca = directory / "ca.pem"
        self.ca.write_bytes(self.authority.certificate_pem)
        self.certificate, self.key = self.authority.server().write(directory, "server")
        self.issuer, self.service, self.operator = (
            generate_seed(kind) for kind in (NkeyKind.ACCOUNT, NkeyKind.USER, NkeyKind.USER)
        )
        self.signer = Signer(self.issuer)

    # -- servers ------------------------------------------------------------------------------

    def config(
        self,
        name: str = "one",
        *,
        listen: str = "127.0.0.1:-1",
        tls: TLS = "none",
        authorization: str = "",
        callout: str = "",
        accounts: str = "APP: {}",
        extra: str = "",
    ) -> Path:
        """Write a configuration with a callout, without xkey, and with nats-server's defaults for other settings."""
        service, operator = public_nkey(self.service), public_nkey(self.operator)
        path = self.directory / f"{name}.conf"
        path.write_text(f"""
            server_name: {name}
            listen: "{listen}"
            {self.tls_block(tls)}
            authorization {{
              {authorization}
              auth_callout {{
                issuer: {public_nkey(self.issuer)}
                account: AUTH
                auth_users: [ {service}, {operator} ]
                {callout}
              }}
            }}
            accounts {{
              AUTH: {{ users: [ {{ nkey: {service} }} ] }}
              SYS: {{ users: [ {{ nkey: {operator} }} ] }}
              {accounts}
            }}
            system_account: SYS
            {extra}
        """)
        return path

    def tls_block(self, tls: TLS) -> str:
        if tls == "none":
            return ""
        verify = f'verify: true, ca_file: "{self.ca}"' if tls == "verify" else ""
        return f'tls {{ cert_file: "{self.certificate}", key_file: "{self.key}", timeout: 10, {verify} }}'

    def check(self, config: Path) -> None:
        """Check a configuration with nats-server."""
        check_configuration(config)

    async def start(self, config: Path, *, debug: bool = False) -> NatsServer:
        """Start a server, which is stopped after the test."""
        return await self.stack.enter_async_context(NatsServer(config, debug=debug))

    async def serve(self, **options: Any) -> NatsServer:
        """Write a configuration and start a server with it."""
        return await self.start(self.config(**options))

    async def logged(self, server: NatsServer, pattern: str, since: int = 0) -> str:
        """Wait for a line of the server's log."""
        return await asyncio.to_thread(server.wait_for_log, pattern, 15, since=since)

    def leaf(self, port: int, name: str = "edge", *, account: str = "APP", **options: Any) -> Path:
        """Write the configuration of a server that connects one account to another server's leaf port."""
        remote = f'{{ url: "nats-leaf://edge:x@127.0.0.1:{port}", account: {account} }}'
        return self.config(name, extra=f"leafnodes {{ remotes: [ {remote} ], reconnect: 1 }}", **options)

    # -- clients -------------------------------------------------------------------------------

    def tls(self, pair: Pair | None = None, name: str = "client") -> ssl.SSLContext:
        """Return a client's TLS context, with or without a certificate."""
        context = ssl.create_default_context(cafile=str(self.ca))
        if pair is not None:
            context.load_cert_chain(*pair.write(self.directory, name))
        return context

    def member(self) -> ssl.SSLContext:
        """Return the TLS context of a client with a certificate."""
        return self.tls(self.authority.client("member.example.net"))

    async def responder(
        self,
        server: NatsServer,
        answer: Answer | None = None,
        *,
        queue: str = "",
        tls: ssl.SSLContext | None = None,
    ) -> CalloutResponder:
        """Answer a server's callout requests; by default admit every client to ``APP``."""
        client = await self.client(server, nkeys_seed_str=self.service, tls=tls)
        responder = CalloutResponder(client, answer or self.signer.admit)
        await responder.listen(queue)
        return responder

    async def client(self, server: NatsServer, **options: Any) -> Client:
        """Connect a nats-py client, without retries; it is closed after the test."""
        scheme = "nats" if options.get("tls") is None else "tls"
        return await self.connect(f"{scheme}://127.0.0.1:{server.port()}", **options)

    async def connect(self, url: str, **options: Any) -> Client:
        """Connect to a URL as :meth:`client` does."""
        settings = {"allow_reconnect": False, "error_cb": quiet, "connect_timeout": 15, **options}
        client = await nats.connect(url, **settings)
        self.stack.push_async_callback(client.close)
        return client

    async def operate(self, server: NatsServer, tls: ssl.SSLContext | None = None) -> Client:
        """Connect a client in the system account."""
        return await self.client(server, nkeys_seed_str=self.operator, tls=tls)

    async def wire(self, server: NatsServer, tls: ssl.SSLContext | None = None) -> Wire:
        """Open a connection without sending CONNECT."""
        wire = await Wire.open(server.port(), tls)
        self.stack.push_async_callback(wire.close)
        return wire
