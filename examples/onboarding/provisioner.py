"""A provisioner: gives each node in its inventory an identity with the node's own name, and no other node.

    python provisioner.py tls://nats.example.net:4222 /etc/provisioner

It connects to the fleet, never to an edge. The files in the directory determine which identities it gives:

    ca.pem, client_password            the CA of the brokers; the password of the user `provisioner`
    inventory                          lines of a node's identity and its device's secret (64 hex characters)
    provisioner.pem, provisioner.key   its certificate
    nodes-ca.pem, nodes-ca.key         a CA, if nodes are to receive certificates
    provisioner.jwt, provisioner.seed  a chain issuer's token, if nodes are to receive tokens
    issued/                            the key of each node that received an identity; created here
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
MOST_STRANGERS = 100  # for which a line is printed


class Provisioner:
    """A provisioner for one session, with the files in its directory at the start of the session."""

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
        # Nodes can only answer on `provisioning.reply.>`.
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
        """Give one node its identity. A failure does not affect other nodes, and the node announces itself again."""
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
        except Exception as error:  # including any content of a request or an answer
            self._refused(identity, str(error) or type(error).__name__)
        else:
            self.refusals.pop(identity, None)
            say(f"provisioned: {identity}")
        finally:
            del self.busy[identity]

    async def _ask(self, client: NatsClient, identity: str, request: dict[str, Any]) -> dict[str, Any]:
        """Ask a node, and return its answer; the nonce proves that it belongs to this request."""
        secret, nonce = self.inventory.secrets[identity], secrets.token_hex(16)
        data = seal(secret, f"provisioner {identity}", {**request, "nonce": nonce})
        reply = await client.request(f"provisioning.node.{identity}", data, timeout=ANSWER_SECONDS)
        answer = unseal(secret, f"node {identity}", reply.data)
        if answer["nonce"] != nonce:
            raise RefusalError("the answer is to another request")
        return answer

    def _remember(self, identity: str, key: PublicKey) -> None:
        """Store the node's key. A name with a stored key belongs to a member: only the same key receives it again."""
        path, pem = self.issued / f"{identity}.pub", key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
        try:
            with path.open("xb") as file:
                file.write(pem)
        except FileExistsError:
            if path.read_bytes() != pem:
                raise RefusalError(f"is a member with another key; remove {path} to admit it again") from None

    def _refused(self, identity: str, reason: str) -> None:
        """Print why a node receives no identity, once until the reason changes."""
        if self.refusals.get(identity) != reason:
            say(f"refused: {identity}: {reason}")
        self.refusals[identity] = reason

    def _stranger(self, identity: str) -> None:
        """Print once that a name is not expected, for a limited number of names: a thief can invent many."""
        if identity not in self.strangers and len(self.strangers) < MOST_STRANGERS:
            self.strangers.add(identity)
            say(f"refused: {identity or 'an announcement without a name'}: not in the inventory")


def announced(data: bytes) -> str:
    """Return the name in an announcement; empty if it is not a valid name."""
    try:
        identity = json.loads(data)["identity"]
    except (ValueError, KeyError, TypeError, RecursionError):
        return ""
    return identity if is_name(identity) else ""


def main() -> None:
    """Run the provisioner until it is stopped."""
    parser = argparse.ArgumentParser(description="Give an identity to each node in an inventory.")
    parser.add_argument("url", help="a broker of the fleet")
    parser.add_argument("directory", type=Path, help="its certificate, password, CA and inventory")
    parser.add_argument("--days", type=float, default=365, help="validity of an identity in days (default %(default)s)")
    arguments = parser.parse_args()

    async def live() -> None:
        await Provisioner(arguments.url, arguments.directory, arguments.days).live()

    run(live)


if __name__ == "__main__":
    main()
