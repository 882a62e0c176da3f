"""An unprovisioned node: connects with its provisioning token and waits to be given an identity.

    python node.py tls://edge.example.net:4223 provisioning.jwt ca.pem node1.example.net

Needs nothing but nats-py. TLS shows no client certificate; the token says who may wait here, and
the connection's name is the node's identity, whose subject nobody else may listen to.
"""

import asyncio
import json
import ssl
import sys
from pathlib import Path

import nats


async def main(url: str, token_file: str, ca: str, identity: str) -> None:
    connection = await nats.connect(
        url,
        name=identity,
        token=Path(token_file).read_text().strip(),
        tls=ssl.create_default_context(cafile=ca),
        max_reconnect_attempts=-1,
    )

    async def on_request(message: nats.aio.client.Msg) -> None:
        print("asked:", message.data.decode())
        await message.respond(json.dumps({"identity": identity, "ready": True}).encode())

    await connection.subscribe(f"provisioning.node.{identity}", cb=on_request)
    await connection.publish("choria.lifecycle.event.startup.provision_mode_server", b"{}")
    await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:5]))
