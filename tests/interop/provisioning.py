"""A fleet that provisions its nodes with Choria's own server, provisioner and client, through a deployment."""

from __future__ import annotations

import asyncio
import json
import re
import socket
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from cryptography.x509 import load_pem_x509_certificate

from broker_auth.deploy.pki import CertificateAuthority, Pair, private_key
from broker_auth.deploy.plan import Topology
from broker_auth.sandbox.identities import Identity
from broker_auth.sandbox.sandbox import Sandbox
from broker_auth.secret import Secret
from broker_auth.tokens.bounds import make_bounds
from broker_auth.tokens.issue import load_signing_key, provisioning_claims
from tests.builders.clock import HOUR
from tests.interop.choria_program import Choria, ChoriaRefused, found_by_ping, running, server

ACCESS_TOKEN: Final = "s3cret"  # the token that nodes require from a provisioner
CALLER: Final = "alice.mcollective"  # Choria's servers accept requests from certificates with this name
HELPER: Final = Path(__file__).parent / "helper.py"
DEADLINE: Final = 180.0  # seconds: bounds a hang; a provisioner looks for nodes every minute if it missed their events
_LEADS: Final = "Became leader after winning election"
_RECONNECTED: Final = "client reconnected after a previous disconnection"


@dataclass(frozen=True, slots=True)
class Shape:
    """A deployment's mode and topology."""

    issuer: bool
    topology: Topology

    @property
    def mode(self) -> str:
        """The mode's name in the documentation."""
        return "issuer" if self.issuer else "x509"

    @property
    def certificates(self) -> bool:
        """Whether members of the fleet need a certificate."""
        return self.topology is not Topology.SINGLE

    def __str__(self) -> str:
        return f"{self.mode}, {self.topology.value}"


@dataclass(frozen=True, slots=True)
class Provisioner:
    """A running Choria Provisioner.

    Attributes:
        process: is stopped at the end of the block that started it, if not earlier.
        log: its log file, at level ``debug``.
    """

    process: asyncio.subprocess.Process
    log: Path

    @property
    def leads(self) -> bool:
        """Whether the log states that it is the leader."""
        return _LEADS in self.log.read_text(errors="replace")

    @property
    def reconnected(self) -> bool:
        """Whether the log states that it receives events again; requests use other connections."""
        lines = self.log.read_text(errors="replace").splitlines()
        return any(_RECONNECTED in line and '"component":"hosts"' in line for line in lines)


