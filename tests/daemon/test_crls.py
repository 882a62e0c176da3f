"""Running workers follow the files of CRLs, without a reload; what cannot be used changes nothing."""

from __future__ import annotations

import asyncio
import functools
import json
import os
import signal
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st
from nats.errors import Error as NatsError

from broker_auth.certificates.verifier import PeerVerifier
from broker_auth.daemon.prepared import Prepared
from broker_auth.daemon.revocations import MAX_LINE, Follower, RevocationFeed
from broker_auth.deploy.pki import Pair
from broker_auth.files.writing import write_private
from broker_auth.policy.crls import CrlSet
from broker_auth.policy.revocation_index import NO_REVOCATIONS, Revocations
from broker_auth.sandbox.natsserver import free_port
from broker_auth.sandbox.service import ServiceProcess
from broker_auth.settings.crls import read_crls
from broker_auth.settings.revocation_store import create
from tests.builders.certificates import NOT_BEFORE
from tests.builders.clock import HOUR
from tests.builders.crls import crl, many, pem
from tests.builders.peers import authority, parsed
from tests.callout.deployment import FleetDeployment, eventually
from tests.cli.running import run
from tests.daemon.descriptors import no_descriptors

ROOTS = [parsed(authority())]
SERIALS = st.sets(st.integers(1, 6), max_size=4)


def feed_of(*paths: Path) -> RevocationFeed:
    """Return the feed of a configuration that was just loaded; no other setting is used."""
    crls = CrlSet(read_crls(paths, ROOTS))
    settings: Any = type("Settings", (), {"revocations": None, "client_crl": paths})
    policy: Any = type("Policy", (), {"revocations": NO_REVOCATIONS.with_crls(crls), "peers": PeerVerifier(ROOTS)})
    return RevocationFeed(Prepared(cast("Any", settings), cast("Any", policy), {}))


def followed(feed: RevocationFeed, follower: Follower, state: Revocations) -> Revocations:
    """Return the state of a worker after the feed has read everything that has changed."""
    for _ in feed.crls.troubles, *range(1000):
        for line in feed.look():
            assert len(line) < MAX_LINE
            state = follower.take(line) or state
        if not feed.crls.busy:
            break
    return state


def content(revocations: Revocations) -> list[tuple[object, ...]]:
    return [(one.issuer, one.name, one.serials, one.this_update, one.next_update) for one in revocations.crls.crls]


@given(st.lists(st.tuples(st.sampled_from(["write", "old", "cut", "remove", "restart"]), SERIALS), max_size=8))
def test_worker_decides_by_the_last_good_crl(steps: list[tuple[str, set[int]]]) -> None:
    with tempfile.TemporaryDirectory() as directory:
        path, other = Path(directory) / "fleet.crl", Path(directory) / "other.crl"
        good = crl(authority(), this_update=HOUR)
        path.write_bytes(good)
        other.write_bytes(crl(authority(), 77))
        feed = feed_of(path, other)
        follower, state = Follower(feed.current), feed.current
        for number, (what, serials) in enumerate(steps, start=2):
            match what:
                case "write":
                    good = crl(authority(), *serials, this_update=number * HOUR)
                    path.write_bytes(good)
                case "old":
                    path.write_bytes(crl(authority(), *serials, this_update=0))
                case "cut":
                    path.write_bytes(crl(authority(), *serials)[:-1])
                case "remove":
                    path.unlink(missing_ok=True)
                case "restart":  # a worker that is replaced is forked with the state of the supervisor
                    follower, state = Follower(feed.current), feed.current
            state = followed(feed, follower, state)
            path.with_name("good").write_bytes(good)
            expected = NO_REVOCATIONS.with_crls(CrlSet(read_crls([path.with_name("good"), other], ROOTS)))
            assert content(feed.current) == content(state) == content(expected)
            if what != "restart":
                assert bool(feed.crls.troubles) == (what != "write")


def test_long_crl_is_read_in_steps_and_sent_in_parts(tmp_path: Path) -> None:
    path = tmp_path / "fleet.crl"
    path.write_bytes(crl(authority()))
    feed = feed_of(path)
    follower, state = Follower(feed.current), feed.current
    assert feed.look() == []
    path.write_bytes(pem(crl(authority(), *many(7000)), crl(authority(), 5)))
    assert feed.look() == []
    assert feed.crls.busy
    state = followed(feed, follower, state)
    assert [len(one.serials) for one in state.crls.crls] == [7000, 1]
    assert content(state) == content(feed.current)


def test_file_that_was_only_touched_is_not_read_again(tmp_path: Path) -> None:
    path = tmp_path / "fleet.crl"
    path.write_bytes(crl(authority(), 5))
    feed = feed_of(path)
    held = feed.current
    path.write_bytes(path.read_bytes())
    assert (feed.look(), feed.crls.busy) == ([], False)
    assert feed.current is held


