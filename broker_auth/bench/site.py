"""A deployment for the bench in a directory: keys, ``broker.conf``, a nats-server without a callout."""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from broker_auth.bench.flooder import USER
from broker_auth.bench.materials import Trust
from broker_auth.deploy.render import render
from broker_auth.files.writing import write_private
from broker_auth.natsio.nkey import NkeyKind, decode_public, generate_seed, public_nkey
from broker_auth.natsio.subjects import AUTH_REQUEST_SUBJECT, PEERS_SUBJECT
from broker_auth.sandbox.natsserver import NatsServer, free_port
from broker_auth.settings.load import load

# Fact 24: with auth_callout configured nats-server refuses requests that are not its own, so the
# flooder uses a server with the same account and user but without a callout.
_FLOODED: Final = """
server_name: {name}
listen: "127.0.0.1:{port}"
accounts {{
  AUTH: {{ users: [
    {{ nkey: {service}, permissions: {{
        subscribe: [ "{subject}", "{subject} >", "{words}", "$SYS.ACCOUNT.CLIENT.AUTH.ERR", "$SRV.>" ]
        publish: [ "{words}" ]
        allow_responses: {{ max: 2, expires: "10s" }} }} }}
    {{ user: {user}, password: "{password}" }}
  ] }}
}}
"""

# The comparison: the same TLS, and nats-server itself knows every node's token, or admits members by certificate.
_STATIC: Final = """
server_name: {name}
listen: "127.0.0.1:{port}"
tls {{ cert_file: "{directory}/server.pem", key_file: "{directory}/server.key", timeout: 10 {verify} }}
max_control_line: 65536
{users}
"""
_VERIFY: Final = 'ca_file: "{directory}/ca.pem", verify: true'
_TOKEN: Final = 'authorization {{ token: "{token}", timeout: 10 }}'
_MEMBERS: Final = """
accounts {{ choria: {{ users: [ {{ user: member, password: "{password}" }} ] }} }}
no_auth_user: member
authorization {{ timeout: 10 }}
"""
_CONNECTIONS: Final = 20_000  # more than any storm


@dataclass(frozen=True, slots=True)
class Broker:
    """A nats-server that can be flooded."""

    name: str
    role: str
    port: int = field(default_factory=free_port)


class BenchDeployment:
    """Keys and configurations for measurements.

    A :class:`.Sandbox` runs nats-servers with a callout, which refuse requests of a flooder (fact 24). These run
    without it, or decide by themselves for comparison, and their clients' certificates are issued in memory.

    ``xkey``: requests are sealed. ``tls``: brokers are those of a deployment; else they can be flooded.
    """

    def __init__(
        self,
        directory: Path,
        trust: Trust,
        *,
        xkey: bool,
        tls: bool = False,
        brokers: Sequence[Broker] | None = None,
    ) -> None:
        self.directory = directory
        self.trust = trust
        self._tls = tls
        self.brokers = tuple(brokers or (Broker("default", "single"),))
        self.password = secrets.token_hex(16)
        self.config = directory / "broker.conf"
        self.service_xkey: bytes | None = None
        self._service = self._seed("service.nk", NkeyKind.USER)
        self.issuer = self._seed("issuer.nk", NkeyKind.ACCOUNT)
        if xkey:
            self.service_xkey = decode_public(self._seed("xkey.nk", NkeyKind.CURVE), NkeyKind.CURVE)
        (directory / "signer.pem").write_bytes(trust.provisioning.certificate_pem)
        (directory / "ca.pem").write_bytes(trust.authority.certificate_pem)
        trust.authority.server().write(directory, "server")
        trust.authority.client("broker-auth").write(directory, "service")
        self.config.write_text("\n".join(self._lines()) + "\n", encoding="utf-8")

    def server(self, broker: Broker) -> NatsServer:
        """Return the broker's nats-server, not started yet."""
        config = self.directory / f"{broker.name}.conf"
        text = _FLOODED.format(
            name=broker.name,
            port=broker.port,
            service=self._service,
            subject=AUTH_REQUEST_SUBJECT,
            words=PEERS_SUBJECT,
            user=USER,
            password=self.password,
        )
        config.write_text(text, encoding="utf-8")
        return NatsServer(config)

    def callout_server(self) -> NatsServer:
        """Return the nats-server of a deployment, as ``config render`` writes it."""
        settings = load(self.config, {}, serving=True)
        config = self.directory / "callout.conf"
        config.write_text(render(settings, settings.brokers[0]), encoding="utf-8")
        return NatsServer(config)

    def static_server(self, token: str) -> NatsServer:
        """Return a nats-server that decides by itself: by this token or, if it is empty, by certificate."""
        config, broker = self.directory / "static.conf", self.brokers[0]
        text = _STATIC.format(
            name=broker.name,
            port=broker.port,
            directory=self.directory,
            verify="" if token else ", " + _VERIFY.format(directory=self.directory),
            users=_TOKEN.format(token=token) if token else _MEMBERS.format(password=self.password),
        )
        config.write_text(text, encoding="utf-8")
        return NatsServer(config)

    def _seed(self, name: str, kind: NkeyKind) -> str:
        """Write a new seed; returns its public key."""
        seed = generate_seed(kind)
        write_private(self.directory / name, seed.encode())
        return public_nkey(seed)

    def _lines(self) -> list[str]:
        """Return the lines of ``broker.conf``."""
        write_private(self.directory / "password", secrets.token_hex(16).encode())
        own = {
            "brokers": ", ".join(broker.name for broker in self.brokers),
            "nkey_seed_file": "service.nk",
            "issuer_seed_file": "issuer.nk",
            "client_ca": "ca.pem",
        }
        if self.service_xkey is not None:
            own["xkey_seed_file"] = "xkey.nk"
        for broker in self.brokers:
            own |= {f"broker.{broker.name}.{key}": value for key, value in self._broker(broker).items()}
        own["provisioning.limits.max_connections"] = str(_CONNECTIONS)
        choria = {"signer_cert": "signer.pem", "client_password": "file:password"}
        return [f"plugin.broker_auth.{key} = {value}" for key, value in own.items()] + [
            f"plugin.choria.network.provisioning.{key} = {value}" for key, value in choria.items()
        ]

    def _broker(self, broker: Broker) -> dict[str, str]:
        address = f"127.0.0.1:{broker.port}"
        if not self._tls:
            return {"urls": f"nats://{address}", "role": broker.role}
        server = {"listen": address, "tls.certificate": "server.pem", "tls.key": "server.key", "store_dir": "js"}
        own = {"urls": f"tls://{address}", "role": broker.role, "tls.ca": "ca.pem"}
        if broker.role == "fleet":  # demands a certificate of its clients, this service included
            own |= {"tls.certificate": "service.pem", "tls.key": "service.key"}
            server["tls.ca"] = "ca.pem"
        return own | {f"server.{key}": value for key, value in server.items()}
