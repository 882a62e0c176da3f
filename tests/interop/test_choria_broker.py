"""Choria's own broker, tested with connections that it decides differently, by ``docs/moving-from-choria.md``."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import msgspec
import pytest

from broker_auth.bench.contenders import CHORIA, Clients, contender
from broker_auth.bench.materials import Trust
from broker_auth.bench.processes import Connectors
from broker_auth.deploy.pki import CertificateAuthority
from broker_auth.natsio.client import round_trip
from broker_auth.sandbox.client import ConnectRefusedError, Credentials, connect
from broker_auth.sandbox.natsserver import free_port
from tests.builders.clock import HOUR
from tests.builders.tokens import (
    ABSENT,
    HOLDER,
    ORG,
    Claims,
    client_claims,
    ksuid,
    org_issuer,
    provisioning_claims,
    server_claims,
    sign,
)
from tests.interop.choria_program import STARTUP_SECONDS, Choria, running

pytestmark = pytest.mark.e2e

PASSWORD = "provisioner password"
HOST = "localhost"
NETWORK = "plugin.choria.network"
HOSTS = {f"{NETWORK}.client_hosts": "127.0.0.1"}
DENY_SERVERS = {f"{NETWORK}.deny_server_connections": "true"}
NO_TOKEN = {f"{NETWORK}.provisioning.provisioner_without_token": "true"}

ADMITTED, DENIED, FORBIDDEN = "admitted", "denied", "admitted, and forbidden to publish"


@dataclass(frozen=True, slots=True)
class Attempt:
    """A connection: its credentials, the subject it publishes to, and the result in Choria."""

    name: str
    outcome: str
    token: Callable[[int], Claims] | None = None
    certificate: bool = False
    provisioner: bool = False
    publish: str = "mcollective.node.x"

    def credentials(self, pki: Path) -> Credentials:
        """Return the credentials, with :data:`HOLDER`'s nonce signature except for the provisioner."""
        pair = (pki / "member.pem", pki / "member.key") if self.certificate else (None, None)
        return Credentials(
            ca=pki / "ca.pem",
            certificate=pair[0],
            key=pair[1],
            user="provisioner" if self.provisioner else "",
            password=PASSWORD if self.provisioner else "",
            token=sign(self.token(int(time.time())), ORG) if self.token else "",
            seed=b"" if self.provisioner else HOLDER.private.private_bytes_raw(),  # type: ignore[union-attr]
        )


def _times(now: int) -> Claims:
    return {"jti": ksuid(now), "iat": now, "nbf": now, "exp": now + HOUR}


def _client(**changes: object) -> Callable[[int], Claims]:
    return lambda now: client_claims(**(_times(now) | changes))


def _server(**changes: object) -> Callable[[int], Claims]:
    return lambda now: server_claims(**(_times(now) | changes))


def _provisioning(**changes: object) -> Callable[[int], Claims]:
    return lambda now: provisioning_claims(**(_times(now) | changes))


MEMBER = "a certificate without a token"
X509: list[tuple[str, dict[str, str], list[Attempt]]] = [
    (
        "nothing more",
        {},
        [
            Attempt(MEMBER, ADMITTED, certificate=True),
            Attempt("provisioner, though no signer is configured", ADMITTED, certificate=True, provisioner=True),
            Attempt("a password without a certificate", DENIED, provisioner=True),
        ],
    ),
    ("client_hosts lists the address", HOSTS, [Attempt(MEMBER, FORBIDDEN, certificate=True)]),
    (
        "client_hosts and deny_server_connections",
        HOSTS | DENY_SERVERS,
        [Attempt(MEMBER, FORBIDDEN, certificate=True, publish="anything")],
    ),
]
ISSUER: list[tuple[str, dict[str, str], list[Attempt]]] = [
    (
        "issuer",
        {},
        [
            Attempt(MEMBER, FORBIDDEN, certificate=True),
            Attempt(
                "the same, to a federation",
                FORBIDDEN,
                certificate=True,
                publish="choria.federation.x",
            ),
            Attempt(
                "provisioner with a token, no certificate, no nonce signed",
                ADMITTED,
                token=_client(permissions={"provisioner": True}),
                provisioner=True,
            ),
            Attempt("client", FORBIDDEN, token=_client()),
            Attempt("client without exp", FORBIDDEN, token=_client(exp=ABSENT)),
            Attempt("client with tcs, but no chain", FORBIDDEN, token=_client(tcs="ab" * 64)),
            Attempt("server", ADMITTED, token=_server(), publish="mcollective.reply.x"),
            Attempt("server in no collective", FORBIDDEN, token=_server(collectives=[]), publish="choria.lifecycle.x"),
            Attempt("server as chain issuer", DENIED, token=lambda now: org_issuer(_server()(now))),
            Attempt(
                "provisioning by sub, beside another purpose",
                ADMITTED,
                token=_provisioning(purpose="other", sub="choria_provisioning"),
                publish="provisioning.reply.x",
            ),
        ],
    ),
    (
        "issuer, client_hosts",
        HOSTS,
        # pub-sub permissions would forbid it
        [Attempt(MEMBER, ADMITTED, certificate=True, publish="choria.federation.x")],
    ),
    (
        "issuer, provisioner_without_token",
        NO_TOKEN,
        [Attempt("the password alone", ADMITTED, provisioner=True)],
    ),
]
NETWORKS = [(name, settings, attempts, False) for name, settings, attempts in X509] + [
    (name, settings, attempts, True) for name, settings, attempts in ISSUER
]


