"""An unprovisioned node: gets in by its provisioning token and waits to be given an identity.

    python node.py tls://edge.example.net:4223 provisioning.jwt ca.pem node1.example.net

Needs nothing but nats-py (and aiohttp for a wss:// URL). TLS shows no client certificate; the token
says who may wait here. The connection's name is the node's identity: `provisioning.node.<identity>`
is the only subject of its own that it may listen to, and nobody else may listen to that one.
"""

import asyncio
import json
import ssl
import sys
from pathlib import Path

import nats
from nats.aio.msg import Msg

ANNOUNCE_SECONDS = 5.0  # a provisioner that starts later hears of us too


async def main(url: str, token_file: str, ca: str, identity: str) -> None:
    """Announce the node until it is asked, then answer."""
    asked = asyncio.Event()

    async def on_request(message: Msg) -> None:
        print("asked:", message.data.decode(), flush=True)
        await message.respond(json.dumps({"identity": identity, "ready": True}).encode())
        asked.set()

    token = Path(token_file).read_text().strip()
    tls = ssl.create_default_context(cafile=ca)
    connection = await nats.connect(url, name=identity, token=token, tls=tls, max_reconnect_attempts=-1)
    await connection.subscribe(f"provisioning.node.{identity}", cb=on_request)
    event = json.dumps({"protocol": "io.choria.lifecycle.v1.startup", "identity": identity}).encode()
    while not asked.is_set():
        await connection.publish("choria.lifecycle.event.startup.provision_mode_server", event)
        try:
            await asyncio.wait_for(asked.wait(), ANNOUNCE_SECONDS)
        except TimeoutError:
            continue
    await connection.drain()


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:5]))
