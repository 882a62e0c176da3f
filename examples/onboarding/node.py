"""A device that becomes a member of the fleet: it waits with its token, receives an identity, and returns with it.

    python node.py node1.example.net /var/lib/node

The directory comes from the factory:

    provisioning.jwt        the provisioning token, the same for many devices, with the brokers' URLs
    ca.pem                  the CA of the brokers
    device.secret           64 hex characters, unique to this device
    node.key                created here
    node.pem, member.json   from the provisioner
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import math
import time
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, load_pem_private_key
from cryptography.x509.oid import NameOID
from nats.aio.msg import Msg
from sealed import ProofError, read_secret, seal, unseal
from session import Client, FatalError, Login, run, say, session

from broker_auth.errors import BrokerAuthError
from broker_auth.files.writing import write_private
from broker_auth.natsio.tls import TLSFiles
from broker_auth.tokens.faults import TokenRejected
from broker_auth.tokens.jws import parse

STARTUP = "choria.lifecycle.event.startup"
FIRST_PAUSE, LONGEST_PAUSE = 1.0, 60.0  # seconds between announcements, for a provisioner that starts later


class Node:
    """One device, with the files in its directory."""

    def __init__(self, identity: str, directory: Path) -> None:
        """Read the device's secret and its key; create the key if it does not exist."""
        self.identity, self.directory = identity, directory
        try:
            self.secret = read_secret((directory / "device.secret").read_text())
            if not (directory / "node.key").exists():
                key = Ed25519PrivateKey.generate()
                pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
                write_private(directory / "node.key", pem)
            loaded = load_pem_private_key((directory / "node.key").read_bytes(), None)
        except ValueError as error:
            raise FatalError(f"{directory}: device.secret or node.key cannot be used: {error}") from error
        assert isinstance(loaded, Ed25519PrivateKey)
        self.key = loaded

    async def live(self) -> None:
        """Serve one session: as a member while there is an identity that has not expired, else as a waiting node."""
        member, ca = self._membership(), self.directory / "ca.pem"
        if member["ends"] > time.time():
            pair = (self.directory / "node.pem", self.directory / "node.key") if member["certificate"] else (None, None)
            tls = TLSFiles(ca=ca, certificate=pair[0], key=pair[1])
            options = {"auth_token": member["token"]} if member["token"] else {}
            login = Login(name=self.identity, tls=tls, options=options, key=self.key)
            await session(member["urls"], login, self._be_member)
        else:
            token = (self.directory / "provisioning.jwt").read_text().strip()
            login = Login(name=self.identity, tls=TLSFiles(ca=ca), options={"auth_token": token})
            await session(self._provisioning_urls(token), login, self._wait)

    async def _wait(self, client: Client) -> None:
        """Publish announcements until the provisioner has given the node an identity."""
        joined = asyncio.Event()

        async def answer(message: Msg) -> None:
            try:
                request = unseal(self.secret, f"provisioner {self.identity}", message.data)
                reply = {"nonce": request["nonce"]}
                if request["ask"] == "csr":
                    reply["csr"] = self._csr()
                elif request["ask"] == "join":
                    self._keep(request)
                else:
                    raise ValueError(f"it asks for {request['ask']!r}")
                await message.respond(seal(self.secret, f"node {self.identity}", reply))
                if request["ask"] == "join":
                    joined.set()
            except (ProofError, BrokerAuthError, ValueError, KeyError, TypeError) as error:
                say(f"ignored a request: {error}")

        await client.subscribe(f"provisioning.node.{self.identity}", cb=answer)
        say(f"waiting: {self.identity}")
        pause = FIRST_PAUSE
        while not joined.is_set():
            await client.publish(f"{STARTUP}.provision_mode_server", self._event("provision_mode_server"))
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(joined.wait(), pause)
            pause = min(2 * pause, LONGEST_PAUSE)
        await client.flush()  # so that the provisioner receives the answer before the session ends

    async def _be_member(self, client: Client) -> None:
        """Answer members of the fleet until the session ends."""

        async def answer(message: Msg) -> None:
            await message.respond(json.dumps({"identity": self.identity, "member": True}).encode())

        await client.subscribe(f"mcollective.node.{self.identity}", cb=answer)
        await client.publish(f"{STARTUP}.server", self._event("server"))
        await client.flush()
        say(f"member: {self.identity} in account {client.account or 'unknown'}")
        await asyncio.Event().wait()

    def _csr(self) -> str:
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, self.identity)])
        csr = x509.CertificateSigningRequestBuilder().subject_name(name).sign(self.key, None)
        return csr.public_bytes(Encoding.PEM).decode()

    def _keep(self, identity: dict[str, Any]) -> None:
        """Write the files from the provisioner; `member.json` last, because it means that they are complete."""
        if identity["certificate"]:
            if x509.load_pem_x509_certificate(identity["certificate"].encode()).public_key() != self.key.public_key():
                raise ValueError("the certificate is for another key")
            write_private(self.directory / "node.pem", identity["certificate"].encode())
        write_private(self.directory / "member.json", json.dumps(identity).encode())

    def _membership(self) -> dict[str, Any]:
        """Return the content of `member.json`; without the file, an identity that has expired."""
        path = self.directory / "member.json"
        try:
            member: dict[str, Any] = json.loads(path.read_text())
        except FileNotFoundError:
            return {"ends": 0.0}
        except ValueError as error:
            raise FatalError(f"{path} cannot be read: {error}; remove it, and the node waits again") from error
        return member

    def _provisioning_urls(self, token: str) -> list[str]:
        """Return the brokers that the token names, without verifying the token, which is the service's task."""
        path = self.directory / "provisioning.jwt"
        try:
            claims = parse(token).claims
            urls, ends = str(claims["chu"]).split(","), float(claims.get("exp") or math.inf)
        except (TokenRejected, KeyError, ValueError, TypeError) as error:
            raise FatalError(f"{path} is not a provisioning token that names brokers: {error}") from error
        if ends <= time.time():
            raise FatalError(f"{path} has expired, and the node has no other identity; put a new token there")
        return urls

    def _event(self, component: str) -> bytes:
        event = {"protocol": "io.choria.lifecycle.v1.startup", "identity": self.identity, "component": component}
        return json.dumps(event).encode()


def main() -> None:
    """Run the node until it is stopped."""
    parser = argparse.ArgumentParser(description="Wait to be provisioned, then be a member of the fleet.")
    parser.add_argument("identity", help="the device's name")
    parser.add_argument("directory", type=Path, help="the directory from the factory")
    arguments = parser.parse_args()

    async def live() -> None:
        await Node(arguments.identity, arguments.directory).live()

    run(live)


if __name__ == "__main__":
    main()