def test_file_that_could_not_be_opened_for_a_while_is_read_then(tmp_path: Path) -> None:
    path = tmp_path / "fleet.crl"
    path.write_bytes(crl(authority()))
    feed = feed_of(path)
    path.write_bytes(crl(authority(), 5))
    with no_descriptors():
        assert feed.look() == []
    assert "Too many open files" in feed.crls.troubles[path]
    state = followed(feed, Follower(feed.current), feed.current)
    assert [len(one.serials) for one in state.crls.crls] == [1]
    assert not feed.crls.troubles


def test_each_crl_of_a_ca_may_only_be_replaced_by_a_later_one(tmp_path: Path) -> None:
    path = tmp_path / "fleet.crl"
    older, old, newest = (crl(authority(), 5, this_update=NOT_BEFORE + hours * HOUR) for hours in (0, 1, 3))
    path.write_bytes(pem(old, newest))
    feed = feed_of(path)
    follower, state = Follower(feed.current), feed.current
    path.write_bytes(pem(older, newest))
    state = followed(feed, follower, state)
    assert "holds an older CRL of 'CN=fleet CA'" in "".join(feed.crls.troubles.values())
    newer = crl(authority(), 6, this_update=NOT_BEFORE + 4 * HOUR)
    path.write_bytes(pem(newer, newest))
    assert len(followed(feed, follower, state).crls.crls) == 2
    assert not feed.crls.troubles


def test_crl_that_is_missing_from_its_file_stays_in_force(tmp_path: Path) -> None:
    """As if the file were half written."""
    path = tmp_path / "fleet.crl"
    both = pem(crl(authority(), 5), crl(authority(), 6))
    path.write_bytes(both)
    feed = feed_of(path)
    follower, state = Follower(feed.current), feed.current
    path.write_bytes(both[: both.index(b"-----BEGIN", 1)])
    state = followed(feed, follower, state)
    assert [len(one.serials) for one in state.crls.crls] == [1, 1]
    (trouble,) = feed.crls.troubles.values()
    assert "holds fewer CRLs of 'CN=fleet CA' than are in force (1 instead of 2)" in trouble
    path.write_bytes(both + pem(crl(authority(), 7)))
    state = followed(feed, follower, state)
    assert len(state.crls.crls) == 3
    assert not feed.crls.troubles


def test_entries_are_limited_over_all_files(tmp_path: Path) -> None:
    paths = tmp_path / "a.crl", tmp_path / "b.crl"
    for path in paths:
        path.write_bytes(pem(*[crl(authority(), 5)] * 32))
    feed = feed_of(*paths)
    paths[0].write_bytes(pem(*[crl(authority(), 5)] * 33))
    followed(feed, Follower(feed.current), feed.current)
    (trouble,) = feed.crls.troubles.values()
    assert "a.crl makes more than 64 CRLs" in trouble
    assert len(feed.current.crls.crls) == 64


# --- The running service


class Fleet(FleetDeployment):
    """A deployment whose CA publishes a CRL, with two members besides the service."""

    def __init__(self, directory: Path) -> None:
        super().__init__(directory)
        self.members = {name: self.authority.client(f"{name}.example.net") for name in ("stolen", "other")}
        for name, pair in self.members.items():
            self.write_pair(pair, name)
        self.metrics = f"127.0.0.1:{free_port()}"
        self.moment = time.time() - HOUR
        self.publish()
        create(directory / "revoked.json")

    def configure(self, expired: str) -> None:
        self.write_config(
            "plugin.broker_auth.client_crl = fleet.crl",
            f"plugin.broker_auth.client_crl_expired = {expired}",
            "plugin.broker_auth.revocations = revoked.json",
            "plugin.broker_auth.pid_file = pid",
            "plugin.broker_auth.audit.output = file:audit.jsonl",
            "plugin.broker_auth.audit.requests = true",
        )

    def publish(self, *revoked: Pair, ends: float = HOUR) -> None:
        """Replace the CRL by a newer one, which expires in ``ends`` seconds."""
        self.moment += 1
        numbers = [pair.certificate.serial_number for pair in revoked]
        self.put(crl(self.authority, *numbers, this_update=self.moment, next_update=time.time() + ends))

    def put(self, data: bytes) -> None:
        write_private(self.directory / "fleet.crl", data)

    async def gets_in(self, member: str) -> bool:
        try:
            client = await self.connect(pair=member)
        except NatsError:
            return False
        await client.close()
        return True

    async def until(self, member: str, *, admitted: bool) -> None:
        """Wait until several connections in a row are decided like this: by each worker."""
        row = 0
        while row < 6:
            row = row + 1 if await self.gets_in(member) == admitted else 0

    def troubles(self) -> list[str]:
        with urllib.request.urlopen(f"http://{self.metrics}/healthz", timeout=10) as answer:
            lines: list[str] = json.load(answer)["troubles"]
        return lines

    def metric(self, name: str) -> str:
        with urllib.request.urlopen(f"http://{self.metrics}/metrics", timeout=10) as answer:
            text: str = answer.read().decode()
        return next(line.rpartition(" ")[2] for line in text.splitlines() if line.startswith(f"broker_auth_{name}"))


