"""Issuer mode in the edge topology: servers and clients have a certificate and a token, and both count."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest
import pytest_asyncio

from broker_auth.demo.attempts import Attempt, try_one
from broker_auth.demo.observation import TLS_REFUSED
from broker_auth.operate.access import Access, AccessError
from broker_auth.operate.streams.change import change_streams
from broker_auth.sandbox.client import Credentials
from broker_auth.sandbox.sandbox import Sandbox

pytestmark = pytest.mark.e2e


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def site(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Sandbox]:
    async with Sandbox(tmp_path_factory.mktemp("site") / "site", issuer=True) as running:
        yield running


def attempts(site: Sandbox) -> dict[str, Attempt]:
    """What each peer presents, where, and what becomes of it."""
    member, plain = site.credentials("fleet"), Credentials(ca=site.ca)
    provisioner, operator = site.credentials("provisioner"), site.credentials("system")
    server = site.issuer.server("node1.example.net")
    whole = replace(member, token=server.token, seed=server.seed)
    rows = {
        "server": (site.fleet_url, whole, "in choria"),
        "server without its certificate": (site.fleet_url, replace(whole, certificate=None, key=None), TLS_REFUSED),
        "server without its token": (site.fleet_url, replace(whole, token="", seed=b""), "denied: pub_sub_disabled"),
        "client": (site.fleet_url, member, "in choria"),
        "provisioner": (site.fleet_url, provisioner, "in provisioning"),
        "provisioner without its token": (
            site.fleet_url,
            replace(provisioner, token="", seed=b""),
            "denied: provisioner_token_missing",
        ),
        "operator": (site.fleet_url, operator, "in system"),
        "node at the edge": (site.node_url, site.credentials("node"), "in provisioning"),
        "server at the edge": (
            site.node_url,
            replace(plain, token=server.token, seed=server.seed),
            "denied: edge_fleet_token",
        ),
    }
    return {
        name: Attempt(what=name, url=url, credentials=credentials, expected=expected)
        for name, (url, credentials, expected) in rows.items()
    }


@pytest.mark.asyncio(loop_scope="module")
async def test_certificate_and_token_are_both_needed(site: Sandbox, tmp_path: Path) -> None:
    outcomes = {name: await try_one(site, attempt, name.replace(" ", "-")) for name, attempt in attempts(site).items()}
    assert {name: outcome.happened for name, outcome in outcomes.items()} == {
        name: outcome.expected for name, outcome in outcomes.items()
    }


async def test_streams_need_a_token(site: Sandbox) -> None:
    with pytest.raises(AccessError, match="use --token FILE --seed FILE"):
        await change_streams(Access(settings=site.settings), dry_run=True)
