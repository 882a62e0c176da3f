"""Listeners that send nothing before TLS (``handshake_first``), for the service, commands and the doctor."""

from __future__ import annotations

import asyncio
import json
import ssl
from collections.abc import Iterator
from pathlib import Path

import pytest
from nats.aio.client import Client

from broker_auth.deploy.pki import CertificateAuthority
from broker_auth.natsio.client import INFO_SECONDS
from broker_auth.natsio.tls import TLSFiles, tls_context
from broker_auth.operate.doctor.probe import ProbeTarget, Verdict, attempt, look_at_tls, read_info
from broker_auth.operate.logins import AccessError, Login, connect
from broker_auth.sandbox.natsserver import NatsServer, free_port
from broker_auth.secret import Secret
from broker_auth.settings.model import ClientCertificates
from tests.deadlines import HANG_SECONDS

LOGIN = Login(what="a user", user="u", password=Secret("not in clear"))
INFO = {"server_id": "N", "version": "2.15.1", "proto": 1, "max_payload": 1024, "tls_required": True}

pytestmark = pytest.mark.e2e


class Broker:
    """A nats-server that requires a client certificate, and the files to connect to it."""

    def __init__(self, directory: Path, handshake_first: str) -> None:
        authority = CertificateAuthority.create()
        (directory / "ca.pem").write_bytes(authority.certificate_pem)
        authority.server().write(directory, "server")
        authority.client("client").write(directory, "client")
        names = {name: directory / name for name in ("ca.pem", "client.pem", "client.key")}
        self.tls = tls_context(TLSFiles(ca=names["ca.pem"], certificate=names["client.pem"], key=names["client.key"]))
        config = directory / "server.conf"
        config.write_text(
            f"listen: 127.0.0.1:-1\nauthorization {{ user: u, password: 'not in clear' }}\ntls {{\n"
            f"cert_file: '{directory}/server.pem', key_file: '{directory}/server.key', ca_file: '{directory}/ca.pem'\n"
            f"verify: true\nhandshake_first: {handshake_first}\n}}\n"
        )
        self.server = NatsServer(config)

    @property
    def url(self) -> str:
        return f"tls://127.0.0.1:{self.server.port()}"


@pytest.fixture(scope="module", params=["true", "auto", "false"])
def broker(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Broker]:
    made = Broker(tmp_path_factory.mktemp("broker"), request.param)
    with made.server:
        yield made


async def test_client_connects_with_info_first_or_tls_first(broker: Broker) -> None:
    for _ in range(2):  # the second time the result is cached
        client: Client = await connect(broker.url, LOGIN, broker.tls)
        assert client.is_connected
        await client.close()


async def test_probe_detects_handshake_first(broker: Broker) -> None:
    target = ProbeTarget(broker.url)
    info = await read_info(target, broker.tls)
    assert info.version
    assert info.handshake_first == ("handshake_first: true" in broker.server.config.read_text())
    facts = await look_at_tls(target)
    assert (facts.client_certificates, facts.readable) == (ClientCertificates.REQUIRED, True)
    outcome = await attempt(target, broker.tls, {"user": "u", "pass": "not in clear"})
    assert outcome.verdict is Verdict.ADMITTED
    outcome = await attempt(target, broker.tls, {"user": "u", "pass": "wrong"})
    assert outcome.verdict is Verdict.REFUSED


async def test_wrong_certificate_is_reported_as_such(tmp_path: Path) -> None:
    broker = Broker(tmp_path, "true")
    (tmp_path / "other.pem").write_bytes(CertificateAuthority.create().certificate_pem)
    other = tls_context(TLSFiles(ca=tmp_path / "other.pem"))
    with broker.server, pytest.raises(AccessError, match="CERTIFICATE_VERIFY_FAILED"):
        await connect(broker.url, LOGIN, other)


async def test_slow_server_is_retried_with_info_first() -> None:
    """It receives a TLS handshake and never plaintext, the second time only after it has sent INFO."""
    early: list[bytes] = []
    late: list[bytes] = []

    async def meet(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            # Equally slow both times: longer than a client without cached result waits for INFO.
            async with asyncio.timeout(1.2 * INFO_SECONDS if early else HANG_SECONDS):
                early.append(await reader.read(1000))
        except TimeoutError:
            early.append(b"")
        writer.write(f"INFO {json.dumps(INFO)}\r\n".encode())
        if not early[-1]:
            late.append(await reader.read(1000))
        writer.close()

    port = free_port()
    context = ssl.create_default_context()
    async with await asyncio.start_server(meet, "127.0.0.1", port):
        with pytest.raises(AccessError, match="handshake_first"):
            await connect(f"tls://127.0.0.1:{port}", LOGIN, context)
        with pytest.raises(AccessError):
            await connect(f"tls://127.0.0.1:{port}", LOGIN, context, seconds=HANG_SECONDS)
    assert [bool(text) for text in early] == [True, False]
    assert all(text.startswith(b"\x16\x03") for text in (early[0], *late))  # a TLS handshake
    assert len(late) == 1