@pytest.fixture(scope="module")
def deployed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    fleet = Fleet(tmp_path_factory.mktemp("crls"))
    fleet.configure("keep")
    with fleet.running():
        yield fleet


@pytest.fixture(scope="module")
def service(deployed: Fleet) -> Iterator[ServiceProcess]:
    with deployed.service("--workers", "2", BROKER_AUTH_METRICS_LISTEN=deployed.metrics) as running:
        yield running


@pytest.mark.e2e
async def test_member_is_denied_once_its_ca_lists_it_and_nobody_else_is(
    deployed: Fleet, service: ServiceProcess
) -> None:
    stolen = deployed.members["stolen"]
    session, other = await deployed.connect(pair="stolen"), await deployed.connect(pair="other")
    workers = service.workers
    deployed.publish(stolen)
    await deployed.until("stolen", admitted=False)
    assert await deployed.gets_in("other")
    assert await deployed.gets_in("client")
    assert service.workers == workers
    assert deployed.metric("crl_entries") == "1.0"
    serial = f"{stolen.certificate.serial_number:x}"
    for command in ("why", "replay"):
        shown = await asyncio.to_thread(run, command, *_arguments(command, deployed))
        assert "revoked" in shown.out, shown
        assert command == "replay" or serial in shown.out
    await session.flush()
    swept = await asyncio.to_thread(run, "sweep", "--end", "--config", deployed.config)
    assert "1 session ended" in swept.out, (swept.out, swept.err)
    await eventually(lambda: session.is_closed)
    await other.close()
    deployed.publish()
    await deployed.until("stolen", admitted=True)


def _arguments(command: str, deployed: Fleet) -> list[object]:
    audit = deployed.directory / "audit.jsonl"
    if command == "why":
        return ["stolen.example.net", "--audit", audit]
    return [audit, "--config", deployed.config]


def _reports(deployed: Fleet, message: str) -> bool:
    return any(message in line for line in deployed.troubles())


@pytest.mark.e2e
async def test_listed_stays_listed_while_the_file_cannot_be_used(deployed: Fleet, service: ServiceProcess) -> None:
    deployed.publish(deployed.members["stolen"])
    await deployed.until("stolen", admitted=False)
    good = (deployed.directory / "fleet.crl").read_bytes()
    older = crl(deployed.authority, this_update=deployed.moment - HOUR)
    foreign = crl(authority("foreign CA"))
    for damaged, message in (
        (good[:-1], "cannot be read"),
        (foreign, "not a CA in client_ca"),
        (older, "holds an older CRL"),
    ):
        deployed.put(damaged)
        await eventually(functools.partial(_reports, deployed, message))
        assert not await deployed.gets_in("stolen")
        assert await deployed.gets_in("other")
    mark = service.mark()
    for worker in service.workers:
        os.kill(worker, signal.SIGKILL)
    await eventually(lambda: sum("subscribed at" in line for line in service.log(mark)) >= 2)
    await deployed.until("stolen", admitted=False)
    deployed.put(good)
    await eventually(lambda: not deployed.troubles())
    deployed.publish()
    await deployed.until("stolen", admitted=True)


@pytest.mark.e2e
async def test_expired_crl_is_reported_and_denies_those_who_are_listed_or_all(
    deployed: Fleet, service: ServiceProcess
) -> None:
    deployed.publish(deployed.members["stolen"], ends=-1)
    await deployed.until("stolen", admitted=False)
    assert await deployed.gets_in("other")
    assert "the CRL of 'CN=broker-auth development CA' expired on" in deployed.troubles()[0]
    doctor = await asyncio.to_thread(run, "config", "check", deployed.config)
    assert "expired on" in doctor.err
    for expired, admitted in (("deny", False), ("keep", True)):
        deployed.configure(expired)
        mark = service.mark()
        service.signal(signal.SIGHUP)
        service.wait_for_log("reloaded", since=mark)
        await deployed.until("other", admitted=admitted)
    deployed.configure("deny")
    mark = service.mark()
    service.signal(signal.SIGHUP)
    service.wait_for_log("reloaded", since=mark)
    deployed.publish(deployed.members["stolen"])
    await deployed.until("other", admitted=True)
    assert not await deployed.gets_in("stolen")
    assert not deployed.troubles()
