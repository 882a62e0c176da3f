"""A provisioner: hears which nodes wait, and asks each of them who it is.

    python provisioner.py tls://nats.example.net:4222 ca.pem provisioner.pem provisioner.key client_password

Needs nothing but nats-py. It is let in by its certificate and the password together. Answers come
back on `provisioning.reply.>`, the only subjects nodes may answer on.
"""

import asyncio
import ssl
import sys
from pathlib import Path

import nats


async def main(url: str, ca: str, certificate: str, key: str, password_file: str) -> None:
    tls = ssl.create_default_context(cafile=ca)
    tls.load_cert_chain(certificate, key)
    connection = await nats.connect(
        url,
        name="provisioner",
        user="provisioner",
        password=Path(password_file).read_text().strip(),
        tls=tls,
        inbox_prefix="provisioning.reply.provisioner",
        max_reconnect_attempts=-1,
    )
    events = await connection.subscribe("choria.lifecycle.event.startup.provision_mode_server")
    async for event in events.messages:
        print("waiting:", event.data.decode())
    await connection.close()


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:6]))
