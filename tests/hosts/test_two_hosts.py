"""Hosts of the service synchronize what was revoked, through outages of the bucket, of the server and of themselves."""

from __future__ import annotations

import asyncio
import os
import re
import shutil
import signal
from collections.abc import Iterator

import msgspec
import pytest
from nats.errors import Error as NatsError

from broker_auth.settings.revocation_store import open_store
from tests.callout.deployment import FLEET_NAME, PROVISIONER_NAME, eventually
from tests.deadlines import HANG_SECONDS
from tests.hosts.two_hosts import Host, TwoHosts

pytestmark = pytest.mark.e2e
NOBODY = ("--sessions", "none")
EVERYWHERE = "in force on every other host"


@pytest.fixture(scope="module")
def hosts(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TwoHosts]:
    with TwoHosts(tmp_path_factory.mktemp("hosts")).running() as running:
        yield running


def values(host: Host) -> set[str]:
    return {one.value for one in host.held.in_force(0)}


async def synchronized(*hosts: Host) -> None:
    """Wait until both hosts hold the same and say so."""
    await eventually(lambda: all(not host.troubles() for host in hosts))
    await eventually(lambda: all(host.held.records == hosts[0].held.records for host in hosts))


async def logins(hosts: TwoHosts) -> set[bool]:
    """Return whether a member is admitted, several times: each host decides some of them."""
    results = set()
    for _ in range(6):
        try:
            client = await hosts.deployment.connect()
        except NatsError:
            results.add(False)
        else:
            await client.close()
            results.add(True)
    return results


async def is_admitted(hosts: TwoHosts) -> bool:
    """Return whether a member is admitted; every host must decide the same."""
    (result,) = await logins(hosts)
    return result


async def is_denied_soon(hosts: TwoHosts) -> None:
    """Wait until every host denies a member: workers follow the file of their host a moment later."""
    async with asyncio.timeout(HANG_SECONDS):
        while await logins(hosts) != {False}:
            pass


async def test_revoked_on_one_host_is_in_force_on_the_other_when_the_command_returns(hosts: TwoHosts) -> None:
    for host, other in ((hosts.first, hosts.second), (hosts.second, hosts.first)):
        assert await is_admitted(hosts)
        done = await host.command("revoke", "identity", FLEET_NAME, *NOBODY)
        assert done.code == 0, done.err
        assert EVERYWHERE in done.out
        assert other.held.records == host.held.records
        assert values(other) == {FLEET_NAME}
        assert not await is_admitted(hosts)
        restored = await other.command("restore", "identity", FLEET_NAME)
        assert restored.code == 0, restored.err
        assert EVERYWHERE in restored.out
        assert not values(host)
        assert await is_admitted(hosts)


async def test_host_that_does_not_answer_is_named(hosts: TwoHosts) -> None:
    await synchronized(hosts.first, hosts.second)
    os.killpg(hosts.second.service.pid, signal.SIGSTOP)
    try:
        done = await hosts.first.command("revoke", "node", "n1", *NOBODY)
        assert done.code == 1
        assert re.search("host .* has not confirmed", done.err)
        assert values(hosts.first) == {"n1"}
    finally:
        os.killpg(hosts.second.service.pid, signal.SIGCONT)
    await eventually(lambda: values(hosts.second) == {"n1"})
    assert (await hosts.second.command("restore", "node", "n1")).code == 0


async def test_restore_that_loses_against_a_later_revocation_says_so(hosts: TwoHosts) -> None:
    done = await hosts.first.command("revoke", "node", "n5", *NOBODY)
    assert done.code == 0, done.err
    (latest,) = hosts.first.held.in_force(0)
    late = Host(hosts.deployment.config, "late")  # it was switched off, and knows an earlier revocation only
    with open_store(late.file) as store:
        store.revoke([msgspec.structs.replace(latest, at=latest.at - 60)], latest.at)
    restored = await late.command("restore", "node", "n5")
    assert restored.code == 1
    assert "node n5 stays revoked: it was revoked again on another host" in restored.err
    assert EVERYWHERE not in restored.out
    assert values(hosts.first) == {"n5"}
    assert (await hosts.first.command("restore", "node", "n5")).code == 0


