"""Running workers follow the file of revocations, without a reload; what cannot be read changes nothing."""

from __future__ import annotations

import asyncio
import functools
import json
import os
import signal
import tempfile
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from nats.errors import Error as NatsError

from broker_auth.certificates.verifier import PeerVerifier
from broker_auth.daemon.prepared import Prepared
from broker_auth.daemon.revocations import Follower, RevocationFeed
from broker_auth.files.writing import write_private
from broker_auth.policy.revocation_index import Revocations
from broker_auth.policy.revocations import Revocation, RevocationError, RevocationKind
from broker_auth.sandbox.natsserver import free_port
from broker_auth.sandbox.service import ServiceProcess
from broker_auth.settings.revocation_store import create
from broker_auth.settings.revocations import encode, read_revocations
from tests.callout.deployment import FLEET_NAME, FleetDeployment, eventually
from tests.cli.running import Run, run
from tests.daemon.descriptors import no_descriptors

ENTRIES = [
    *(Revocation(kind=RevocationKind.NODE, value=f"n{number}") for number in range(3)),
    Revocation(kind=RevocationKind.NODE, value="n0", until=9e9),
    Revocation(kind=RevocationKind.SIGNER, value="s", before=5.0),
    Revocation(kind=RevocationKind.SIGNER, value="s", before=6.0),
    Revocation(kind=RevocationKind.IDENTITY, value="/a.*/"),
    Revocation(kind=RevocationKind.NETWORK, value="192.0.2.0/24"),
    *(Revocation(kind=RevocationKind.TOKEN_ID, value=f"t{number}") for number in range(1200)),
]
SUBSETS = st.lists(st.sampled_from(ENTRIES[:10]), max_size=6, unique_by=lambda one: (one.kind, one.value))


def feed_of(path: Path) -> RevocationFeed:
    """Return the feed of a configuration that was just loaded; no other setting is used."""
    settings: Any = type("Settings", (), {"revocations": path, "client_crl": ()})
    policy: Any = type("Policy", (), {"revocations": read_revocations(path).index, "peers": PeerVerifier(())})
    return RevocationFeed(Prepared(cast("Any", settings), cast("Any", policy), {}))


def content(revocations: Revocations) -> set[object]:
    return {(kind, value, term.until, term.before) for kind, value, term in revocations.items()}


def put(path: Path, data: bytes) -> None:
    """Replace a file as the command does, but for the wait for the disk."""
    beside = path.with_name("beside")
    beside.write_bytes(data)
    beside.chmod(0o600)
    beside.replace(path)


@given(steps=st.lists(st.tuples(st.sampled_from(["write", "cut", "remove", "restart"]), SUBSETS), max_size=8))
def test_worker_decides_by_the_last_good_file(
    steps: list[tuple[str, list[Revocation]]],
) -> None:
    with tempfile.TemporaryDirectory() as directory:
        _follow(Path(directory) / "revoked.json", steps)


def _follow(path: Path, steps: list[tuple[str, list[Revocation]]]) -> None:
    put(path, encode(()))
    feed, good = feed_of(path), encode(())
    follower, state = Follower(feed.current), feed.current
    for what, entries in steps:
        match what:
            case "write":
                good = encode(tuple(entries))
                put(path, good)
            case "cut":
                put(path, encode(tuple(entries))[:-4])
            case "remove":
                path.unlink(missing_ok=True)
            case "restart":  # a worker that is replaced is forked with the state of the supervisor
                follower, state = Follower(feed.current), feed.current
        for line in feed.look():
            state = follower.take(line) or state
        put(path.with_name("good"), good)
        expected = read_revocations(path.with_name("good")).index
        assert content(feed.current) == content(state) == content(expected)
        assert feed.current.version == state.version == expected.version
        assert bool(feed.trouble) == (what in ("cut", "remove") or (what == "restart" and bool(feed.trouble)))


def test_long_change_is_sent_in_parts_and_counts_at_its_end(tmp_path: Path) -> None:
    path = tmp_path / "revoked.json"
    write_private(path, encode(()))
    feed = feed_of(path)
    follower = Follower(feed.current)
    for entries in (ENTRIES[10:], ENTRIES[20:]):
        write_private(path, encode(tuple(entries)))
        *parts, last = feed.look()
        assert parts
        assert all(follower.take(line) is None for line in parts)
        state = follower.take(last)
        assert state is not None
        assert content(state) == content(Revocations.of(entries))


def test_file_that_could_not_be_opened_for_a_while_is_read_then(tmp_path: Path) -> None:
    path = tmp_path / "revoked.json"
    put(path, encode(()))
    feed = feed_of(path)
    put(path, encode(ENTRIES[:1]))
    with no_descriptors():
        assert feed.look() == []
    assert "Too many open files" in feed.trouble
    assert feed.look()
    assert (feed.current.count, feed.trouble) == (1, "")


