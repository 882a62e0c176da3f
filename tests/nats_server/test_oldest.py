"""The essential flow on the oldest nats-server that is supported, whatever version is installed."""

from __future__ import annotations

import logging
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from broker_auth.demo.attempts import attempts, try_all
from broker_auth.demo.isolation import show_isolation
from broker_auth.demo.site import Site
from broker_auth.deploy.natsserver import BINARY_VARIABLE
from tests import servers
from tests.nats_server.wire import Wire

pytestmark = pytest.mark.e2e


async def test_the_whole_system_works_on_the_oldest_supported_version(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.ERROR, logger="asyncio")  # which warns of every client that TLS refuses
    monkeypatch.setenv(BINARY_VARIABLE, str(servers.server(servers.OLDEST)))
    async with Site(tmp_path / "site") as site:
        for url in (site.fleet_url, site.node_url):
            wire = await Wire.open(urlsplit(url).port or 0)
            await wire.close()
            assert wire.info["version"] == servers.OLDEST
        await site.apply_streams()
        outcomes = await try_all(site, attempts(site)) + await show_isolation(site)
    assert outcomes
    assert [(row.what, row.happened) for row in outcomes] == [(row.what, row.expected) for row in outcomes]
