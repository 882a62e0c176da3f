"""Facts 1 to 3: what TLS tells a server, and the server its callout."""

from __future__ import annotations

import asyncio
import ssl

import pytest

from broker_auth.deploy.pki import CertificateAuthority
from broker_auth.errors import OperationError
from broker_auth.sandbox.natsserver import free_port
from tests.deadlines import HANG_SECONDS
from tests.nats_server.site import TLS, Site

pytestmark = pytest.mark.e2e
_MQTT_CONNECT = b"\x10\x10\x00\x04MQTT\x04\x02\x00\x3c\x00\x04node"


async def test_fact_01_a_listener_demands_a_certificate_of_all_or_of_none(site: Site) -> None:
    pair = f'cert_file: "{site.certificate}", key_file: "{site.key}"'
    with pytest.raises(OperationError, match="verify_if_given"):
        site.check(site.config(extra=f"tls {{ {pair}, verify_if_given: true }}"))
    strict, lax = await site.serve(name="strict", tls="verify"), await site.serve(name="lax", tls="open")
    asked = await site.oracle(strict, tls=site.member())
    await site.oracle(lax, tls=site.tls())
    assert await (await site.wire(strict, site.member())).login() == "PONG"
    assert await (await site.wire(strict, site.tls())).login() == ""
    assert len(asked.requests) == 1
    # One that was asked for a certificate would be refused for this one.
    foreign = site.tls(CertificateAuthority.create().client("member.example.net"), "foreign")
    assert await (await site.wire(lax, foreign)).login() == "PONG"


async def test_fact_02_plain_connections_have_no_client_tls(site: Site) -> None:
    server = await site.serve()
    oracle = await site.oracle(server)
    assert await (await site.wire(server)).login() == "PONG"
    assert "client_tls" not in oracle.requests[0]


@pytest.mark.parametrize("tls", ["open", "verify"])
async def test_fact_02_only_a_verifying_listener_tells_of_chains(site: Site, tls: TLS) -> None:
    """On every type of connection, and though the client offers a certificate each time."""
    websocket, mqtt = free_port(), free_port()
    block = site.tls_block(tls)
    server = await site.serve(
        tls=tls,
        extra=f"""
            websocket {{ listen: "127.0.0.1:{websocket}", {block} }}
            mqtt {{ listen: "127.0.0.1:{mqtt}", {block} }}
            jetstream {{ store_dir: "{site.directory}/js" }}
        """,
    )
    oracle = await site.oracle(server, tls=site.member())
    assert await (await site.wire(server, site.member())).login() == "PONG"
    await site.connect(f"wss://127.0.0.1:{websocket}", tls=site.member())
    await _mqtt_connect(mqtt, site.member())
    requests = await oracle.heard(3)
    assert [request["client_info"]["type"] for request in requests] == ["nats", "websocket", "mqtt"]
    for request in requests:
        said = request["client_tls"]
        if tls == "open":
            assert set(said) == {"version", "cipher"}
        else:
            leaf, root = said["verified_chains"][0]
            assert leaf.startswith("-----BEGIN CERTIFICATE-----")
            assert root.encode() == site.authority.certificate_pem


async def test_fact_03_without_a_ca_file_the_systems_roots_are_trusted(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    public = CertificateAuthority.create("a public CA")
    roots = site.directory / "roots.pem"
    roots.write_bytes(public.certificate_pem)
    monkeypatch.setenv("SSL_CERT_FILE", str(roots))
    stranger = site.tls(public.client("member.example.net"), "stranger")
    pair = f'cert_file: "{site.certificate}", key_file: "{site.key}"'
    server = await site.serve(extra=f"tls {{ {pair}, verify: true }}")
    oracle = await site.oracle(server, tls=stranger)
    assert await (await site.wire(server, stranger)).login() == "PONG"
    assert oracle.requests[0]["client_tls"]["verified_chains"]
    strict = await site.serve(name="strict", tls="verify")
    assert await (await site.wire(strict, stranger)).login() == ""


async def _mqtt_connect(port: int, tls: ssl.SSLContext) -> None:
    """An MQTT 3.1.1 CONNECT, until the server answers it or closes: an account without streams has no MQTT."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=tls)
    try:
        writer.write(_MQTT_CONNECT)
        async with asyncio.timeout(HANG_SECONDS):
            await reader.read(1)
    finally:
        writer.close()
