"""A token for two nodes admits two, whichever host is asked; without the bucket they come back, and others wait."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import urllib.error
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest

from broker_auth.audit.record import AuditRecord
from broker_auth.sandbox.client import ConnectRefusedError, Credentials, connect
from broker_auth.sandbox.identities import Issuer
from broker_auth.tokens.bounds import Bounds
from broker_auth.tokens.issue import new_seed, signing_key_from_seed
from tests.callout.deployment import PASSWORD, FleetDeployment, eventually
from tests.deadlines import HANG_SECONDS
from tests.hosts.two_hosts import Host, TwoHosts

pytestmark = pytest.mark.e2e
CODES: Final = {"admitted": "counted", "token_used_up": "used_up", "nodes_not_counted": "unknown"}


class SingleDeployment(FleetDeployment):
    """A fleet server to which nodes connect too."""

    def write_config(self, *extra: str, password: str = PASSWORD) -> None:
        super().write_config(*extra, password=password)
        text = self.config.read_text()
        assert "role = fleet" in text
        self.write_secret("broker.conf", text.replace("role = fleet", "role = single"))


class Counted:
    """Two hosts at one server, and tokens for a number of nodes."""

    def __init__(self, directory: Path) -> None:
        key = signing_key_from_seed(new_seed(), "issuer")
        self.issuer = Issuer(key)
        self.hosts = TwoHosts(
            directory,
            SingleDeployment,
            "plugin.security.issuer.names = choria",
            f"plugin.security.issuer.choria.public = {key.public_hex}",
            "plugin.broker_auth.audit.requests = true",
        )
        self._number = 0

    def token(self, nodes: int | None) -> str:
        self._number += 1  # tokens of the same second would be the same
        bounds = None if nodes is None else Bounds(max_nodes=nodes)
        return self.issuer.node_token(bounds=bounds, validity=3600.0 + self._number)

    async def decision(self, name: str, token: str) -> AuditRecord:
        """Log in once; return the record of the decision."""
        both = (self.hosts.first, self.hosts.second)
        before = sum(len(host.decisions(name)) for host in both)
        credentials = Credentials(ca=self.hosts.deployment.directory / "ca.pem", token=token)
        try:
            await (await connect(self.hosts.deployment.url(), name, credentials)).close()
            admitted = True
        except ConnectRefusedError:
            admitted = False
        records: list[AuditRecord] = await eventually(
            lambda: new if len(new := [one for host in both for one in host.decisions(name)]) > before else None
        )
        latest = max(records, key=lambda one: one.time)
        assert (latest.decision == "admit") == admitted
        return latest

    async def code(self, name: str, token: str, *, countable: bool = True) -> str:
        """Log in; return the code of the decision, which says what was counted.

        Args:
            name: of the node.
            token: for a number of nodes.
            countable: whether to log in until it is known, which may take longer than a second on a busy machine.
        """
        async with asyncio.timeout(HANG_SECONDS):
            while True:
                record = await self.decision(name, token)
                assert record.evidence is not None
                assert CODES[record.code] == (record.evidence.counted or "unknown")
                if not countable or record.code != "nodes_not_counted":
                    return record.code

    async def codes(self, names: list[str], token: str) -> list[str]:
        """Log in several nodes at the same time."""
        return list(await asyncio.gather(*(self.code(name, token) for name in names)))

    async def by_both(self, name: str, token: str, code: str) -> None:
        """Log in until each host has decided so since now."""
        both = (self.hosts.first, self.hosts.second)
        before = [len(host.decisions(name)) for host in both]
        async with asyncio.timeout(HANG_SECONDS):
            while any(len(host.decisions(name)) == count for host, count in zip(both, before, strict=True)):
                assert await self.code(name, token, countable=code != "nodes_not_counted") == code


@pytest.fixture(scope="module")
def counted(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Counted]:
    made = Counted(tmp_path_factory.mktemp("counted"))
    with made.hosts.running():
        yield made


def is_ready(host: Host) -> bool:
    try:
        return bool(host.page("/readyz"))
    except urllib.error.HTTPError:
        return False


async def test_token_for_two_nodes_admits_two_of_four_on_any_host_and_they_come_back(counted: Counted) -> None:
    token, names = counted.token(2), ["n1", "n2", "n3", "n4"]
    first = dict(zip(names, await counted.codes(names, token), strict=True))
    assert sorted(first.values()) == ["admitted"] * 2 + ["token_used_up"] * 2
    for name, code in first.items():
        await counted.by_both(name, token, code)
    assert await counted.code("n3", counted.token(1)) == "admitted"  # another token counts by itself


async def test_counted_nodes_come_back_without_the_bucket_and_new_ones_wait_for_it(counted: Counted) -> None:
    hosts = counted.hosts
    used_up, free = counted.token(2), counted.token(2)
    assert await counted.codes(["m1", "m2"], used_up) == ["admitted"] * 2
    await counted.by_both("m3", used_up, "token_used_up")  # each host has seen who was counted
    server = hosts.deployment.servers["east"]
    both = (hosts.first, hosts.second)
    marks = [host.service.mark() for host in both]
    await asyncio.to_thread(server.stop)
    shutil.rmtree(hosts.deployment.directory / "east-js")
    await asyncio.to_thread(server.start)
    for host, mark in zip(both, marks, strict=True):
        await host.service.logged("subscribed again", since=mark)  # health tells it a second later
    await eventually(lambda: all("nodes are not counted" in str(host.troubles()) for host in both))
    assert all('code="node_counts",zone="fleet"} 1.0' in host.page("/metrics") for host in both)
    await eventually(lambda: all(is_ready(host) for host in both))  # although nothing is counted
    for name, code in (("m1", "admitted"), ("m2", "admitted"), ("m3", "token_used_up")):
        await counted.by_both(name, used_up, code)
    await counted.by_both("m4", free, "nodes_not_counted")
    assert (await counted.decision("m5", counted.token(None))).code == "admitted"
    await hosts.apply()
    await eventually(lambda: not any(host.troubles() for host in both))
    assert await counted.code("m4", free) == "admitted"


async def test_reload_and_a_killed_counter_lose_no_count(counted: Counted) -> None:
    token = counted.token(1)
    assert await counted.code("r1", token) == "admitted"
    first = counted.hosts.first.service
    before = first.workers  # the counter is one of these processes
    for pid in before:
        os.kill(pid, signal.SIGKILL)
    await eventually(lambda: len(set(first.workers) - set(before)) == len(before))
    await counted.hosts.second.service.reload()
    await counted.by_both("r2", token, "token_used_up")
    await counted.by_both("r1", token, "admitted")
