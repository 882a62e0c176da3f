"""A real Prometheus reads a service with waiting nodes: the dashboard's panels have data, and an alert fires."""

from __future__ import annotations

import asyncio
import json
import shutil
import urllib.parse
import urllib.request
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from broker_auth.demo.isolation import show_isolation
from broker_auth.sandbox.client import ConnectRefusedError, connect
from broker_auth.sandbox.natsserver import free_port
from broker_auth.sandbox.process import LoggedProcess
from broker_auth.sandbox.sandbox import Sandbox
from tests.callout.deployment import eventually
from tests.deadlines import HANG_SECONDS
from tests.examples.monitoring import ALERTS, expressions, used

pytestmark = [
    pytest.mark.e2e,
    pytest.mark.asyncio(loop_scope="module"),
    pytest.mark.skipif(shutil.which("prometheus") is None, reason="Prometheus is not installed"),
]
NODES = ("node1.example.net", "node2.example.net")
WRONG_PASSWORDS = 6  # more than BrokerAuthWrongPasswords allows
NO_EVENTS = {"Without an answer, per second, by fault"}  # shows only what happens


class Prometheus(LoggedProcess):
    """Prometheus, which reads one target every second, with the example alerts."""

    def __init__(self, directory: Path, target: str) -> None:
        super().__init__("prometheus", directory / "prometheus.log")
        self._directory = directory
        self._listen = f"127.0.0.1:{free_port()}"
        configuration = {
            "global": {"scrape_interval": "1s", "evaluation_interval": "1s"},
            "rule_files": [str(ALERTS)],
            "scrape_configs": [{"job_name": "broker-auth", "static_configs": [{"targets": [target]}]}],
        }
        (directory / "prometheus.yaml").write_text(json.dumps(configuration))

    def command(self) -> list[str]:
        return [
            shutil.which("prometheus") or "prometheus",
            f"--config.file={self._directory / 'prometheus.yaml'}",
            f"--storage.tsdb.path={self._directory / 'data'}",
            f"--web.listen-address={self._listen}",
        ]

    def get(self, path: str, **parameters: str) -> Any:
        query = urllib.parse.urlencode(parameters)
        with urllib.request.urlopen(f"http://{self._listen}/api/v1/{path}?{query}", timeout=HANG_SECONDS) as answer:
            return json.loads(answer.read())["data"]

    def rows(self, expression: str) -> list[dict[str, Any]]:
        """Return the rows of a query of the dashboard, over seconds instead of hours."""
        for variable, value in (
            ("$instance", ".*"),
            ("$__rate_interval", "30s"),
            ("$__range", "30s"),
            ("[1h:1m]", "[30s:1s]"),
            ("[1h]", "[30s]"),
        ):
            expression = expression.replace(variable, value)
        rows: list[dict[str, Any]] = self.get("query", query=expression)["result"]
        return rows


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def watched(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[tuple[Sandbox, Prometheus]]:
    """Yield a service at whose edge nodes wait, and a Prometheus that has read it before anything happened."""
    directory = tmp_path_factory.mktemp("watched")
    listen = f"127.0.0.1:{free_port()}"
    sandbox = Sandbox(directory / "site", changes={"plugin.broker_auth.metrics.listen": listen})
    prometheus = Prometheus(directory, listen)
    async with AsyncExitStack() as stack:
        await stack.enter_async_context(sandbox)
        prometheus.launch()
        stack.push_async_callback(asyncio.to_thread, prometheus.terminate)
        await eventually(lambda: prometheus.rows("broker_auth_decisions_total") if _listens(prometheus) else None)
        await sandbox.apply_streams()
        await show_isolation(sandbox)  # a provisioner asks nodes, which leave
        for name in NODES:
            client = await connect(sandbox.node_url, name, sandbox.credentials("node"))
            stack.push_async_callback(client.close)
        provisioner = sandbox.credentials("provisioner")
        for password in (provisioner.password, *["guessed"] * WRONG_PASSWORDS):
            try:
                client = await connect(sandbox.fleet_url, "provisioner", replace(provisioner, password=password))
                stack.push_async_callback(client.close)
            except ConnectRefusedError:
                assert password == "guessed"
        yield sandbox, prometheus


def _listens(prometheus: Prometheus) -> bool:
    try:
        prometheus.get("status/buildinfo")
    except OSError:
        return False
    return True


async def test_waiting_nodes_are_counted_at_the_edge(watched: tuple[Sandbox, Prometheus]) -> None:
    _, prometheus = watched
    waiting = "max by (broker) (broker_auth_waiting_nodes)"
    rows = await eventually(lambda: _having(prometheus.rows(waiting), str(len(NODES))))
    assert [row["metric"] for row in rows] == [{"broker": "edge"}]


def _having(rows: list[dict[str, Any]], value: str) -> list[dict[str, Any]] | None:
    return rows if [row["value"][1] for row in rows] == [value] else None


async def test_requests_of_a_provisioner_are_counted(watched: tuple[Sandbox, Prometheus]) -> None:
    _, prometheus = watched
    asked = "max by (broker) (broker_auth_provisioner_requests_total) >= 1"
    (row,) = await eventually(lambda: prometheus.rows(asked))
    assert row["metric"] == {"broker": "edge"}


async def test_every_panel_of_the_dashboard_has_data(watched: tuple[Sandbox, Prometheus]) -> None:
    """Except those of features that this deployment does not use: Prometheus accepts their queries."""
    _, prometheus = watched
    await eventually(lambda: prometheus.rows("broker_auth_provisioner_requests_total"))
    known = set(prometheus.get("label/__name__/values"))
    empty = set(NO_EVENTS)
    for title, queries in expressions().items():
        for query in queries:
            if used(query) <= known and title not in NO_EVENTS:
                await eventually(lambda query=query: prometheus.rows(query))  # type: ignore[misc]
            else:
                prometheus.rows(query)
        if not any(used(query) <= known for query in queries):
            empty.add(title)
    assert len(empty) <= len(expressions()) / 5


async def test_alert_fires_after_the_first_wrong_passwords(watched: tuple[Sandbox, Prometheus]) -> None:
    _, prometheus = watched

    def fired() -> dict[str, Any] | None:
        return next((alert for alert in prometheus.get("alerts")["alerts"] if _is(alert)), None)

    annotations = (await eventually(fired))["annotations"]
    assert annotations["summary"] == "Clients of zone fleet present wrong passwords (provisioner_password)."


def _is(alert: dict[str, Any]) -> bool:
    return bool(alert["state"] == "firing" and alert["labels"]["alertname"] == "BrokerAuthWrongPasswords")