class Fleet:
    """A deployment with provisioners, one node and a client.

    Choria's server uses the machine's name until it is provisioned, so only one node can run at a time.
    """

    def __init__(self, sandbox: Sandbox, shape: Shape, client: Choria, node: Choria, provisioner: Path) -> None:
        """Write the configurations of client and provisioner; nothing is started yet."""
        self.sandbox = sandbox
        self.shape = shape
        self._client = client
        self._provisioner = provisioner
        self._directory = client.directory
        self.node = node
        self.node_log = self._directory / "node.log"
        self._client_file = self._write_client()
        self._write_helper_settings()

    # --- The node

    def new_node(self) -> None:
        """Reset the node to the state before provisioning, with only a provisioning token."""
        directory = self.node.directory
        for path in sorted(directory.rglob("*"), reverse=True):
            path.rmdir() if path.is_dir() else path.unlink()
        sandbox = self.sandbox
        # A node that waits has the machine's name, as the machine's resolver completes it.
        names = [rf"/{re.escape(socket.gethostname())}(\..+)?/", "localhost", socket.getfqdn()]
        claims = provisioning_claims(
            now=time.time(),
            validity=HOUR,
            token=Secret(ACCESS_TOKEN),
            urls=[choria_url(sandbox.node_url)],
            default=True,
            protocol_v2=self.shape.issuer,
            bounds=make_bounds(names, ["127.0.0.0/8"]),
        )
        name = "issuer.seed" if self.shape.issuer else "signer.key"
        signer = load_signing_key((sandbox.directory / "pki" / name).read_bytes(), name)
        (directory / "provisioning.jwt").write_text(signer.sign(claims))

    @asynccontextmanager
    async def running_node(self) -> AsyncIterator[asyncio.subprocess.Process]:
        """Run the node: it waits, is provisioned, and joins the fleet, all as one process."""
        async with server(self.node, self.node_log) as process:
            yield process

    @property
    def node_configuration(self) -> str:
        """The configuration that the node received from the provisioner; empty before."""
        file = self.node.directory / "server.conf"
        return file.read_text() if file.exists() else ""

    def admissions(self) -> list[str]:
        """Return the rules by which the node was admitted so far, the oldest first, without repetitions."""
        admitted = [
            record.rule
            for record in self.sandbox.audit_records()
            if record.decision == "admit" and record.rule in ("provisioning", "server", "verified_tls")
            if not (record.name or "").startswith(("provisioner", "alice", "member", "up="))
        ]
        return [rule for number, rule in enumerate(admitted) if number == 0 or admitted[number - 1] != rule]

    # --- The client

    async def joined(self) -> str:
        """Wait until the client finds the node in the fleet, have it answer a request, and return its identity."""
        async with asyncio.timeout(DEADLINE):
            while not (identities := found_by_ping(await self.ask("ping"))):
                await asyncio.sleep(0.1)
        (identity,) = identities
        answer = await self.request("rpcutil", "ping", "-I", identity)
        assert [(reply["sender"], reply["statuscode"]) for reply in answer["replies"]] == [(identity, 0)]
        return identity

    async def request(self, *words: str) -> dict[str, Any]:
        """Send a request, and return all answers."""
        output = await self.ask("req", *words, "--json")
        start = output.find("{\n")
        assert start >= 0, output
        answer: dict[str, Any] = json.loads(output[start:])
        return answer

    async def ask(self, *words: str) -> str:
        """Run one of the client's commands, and return its output."""
        try:
            return await asyncio.to_thread(self._client.run, *words, "--config", str(self._client_file))
        except ChoriaRefused as refused:
            return str(refused)

    # --- The provisioners

    @asynccontextmanager
    async def provisioner(self, name: str = "one") -> AsyncIterator[Provisioner]:
        """Run a provisioner, one of several that elect their leader."""
        configuration, choria = self._write_provisioner(name)
        log = self._directory / f"provisioner-{name}.log"
        log.touch()
        program = Choria(self._provisioner, self._directory)
        arguments = ("run", "--config", str(configuration), "--choria-config", str(choria))
        async with running(program, log, *arguments) as process:
            yield Provisioner(process, log)

    def _write_provisioner(self, name: str) -> tuple[Path, Path]:
        sandbox, directory = self.sandbox, self._directory / f"provisioner-{name}"
        directory.mkdir(exist_ok=True)
        pki = sandbox.directory / "pki"
        features = {"jwt": True, "pki": not self.shape.issuer, "ed25519": self.shape.issuer}
        options: dict[str, Any] = {
            "interval": "1m",
            "logfile": "/dev/stdout",
            "loglevel": "debug",
            "helper": f"{sys.executable} {HELPER} {self._directory / 'helper.json'}",
            "token": ACCESS_TOKEN,
            "site": "interop",
            "broker_provisioning_password": sandbox.settings.provisioning.client_passwords[0].reveal(),
            "jwt_verify_cert": sandbox.settings.issuers[0].hex if self.shape.issuer else str(pki / "signer.pem"),
            "leader_election": True,
            "features": features,
        }
        settings: dict[str, object] = {
            "identity": f"provisioner-{name}.example.net",
            "plugin.choria.middleware_hosts": choria_url(sandbox.fleet_url),
        }
        if self.shape.issuer:
            identity = sandbox.issuer.chain_issuer(f"provisioner={name}", "provisioner")
            settings |= write_token(identity, directory) | self._organization()
            options["jwt_signing_key"] = str(directory / "key.seed")
            options["jwt_signing_token"] = str(directory / "token.jwt")
        if self.shape.certificates:
            settings |= self._certificate(pki / "provisioner.pem", pki / "provisioner.key")
        file = directory / "provisioner.yaml"
        file.write_text(json.dumps(options))  # JSON is YAML
        file.chmod(0o600)
        return file, write_configuration(directory / "choria.conf", settings)

    # --- Files

    def _write_helper_settings(self) -> None:
        sandbox = self.sandbox
        settings = {
            "pki": str(sandbox.directory / "pki"),
            "middleware": choria_url(sandbox.fleet_url),
            "issuer": sandbox.settings.issuers[0].hex if self.shape.issuer else "",
            "certificates": self.shape.certificates,
        }
        (self._directory / "helper.json").write_text(json.dumps(settings))

    def _write_client(self) -> Path:
        directory = self._directory / "client"
        directory.mkdir()
        settings: dict[str, object] = {
            "identity": CALLER,
            "collectives": "mcollective",
            "main_collective": "mcollective",
            "plugin.choria.middleware_hosts": choria_url(self.sandbox.fleet_url),
        }
        if self.shape.issuer:
            settings |= write_token(self.sandbox.issuer.client("up=alice", "fleet_management"), directory)
            settings |= self._organization()
        if self.shape.certificates:
            pair = _authority(self.sandbox).client(CALLER, key=private_key("rsa"))
            settings |= self._certificate(*pair.write(directory, "client"))
        return write_configuration(directory / "client.conf", settings)

    def _organization(self) -> dict[str, object]:
        return {
            "plugin.security.provider": "choria",
            "plugin.security.choria.ca": self.sandbox.ca,
            "plugin.security.issuer.names": "choria",
            "plugin.security.issuer.choria.public": self.sandbox.settings.issuers[0].hex,
        }

    def _certificate(self, certificate: Path, key: Path) -> dict[str, object]:
        provider = "choria" if self.shape.issuer else "file"
        prefix = f"plugin.security.{provider}."
        files: dict[str, object] = {
            "plugin.security.provider": provider,
            prefix + "ca": self.sandbox.ca,
            prefix + "certificate": certificate,
            prefix + "key": key,
        }
        return files if self.shape.issuer else files | {prefix + "cache": certificate.parent / "cache"}


