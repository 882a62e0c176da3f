"""Issuer mode in the edge topology, where members need both a certificate and a token."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest
import pytest_asyncio

from broker_auth.demo.attempts import Attempt, try_one
from broker_auth.demo.observation import TLS_REFUSED
from broker_auth.operate.access import Access
from broker_auth.operate.logins import AccessError
from broker_auth.operate.streams.change import change_streams
from broker_auth.sandbox.client import Credentials
from broker_auth.sandbox.sandbox import Sandbox

pytestmark = pytest.mark.e2e


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def sandbox(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Sandbox]:
    async with Sandbox(tmp_path_factory.mktemp("sandbox") / "sandbox", issuer=True) as running:
        yield running


def attempts(sandbox: Sandbox) -> dict[str, Attempt]:
    """Return the credentials, listener and expected result of each peer."""
    member, plain = sandbox.credentials("fleet"), Credentials(ca=sandbox.ca)
    provisioner, operator = sandbox.credentials("provisioner"), sandbox.credentials("system")
    server = sandbox.issuer.server("node1.example.net")
    whole = replace(member, token=server.token, seed=server.seed)
    rows = {
        "server": (sandbox.fleet_url, whole, "in choria"),
        "server without its certificate": (sandbox.fleet_url, replace(whole, certificate=None, key=None), TLS_REFUSED),
        "server without its token": (sandbox.fleet_url, replace(whole, token="", seed=b""), "denied: pub_sub_disabled"),
        "client": (sandbox.fleet_url, member, "in choria"),
        "provisioner": (sandbox.fleet_url, provisioner, "in provisioning"),
        "provisioner without its token": (
            sandbox.fleet_url,
            replace(provisioner, token="", seed=b""),
            "denied: provisioner_token_missing",
        ),
        "operator": (sandbox.fleet_url, operator, "in system"),
        "node at the edge": (sandbox.node_url, sandbox.credentials("node"), "in provisioning"),
        "server at the edge": (
            sandbox.node_url,
            replace(plain, token=server.token, seed=server.seed),
            "denied: edge_fleet_token",
        ),
    }
    return {
        name: Attempt(what=name, url=url, credentials=credentials, expected=expected)
        for name, (url, credentials, expected) in rows.items()
    }


@pytest.mark.asyncio(loop_scope="module")
async def test_members_need_both_certificate_and_token(sandbox: Sandbox, tmp_path: Path) -> None:
    outcomes = {
        name: await try_one(sandbox, attempt, name.replace(" ", "-")) for name, attempt in attempts(sandbox).items()
    }
    assert {name: outcome.happened for name, outcome in outcomes.items()} == {
        name: outcome.expected for name, outcome in outcomes.items()
    }


async def test_streams_need_a_token(sandbox: Sandbox) -> None:
    with pytest.raises(AccessError, match="use --token FILE --seed FILE"):
        await change_streams(Access(settings=sandbox.settings), dry_run=True)
