"""The example's session says why it could not begin: people who run it have nothing else to go by."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
import session as example
from session import Client, Login, RefusedError, session

from broker_auth.deploy.pki import CertificateAuthority
from broker_auth.natsio.tls import TLSFiles


async def nothing(_: Client) -> None:
    """Do no work."""


async def test_broker_that_says_nothing_is_reported_as_timeout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(example, "CONNECT_SECONDS", 0.1)
    ca = tmp_path / "ca.pem"
    ca.write_bytes(CertificateAuthority.create("ca").certificate_pem)
    connected = []
    async with await asyncio.start_server(lambda _, writer: connected.append(writer), "127.0.0.1", 0) as server:
        url = f"tls://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        with pytest.raises(RefusedError) as refused:
            await session([url], Login(name="node", tls=TLSFiles(ca=ca)), nothing)
        for writer in connected:
            writer.close()
    assert str(refused.value) == f"login failed: {url}: TimeoutError"