def test_message_that_is_not_known_ends_the_worker() -> None:
    for line in (b"{}", b"[]", b"x", b'{"version":"1","add":[{"kind":"key","value":"x"}]}'):
        with pytest.raises((msgspec.DecodeError, RevocationError)):
            Follower(Revocations()).take(line)


# --- The running service


@pytest.fixture(scope="module")
def deployment(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FleetDeployment]:
    deployed = FleetDeployment(tmp_path_factory.mktemp("revocations"))
    deployed.write_config("plugin.broker_auth.revocations = revoked.json", "plugin.broker_auth.pid_file = pid")
    create(deployed.directory / "revoked.json")
    with deployed.running():
        yield deployed


@pytest.fixture(scope="module")
def address() -> str:
    return f"127.0.0.1:{free_port()}"


@pytest.fixture(scope="module")
def service(deployment: FleetDeployment, address: str) -> Iterator[ServiceProcess]:
    with deployment.service("--workers", "2", BROKER_AUTH_METRICS_LISTEN=address) as running_service:
        yield running_service


async def command(deployment: FleetDeployment, name: str, *args: object) -> Run:
    """Run a command beside the event loop of the test, because it has its own."""
    return await asyncio.to_thread(run, name, *args, "--config", deployment.config)


async def gets_in(deployment: FleetDeployment, pair: str = "client") -> bool:
    """Return whether several connections are all admitted or all denied; the workers must agree."""
    results = set()
    for _ in range(6):
        try:
            client = await (deployment.connect() if pair == "client" else deployment.provisioner())
        except NatsError:
            results.add(False)
        else:
            await client.close()
            results.add(True)
    assert len(results) == 1
    return results.pop()


def troubles(address: str) -> list[str]:
    with urllib.request.urlopen(f"http://{address}/healthz", timeout=10) as answer:
        lines: list[str] = json.load(answer)["troubles"]
    return lines


def both_subscribed(service: ServiceProcess, mark: int) -> bool:
    return sum("subscribed at" in line for line in service.log(mark)) >= 2


@pytest.mark.e2e
async def test_revoked_is_refused_when_the_command_returns_until_it_is_restored(
    deployment: FleetDeployment, service: ServiceProcess
) -> None:
    workers = service.workers
    for kind, value in (("identity", FLEET_NAME), ("certificate", deployment.directory / "client.pem")):
        assert await gets_in(deployment)
        done = await command(deployment, "revoke", kind, value, "--reason", "stolen")
        assert done.code == 0, done.err
        assert "in force in zone fleet on this host" in done.out
        assert not await gets_in(deployment)
        assert await gets_in(deployment, "provisioner")
        (listed,) = (await command(deployment, "revoked", "--json")).json
        assert (listed["kind"], listed["reason"]) == (kind, "stolen")
        assert (await command(deployment, "restore", kind, value)).code == 0
    assert await gets_in(deployment)
    assert service.workers == workers


@pytest.mark.e2e
async def test_revoked_stays_revoked_while_the_file_is_damaged_and_workers_die(
    deployment: FleetDeployment, service: ServiceProcess, address: str
) -> None:
    path = deployment.directory / "revoked.json"
    assert (await command(deployment, "revoke", "identity", FLEET_NAME)).code == 0
    good = path.read_bytes()
    for damaged in (good[:-5], None):
        if damaged is None:
            path.unlink()
        else:
            write_private(path, damaged)
        await eventually(lambda: bool(troubles(address)))
        assert not await gets_in(deployment)
        mark = service.mark()
        for worker in service.workers:
            os.kill(worker, signal.SIGKILL)
        await eventually(functools.partial(both_subscribed, service, mark))
        assert not await gets_in(deployment)
        assert await gets_in(deployment, "provisioner")
        assert "cannot be read, so its last good state counts" in troubles(address)[0]
        refused = await command(deployment, "restore", "identity", FLEET_NAME)
        assert refused.code == 1
        mark = service.mark()
        service.signal(signal.SIGHUP)  # a configuration whose revocations cannot be read is not loaded
        service.wait_for_log("not reloaded", since=mark)
        assert not await gets_in(deployment)
        write_private(path, good)
        await eventually(lambda: not troubles(address))
    mark = service.mark()
    service.signal(signal.SIGHUP)
    service.wait_for_log("reloaded", since=mark)
    assert not await gets_in(deployment)
    assert (await command(deployment, "restore", "identity", FLEET_NAME)).code == 0
    assert await gets_in(deployment)


@pytest.mark.e2e
async def test_command_says_so_where_no_service_runs(tmp_path: Path) -> None:
    deployed = FleetDeployment(tmp_path)
    deployed.write_config("plugin.broker_auth.revocations = revoked.json", "plugin.broker_auth.pid_file = pid")
    create(tmp_path / "revoked.json")
    done = await command(deployed, "revoke", "node", "a", "--sessions", "none")
    assert done.code == 0
    assert "Warning: no service runs" in done.err
