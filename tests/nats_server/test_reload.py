"""Fact 14: what a running server applies on SIGHUP, and the effect on connections."""

from __future__ import annotations

import asyncio

import pytest

from broker_auth.errors import OperationError
from broker_auth.natsio.nkey import NkeyKind, generate_seed, public_nkey
from tests.nats_server.responder import Request
from tests.nats_server.site import Site
from tests.nats_server.wire import Wire

pytestmark = pytest.mark.e2e


async def test_fact_14_reload_repeats_callouts_and_drops_named_users(sandbox: Site) -> None:
    server = await sandbox.serve()

    def admit_by_name(request: Request) -> bytes:
        name = request["connect_opts"]["name"]
        return sandbox.signer.admit(request, name="given") if name == "named" else sandbox.signer.admit(request)

    responder = await sandbox.responder(server, admit_by_name)
    named, unnamed = await sandbox.wire(server), await sandbox.wire(server)
    assert await named.login(name="named") == "PONG"
    assert await unnamed.login(name="unnamed") == "PONG"
    await asyncio.to_thread(server.reload)
    for wire, expected in ((named, ""), (unnamed, "PONG")):
        await wire.send("PING\r\n")
        assert await wire.verdict() == expected
    asked = [request["connect_opts"]["name"] for request in responder.requests]
    assert asked == ["named", "unnamed", "unnamed"]


@pytest.mark.parametrize("changed", ["issuer", "xkey"])
async def test_fact_14_other_settings_need_a_restart(sandbox: Site, changed: str) -> None:
    server = await sandbox.serve()
    if changed == "issuer":
        sandbox.issuer = generate_seed(NkeyKind.ACCOUNT)
        sandbox.config()
    else:
        sandbox.config(callout=f"xkey: {public_nkey(generate_seed(NkeyKind.CURVE))}")
    with pytest.raises(OperationError, match="not supported for AuthCallout"):
        await asyncio.to_thread(server.reload)


async def test_fact_14_certificates_rotate_without_a_restart(sandbox: Site) -> None:
    server = await sandbox.serve(tls="open")
    old = await _presented(sandbox, server.port())
    sandbox.authority.server().write(sandbox.directory, "server")
    await asyncio.to_thread(server.reload)
    assert await _presented(sandbox, server.port()) != old


async def _presented(sandbox: Site, port: int) -> bytes:
    """Return the certificate that a new connection receives."""
    wire = await Wire.open(port, sandbox.tls())
    try:
        return wire.certificate
    finally:
        await wire.close()
