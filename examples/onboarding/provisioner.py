"""A provisioner: gives each node in its inventory an identity, its own and no other, and nobody else anything.

    python provisioner.py tls://nats.example.net:4222 /etc/provisioner

It connects to the fleet, never to an edge. The files in the directory decide what it gives:

    ca.pem, client_password            the CA of the brokers; the password of the user `provisioner`
    inventory                          lines of a node's identity and its device's secret (64 hex characters)
    provisioner.pem, provisioner.key   its certificate
    nodes-ca.pem, nodes-ca.key         a CA: nodes are given certificates by it
    provisioner.jwt, provisioner.seed  its token, a chain issuer's: nodes are given tokens under it
    issued/                            the key of each node that was given something; made here
"""

from __future__ import annotations

import argparse
import asyncio
import json
import secrets
from dataclasses import replace
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from identities import PublicKey, RefusalError, check_certificate, read_csr, read_seed, read_signers
from inventory import Inventory, is_name
from nats.aio.client import Client as NatsClient
from sealed import seal, unseal
from session import Client, Login, run, say, session

from broker_auth.natsio.tls import TLSFiles

ANNOUNCEMENTS = "choria.lifecycle.event.startup.provision_mode_server"
ANSWER_SECONDS = 5.0
DAY = 24 * 3600.0  # seconds
MOST_STRANGERS = 100  # that a line is printed about


class Provisioner:
    """A provisioner for one session, by what is in its directory when that begins."""

    def __init__(self, url: str, directory: Path, days: float) -> None:
        """Read the directory."""
        self.url, self.directory, self.seconds = url, directory, days * DAY
        self.inventory = Inventory(directory / "inventory")
        self.signers = read_signers(directory)
        self.issued = directory / "issued"
        self.issued.mkdir(exist_ok=True)
        self.busy: dict[str, asyncio.Task[None]] = {}
        self.refusals: dict[str, str] = {}
        self.strangers: set[str] = set()

    async def live(self) -> None:
        """Log in, and give nodes identities until the session ends."""
        tls, key = TLSFiles(ca=self.directory / "ca.pem"), None
        options = {"user": "provisioner", "pass": (self.directory / "client_password").read_text().strip()}
        certificate, token = self.directory / "provisioner.pem", self.directory / "provisioner.jwt"
        if certificate.exists():
            check_certificate(certificate, self.inventory.secrets)
            tls = replace(tls, certificate=certificate, key=certificate.with_suffix(".key"))
        if token.exists():
            options["auth_token"], key = token.read_text().strip(), read_seed(token.with_suffix(".seed"))
        # Nodes may answer on `provisioning.reply.>` only.
        login = Login(name="provisioner", tls=tls, options=options, key=key, inbox="provisioning.reply.provisioner")
        await session([self.url], login, self._serve)

    async def _serve(self, client: Client) -> None:
        events = await client.subscribe(ANNOUNCEMENTS)
        await client.flush()
        say(f"provisioner: {len(self.inventory.secrets)} in the inventory")
        try:
            async for event in events.messages:
                identity = announced(event.data)
                self.inventory.refresh()
                if identity not in self.inventory.secrets:
                    self._stranger(identity)
                elif identity not in self.busy:
                    self.busy[identity] = asyncio.create_task(self._provision(client, identity))
        finally:
            for task in self.busy.values():
                task.cancel()

    async def _provision(self, client: NatsClient, identity: str) -> None:
        """Give one node its identity. A failure costs other nodes nothing, and the node announces itself again."""
        try:
            answer = await self._ask(client, identity, {"ask": "csr"})
            key = read_csr(identity, answer["csr"])
            self._remember(identity, key)
            identities: dict[str, Any] = {"certificate": "", "token": ""}
            ends = []
            for signer in self.signers:
                part, end = signer.sign(identity, key, self.seconds)
                identities |= part
                ends.append(end)
            await self._ask(client, identity, {"ask": "join", "urls": [self.url], "ends": min(ends), **identities})
        except Exception as error:  # whatever is in a request or an answer
            self._refused(identity, str(error) or type(error).__name__)
        else:
            self.refusals.pop(identity, None)
            say(f"provisioned: {identity}")
        finally:
            del self.busy[identity]

    async def _ask(self, client: NatsClient, identity: str, request: dict[str, Any]) -> dict[str, Any]:
        """Ask a node, and return its answer; the nonce shows that it is to this request."""
        secret, nonce = self.inventory.secrets[identity], secrets.token_hex(16)
        data = seal(secret, f"provisioner {identity}", {**request, "nonce": nonce})
        reply = await client.request(f"provisioning.node.{identity}", data, timeout=ANSWER_SECONDS)
        answer = unseal(secret, f"node {identity}", reply.data)
        if answer["nonce"] != nonce:
            raise RefusalError("the answer is to another request")
        return answer

    def _remember(self, identity: str, key: PublicKey) -> None:
        """Write the node's key down. A name that has one is that of a member: only the same key gets it again."""
        path, pem = self.issued / f"{identity}.pub", key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
        try:
            with path.open("xb") as file:
                file.write(pem)
        except FileExistsError:
            if path.read_bytes() != pem:
                raise RefusalError(f"is a member with another key; remove {path} to let it in again") from None

    def _refused(self, identity: str, reason: str) -> None:
        """Print why a node is given nothing, once until the reason changes."""
        if self.refusals.get(identity) != reason:
            say(f"refused: {identity}: {reason}")
        self.refusals[identity] = reason

    def _stranger(self, identity: str) -> None:
        """Print once that a name is not expected; with a token anybody can make up any number of names."""
        if identity not in self.strangers and len(self.strangers) < MOST_STRANGERS:
            self.strangers.add(identity)
            say(f"refused: {identity or 'an announcement without a name'}: not in the inventory")


def announced(data: bytes) -> str:
    """Return who announces itself, empty if that is not a name."""
    try:
        identity = json.loads(data)["identity"]
    except (ValueError, KeyError, TypeError, RecursionError):
        return ""
    return identity if is_name(identity) else ""


def main() -> None:
    """Run the provisioner until it is stopped."""
    parser = argparse.ArgumentParser(description="Give the nodes in an inventory an identity each.")
    parser.add_argument("url", help="a broker of the fleet")
    parser.add_argument("directory", type=Path, help="its certificate, password, CA and inventory")
    parser.add_argument("--days", type=float, default=365, help="how long an identity is valid (default %(default)s)")
    arguments = parser.parse_args()

    async def live() -> None:
        await Provisioner(arguments.url, arguments.directory, arguments.days).live()

    run(live)


if __name__ == "__main__":
    main()