async def test_hosts_decide_by_their_files_while_the_bucket_is_gone_and_synchronize_afterwards(hosts: TwoHosts) -> None:
    first, second = hosts.first, hosts.second
    assert (await first.command("revoke", "identity", PROVISIONER_NAME, *NOBODY)).code == 0
    server = hosts.deployment.servers["east"]
    await asyncio.to_thread(server.stop)
    shutil.rmtree(hosts.deployment.directory / "east-js")
    await asyncio.to_thread(server.start)
    await eventually(lambda: all("does not exist" in str(host.troubles()) for host in (first, second)))
    assert "age_seconds" in first.page("/metrics")
    revoked = await first.command("revoke", "identity", FLEET_NAME, *NOBODY)
    assert revoked.code == 1
    assert "other hosts may not know yet" in revoked.err
    assert (await second.command("revoke", "node", "n2", *NOBODY)).code == 1
    assert (await second.command("restore", "identity", PROVISIONER_NAME)).code == 1
    assert values(first) == {PROVISIONER_NAME, FLEET_NAME}
    assert values(second) == {"n2"}
    await hosts.apply()
    await synchronized(first, second)
    assert values(first) == values(second) == {FLEET_NAME, "n2"}
    await is_denied_soon(hosts)
    assert (await second.command("restore", "identity", FLEET_NAME)).code == 0
    assert (await second.command("restore", "node", "n2")).code == 0
    assert await is_admitted(hosts)


async def test_host_that_starts_knows_what_was_revoked_meanwhile_before_it_admits(hosts: TwoHosts) -> None:
    first, second = hosts.first, hosts.second
    await synchronized(first, second)
    assert await asyncio.to_thread(second.service.terminate) == 0
    done = await first.command("revoke", "identity", FLEET_NAME, *NOBODY)
    assert done.code == 0, done.err  # a host that was stopped decides nothing, and is not waited for
    assert FLEET_NAME not in values(second)
    await second.service.start()
    assert FLEET_NAME in values(second)
    assert not await is_admitted(hosts)
    assert (await first.command("restore", "identity", FLEET_NAME)).code == 0


async def test_process_that_exchanges_records_is_replaced(hosts: TwoHosts) -> None:
    first, second = hosts.first, hosts.second
    await synchronized(first, second)
    before = first.service.workers  # a worker, the process of the synchronization and the counter of nodes
    for pid in before:
        os.kill(pid, signal.SIGKILL)
    await eventually(lambda: len(set(first.service.workers) - set(before)) == len(before) == 3)
    done = await second.command("revoke", "node", "n3", *NOBODY)
    assert done.code == 0, done.err
    assert values(first) == {"n3"}
    assert (await second.command("restore", "node", "n3")).code == 0


async def test_reload_renews_the_synchronization(hosts: TwoHosts) -> None:
    await hosts.first.service.reload()
    done = await hosts.second.command("revoke", "node", "n4", *NOBODY)
    assert done.code == 0, done.err
    assert (await hosts.first.command("restore", "node", "n4")).code == 0


async def test_record_that_cannot_be_read_or_sent_is_reported_and_changes_nothing(hosts: TwoHosts) -> None:
    first, second = hosts.first, hosts.second
    await synchronized(first, second)
    good = first.file.read_bytes()
    first.file.write_bytes(good[:-5])
    await eventually(lambda: any("not a complete list" in line for line in first.troubles()))
    assert (await second.command("revoke", "node", "n5", *NOBODY)).code == 1
    assert first.file.read_bytes() == good[:-5]
    first.file.write_bytes(good)
    await eventually(lambda: values(first) == {"n5"})
    with open_store(first.file) as store:
        assert not store.held.in_force(0)[0].reason
    assert (await second.command("restore", "node", "n5")).code == 0