async def until(condition: Callable[[], bool], seconds: float = DEADLINE) -> float:
    """Wait until the condition holds, and return how long that took, in seconds."""
    started = time.monotonic()
    async with asyncio.timeout(seconds):
        while not condition():
            await asyncio.sleep(0.05)
    return time.monotonic() - started


def version(program: Path, *options: str) -> str:
    """Return the output of a program's ``--version``."""
    done = subprocess.run([program, *options, "--version"], check=True, capture_output=True, text=True, timeout=60)
    return (done.stdout + done.stderr).strip()


def choria_url(url: str) -> str:
    """Return the URL as Choria writes it; Choria always uses TLS."""
    return url.replace("tls://", "nats://")


def write_configuration(file: Path, settings: dict[str, object]) -> Path:
    """Write a file in Choria's format."""
    file.write_text("".join(f"{name} = {value}\n" for name, value in settings.items()))
    file.chmod(0o600)
    return file


def write_token(identity: Identity, directory: Path) -> dict[str, object]:
    """Write a token and its seed, and return the settings that name them."""
    token, seed = directory / "token.jwt", directory / "key.seed"
    token.write_text(identity.token)
    seed.write_text(identity.seed.hex())
    return {"plugin.security.choria.token_file": token, "plugin.security.choria.seed_file": seed}


def _authority(sandbox: Sandbox) -> CertificateAuthority:
    pki = sandbox.directory / "pki"
    key = load_pem_private_key((pki / "ca.key").read_bytes(), password=None)
    assert isinstance(key, EllipticCurvePrivateKey)
    return CertificateAuthority(Pair(load_pem_x509_certificate((pki / "ca.pem").read_bytes()), key))
