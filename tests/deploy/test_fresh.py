"""The everyday commands work without options on a running deployment that ``init`` wrote."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from broker_auth.deploy.init import Deployment, initialize
from broker_auth.sandbox.client import ConnectRefusedError, Credentials, connect
from broker_auth.sandbox.identities import Issuer
from broker_auth.sandbox.natsserver import NatsServer
from broker_auth.sandbox.service import ServiceProcess
from broker_auth.tokens.issue import load_signing_key
from tests.deploy.test_init import dev

pytestmark = pytest.mark.e2e
NODE = "node1.example.net"


@dataclass(frozen=True, slots=True)
class Fresh:
    """An unchanged deployment written by ``init``, and its service."""

    deployment: Deployment
    service: ServiceProcess

    def pki(self, name: str) -> Path:
        """Return the path of a file of the development PKI."""
        return self.deployment.configuration.parent / "pki" / name

    def node(self) -> Credentials:
        """Return credentials with a provisioning token."""
        key = load_signing_key(self.pki("signer.key").read_bytes(), "signer.key")
        return Credentials(ca=self.pki("ca.pem"), token=Issuer(key).node_token())

    async def run(self, *words: str, note: str = "") -> str:
        """Run a command on this configuration, which has to succeed and print only this note; return its output."""
        command = [sys.executable, "-m", "broker_auth", *words, "--config", str(self.deployment.configuration)]
        pipe = asyncio.subprocess.PIPE
        process = await asyncio.create_subprocess_exec(*command, stdout=pipe, stderr=pipe)
        out, err = await process.communicate()
        assert process.returncode == 0, f"{words}: {out.decode()} {err.decode()}"
        assert err.decode().startswith(f"Note: {note}") if note else not err, err.decode()
        return out.decode()

    async def document(self, *words: str, note: str = "") -> Any:
        """Run a command with ``--json``; return the document."""
        return json.loads(await self.run(*words, "--json", note=note))


@pytest_asyncio.fixture
async def fresh(tmp_path: Path) -> AsyncIterator[Fresh]:
    deployment = initialize(dev(tmp_path / "d"))
    async with AsyncExitStack() as stack:
        for config in deployment.servers.values():
            await stack.enter_async_context(NatsServer(config))
        service = ServiceProcess(deployment.configuration, tmp_path / "serve.log")
        stack.push_async_callback(service.stop)
        await service.start()
        yield Fresh(deployment, service)


async def test_why_and_reload_work_without_options(fresh: Fresh) -> None:
    edge = fresh.deployment.settings.brokers[1].urls[0]
    with pytest.raises(ConnectRefusedError):
        await connect(edge, NODE, Credentials(ca=fresh.pki("ca.pem")))
    assert NODE in json.dumps(await fresh.document("why", NODE))
    since = fresh.service.mark()
    await fresh.run("reload")
    await fresh.service.logged("reloaded ", since=since)


async def test_reports_and_doctor_cover_the_edge(fresh: Fresh) -> None:
    await fresh.run("streams", "apply")
    edge = fresh.deployment.settings.brokers[1].urls[0]
    node = await connect(edge, NODE, fresh.node())
    try:
        connections = await fresh.document("report", "conns", note="of edge only the provisioning account is visible")
        shown = {(item["broker"], item["account"], item["name"]) for item in connections}
        assert ("edge", "provisioning", NODE) in shown
        assert [item["name"] for item in await fresh.document("report", "waiting")] == [NODE]
        findings = {item["code"]: item["severity"] for item in (await fresh.document("doctor"))["findings"]}
        assert findings["isolation.crossing"] == "ok"
        assert "error" not in findings.values()
    finally:
        await node.close()
