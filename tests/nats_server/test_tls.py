"""Facts 1 to 3: client certificates, and the TLS details in a callout request."""

from __future__ import annotations

import asyncio
import ssl

import pytest

from broker_auth.deploy.natsbinary import OPTIONAL_CERTIFICATES
from broker_auth.deploy.pki import CertificateAuthority
from broker_auth.errors import OperationError
from broker_auth.sandbox.natsserver import free_port
from tests.deadlines import HANG_SECONDS
from tests.nats_server.site import TLS, Site

pytestmark = pytest.mark.e2e
_MQTT_CONNECT = b"\x10\x10\x00\x04MQTT\x04\x02\x00\x3c\x00\x04node"


async def test_fact_01_listener_requires_certificates_from_all_clients_or_none(sandbox: Site) -> None:
    pair = f'cert_file: "{sandbox.certificate}", key_file: "{sandbox.key}"'
    with pytest.raises(OperationError, match="verify_if_given"):
        sandbox.check(sandbox.config(extra=f"tls {{ {pair}, verify_if_given: true }}"))
    strict, lax = await sandbox.serve(name="strict", tls="verify"), await sandbox.serve(name="lax", tls="open")
    responder = await sandbox.responder(strict, tls=sandbox.member())
    await sandbox.responder(lax, tls=sandbox.tls())
    assert await (await sandbox.wire(strict, sandbox.member())).login() == "PONG"
    assert await (await sandbox.wire(strict, sandbox.tls())).login() == ""
    assert len(responder.requests) == 1
    # The server would refuse this certificate if it requested one.
    foreign = sandbox.tls(CertificateAuthority.create().client("member.example.net"), "foreign")
    assert await (await sandbox.wire(lax, foreign)).login() == "PONG"


@pytest.mark.mixed_server
async def test_fact_01_unreleased_option_verifies_a_certificate_if_it_is_given(sandbox: Site) -> None:
    block = (
        f'cert_file: "{sandbox.certificate}", key_file: "{sandbox.key}", ca_file: "{sandbox.directory}/ca.pem", '
        f"{OPTIONAL_CERTIFICATES}: true"
    )
    with pytest.raises(OperationError, match="cannot be used together"):
        sandbox.check(sandbox.config(extra=f"tls {{ {block}, verify: true }}"))
    server = await sandbox.serve(extra=f"tls {{ {block} }}")
    responder = await sandbox.responder(server, tls=sandbox.tls())
    assert await (await sandbox.wire(server, sandbox.member())).login() == "PONG"
    assert await (await sandbox.wire(server, sandbox.tls())).login() == "PONG"
    foreign = sandbox.tls(CertificateAuthority.create().client("member.example.net"), "foreign")
    assert await (await sandbox.wire(server, foreign)).login() == ""  # refused by TLS: the service is not asked
    with_certificate, without = await responder.received(2)
    leaf, _ = with_certificate["client_tls"]["verified_chains"][0]
    assert leaf.startswith("-----BEGIN CERTIFICATE-----")
    assert set(without["client_tls"]) == {"version", "cipher"}


async def test_fact_02_plain_connections_have_no_client_tls(sandbox: Site) -> None:
    server = await sandbox.serve()
    responder = await sandbox.responder(server)
    assert await (await sandbox.wire(server)).login() == "PONG"
    assert "client_tls" not in responder.requests[0]


@pytest.mark.parametrize("tls", ["open", "verify"])
async def test_fact_02_only_a_verifying_listener_forwards_chains(sandbox: Site, tls: TLS) -> None:
    """Applies to every type of connection, although the client has a certificate each time."""
    websocket, mqtt = free_port(), free_port()
    block = sandbox.tls_block(tls)
    server = await sandbox.serve(
        tls=tls,
        extra=f"""
            websocket {{ listen: "127.0.0.1:{websocket}", {block} }}
            mqtt {{ listen: "127.0.0.1:{mqtt}", {block} }}
            jetstream {{ store_dir: "{sandbox.directory}/js" }}
        """,
    )
    responder = await sandbox.responder(server, tls=sandbox.member())
    assert await (await sandbox.wire(server, sandbox.member())).login() == "PONG"
    await sandbox.connect(f"wss://127.0.0.1:{websocket}", tls=sandbox.member())
    await _mqtt_connect(mqtt, sandbox.member())
    requests = await responder.received(3)
    assert [request["client_info"]["type"] for request in requests] == ["nats", "websocket", "mqtt"]
    for request in requests:
        details = request["client_tls"]
        if tls == "open":
            assert set(details) == {"version", "cipher"}
        else:
            leaf, root = details["verified_chains"][0]
            assert leaf.startswith("-----BEGIN CERTIFICATE-----")
            assert root.encode() == sandbox.authority.certificate_pem


async def test_fact_03_system_roots_are_trusted_without_a_ca_file(
    sandbox: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    public = CertificateAuthority.create("a public CA")
    roots = sandbox.directory / "roots.pem"
    roots.write_bytes(public.certificate_pem)
    monkeypatch.setenv("SSL_CERT_FILE", str(roots))
    stranger = sandbox.tls(public.client("member.example.net"), "stranger")
    pair = f'cert_file: "{sandbox.certificate}", key_file: "{sandbox.key}"'
    server = await sandbox.serve(extra=f"tls {{ {pair}, verify: true }}")
    responder = await sandbox.responder(server, tls=stranger)
    assert await (await sandbox.wire(server, stranger)).login() == "PONG"
    assert responder.requests[0]["client_tls"]["verified_chains"]
    strict = await sandbox.serve(name="strict", tls="verify")
    assert await (await sandbox.wire(strict, stranger)).login() == ""


async def _mqtt_connect(port: int, tls: ssl.SSLContext) -> None:
    """Send an MQTT 3.1.1 CONNECT; wait until the server answers or closes (an account without streams has no MQTT)."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=tls)
    try:
        writer.write(_MQTT_CONNECT)
        async with asyncio.timeout(HANG_SECONDS):
            await reader.read(1)
    finally:
        writer.close()
