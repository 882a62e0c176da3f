"""A rendered cluster works with certificates that contain names but no addresses, like those of most CAs."""

from __future__ import annotations

import asyncio
import dataclasses
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from broker_auth.deploy.render import render
from broker_auth.sandbox.natsserver import NatsServer, free_port
from tests.deploy.shapes import build, with_server

pytestmark = pytest.mark.e2e


async def test_cluster_members_connect_by_name_and_never_by_address(tmp_path: Path) -> None:
    """An advertised address is dialled at once, but the certificate may not contain addresses."""
    shape = build(tmp_path, "websocket")
    certificate, key = shape.authority.server(hosts=["localhost"]).write(tmp_path, "member")
    tls = dataclasses.replace(shape.broker("fleet").server.tls, certificate=certificate, key=key)
    ports = [free_port() for _ in range(3)]
    urls = tuple(f"tls://localhost:{port}" for port in ports)
    async with AsyncExitStack() as stack:
        servers = []
        for number, port in enumerate(ports):
            member = with_server(
                shape,
                "fleet",
                name=f"member-{number}",
                listen=f"127.0.0.1:{free_port()}",
                websocket_listen=None,
                tls=tls,
                store_dir=None,
                cluster_name="fleet",
                cluster_listen=f"0.0.0.0:{port}",
                # The last member has no route to the second, so that only the first advertises it to the second.
                cluster_routes=urls if number < 2 else (urls[0], urls[2]),
            )
            config = tmp_path / f"member-{number}.conf"
            config.write_text(render(member.settings, member.broker("fleet")))
            servers.append(await stack.enter_async_context(NatsServer(config, debug=True)))
        pattern = rf"127\.0\.0\.1:{ports[2]} - rid:\d+ - Route connection created"
        await asyncio.to_thread(servers[1].wait_for_log, pattern, 15)
        for server in servers:
            assert not [line for line in server.log() if "Trying to connect to route on 127.0.0.1" in line]
            server.kill()