@pytest.mark.parametrize(
    ("settings", "attempts", "issuer"), [network[1:] for network in NETWORKS], ids=[network[0] for network in NETWORKS]
)
async def test_decision_of_chorias_broker(
    choria_server: Choria, tmp_path: Path, settings: dict[str, str], attempts: list[Attempt], *, issuer: bool
) -> None:
    write_pki(tmp_path)
    async with broker(choria_server, tmp_path, settings, issuer=issuer) as url:
        outcomes = {attempt.name: await outcome(url, attempt, tmp_path) for attempt in attempts}
    assert outcomes == {attempt.name: attempt.outcome for attempt in attempts}


@pytest.mark.parametrize("clients", Clients)
def test_choria_admits_clients_of_the_bench(choria_server: Choria, tmp_path: Path, clients: Clients) -> None:
    with (
        contender(CHORIA, clients, Trust(), tmp_path, choria_server.program) as broker,
        Connectors() as connectors,
    ):
        done = connectors.run(msgspec.structs.replace(broker.task, seconds=0.2, at_once=4))
    assert len(done.times_ms) >= 4
    assert done.failed_first == 0


async def outcome(url: str, attempt: Attempt, pki: Path) -> str:
    try:
        client = await connect(url, attempt.name, attempt.credentials(pki))
    except ConnectRefusedError:
        return DENIED
    try:
        await client.publish(attempt.publish, b"")
        await round_trip(client)  # the server reports violations before it answers
        forbidden = "permissions violation" in str(client.last_error).lower()
    finally:
        await client.close()
    return FORBIDDEN if forbidden else ADMITTED


def write_pki(directory: Path) -> None:
    ca = CertificateAuthority.create("fleet CA")
    (directory / "ca.pem").write_bytes(ca.certificate_pem)
    ca.server("broker.example.net", hosts=[HOST, "broker.example.net"]).write(directory, "server")
    ca.client("member").write(directory, "member")


@asynccontextmanager
async def broker(choria: Choria, directory: Path, changes: dict[str, str], *, issuer: bool) -> AsyncIterator[str]:
    """Start Choria's broker and yield its URL."""
    port = free_port()
    provider = "choria" if issuer else "file"
    security = f"plugin.security.{provider}"
    settings = {
        "identity": "broker.example.net",
        "plugin.choria.broker_network": "true",
        f"{NETWORK}.listen_address": "127.0.0.1",
        f"{NETWORK}.client_port": port,
        f"{NETWORK}.peer_port": 0,
        f"{NETWORK}.provisioning.client_password": PASSWORD,
        "plugin.security.provider": provider,
        f"{security}.ca": directory / "ca.pem",
        f"{security}.certificate": directory / "server.pem",
        f"{security}.key": directory / "server.key",
    }
    if issuer:
        settings |= {
            "plugin.security.issuer.names": "choria",
            "plugin.security.issuer.choria.public": ORG.hex,
            f"{security}.seed_file": directory / "broker.seed",
            f"{security}.token_file": directory / "broker.jwt",
        }
    file = directory / "broker.conf"
    file.write_text("".join(f"{name} = {value}\n" for name, value in (settings | changes).items()))
    async with running(choria, directory / "broker.log", "broker", "run", "--config", str(file)):
        await until_listening(port)
        yield f"tls://{HOST}:{port}"


async def until_listening(port: int) -> None:
    async with asyncio.timeout(STARTUP_SECONDS):
        while True:
            try:
                _, writer = await asyncio.open_connection("127.0.0.1", port)
            except OSError:
                await asyncio.sleep(0.05)
            else:
                writer.close()
                return
