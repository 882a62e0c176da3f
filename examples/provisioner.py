"""A provisioner: hears which nodes wait, asks each of them who it is, and prints the answer.

    python provisioner.py tls://nats.example.net:4222 ca.pem provisioner.pem provisioner.key password.txt

Needs nothing but nats-py. It is let in by its certificate and the password together, and connects to
the fleet, never to an edge. Nodes may answer on `provisioning.reply.>` only, hence the inbox.
"""

import asyncio
import json
import re
import ssl
import sys
from pathlib import Path

import nats
from nats.aio.client import Client
from nats.errors import NoRespondersError, TimeoutError

# The event is written by whoever holds a token: what it says must not become another subject.
IDENTITY = re.compile(r"[A-Za-z0-9_-]+(\.[A-Za-z0-9_-]+)*")


async def ask(connection: Client, identity: str) -> None:
    """One question; a node that does not answer is asked again when it announces itself again."""
    try:
        answer = await connection.request(f"provisioning.node.{identity}", b"who are you?", timeout=5)
        print("answer:", answer.data.decode(), flush=True)
    except (NoRespondersError, TimeoutError):
        print("silent:", identity, flush=True)


async def main(url: str, ca: str, certificate: str, key: str, password_file: str) -> None:
    """Serve every node that announces itself."""
    tls = ssl.create_default_context(cafile=ca)
    tls.load_cert_chain(certificate, key)
    login = {"user": "provisioner", "password": Path(password_file).read_text().strip()}
    inbox = "provisioning.reply.provisioner"
    connection = await nats.connect(url, name="provisioner", tls=tls, inbox_prefix=inbox, **login)
    events = await connection.subscribe("choria.lifecycle.event.startup.provision_mode_server")
    async for event in events.messages:
        try:
            identity = str(json.loads(event.data)["identity"])
        except (ValueError, KeyError, TypeError):
            identity = ""
        if len(identity) <= 253 and IDENTITY.fullmatch(identity):
            await ask(connection, identity)
        else:
            print("ignored:", ascii(event.data[:80]), flush=True)


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:6]))
