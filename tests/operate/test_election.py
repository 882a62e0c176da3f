"""Two provisioners elect a leader by a bucket of the fleet, which they reach from the provisioning account.

Fact 19, with the real service deciding who is a provisioner, over real TLS.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack
from dataclasses import replace
from typing import Final

import pytest
from nats.aio.client import Client
from nats.errors import Error as NatsError

from broker_auth.operate.access import Access, Login, connect, request_json
from broker_auth.operate.streams.change import change_streams
from broker_auth.secret import Secret
from tests.deadlines import HANG_SECONDS
from tests.operate.site import Site

pytestmark = pytest.mark.e2e
BUCKET: Final = "CHORIA_LEADER_ELECTION"  # as Choria's clients name it
OWN_BUCKET: Final = "CHORIA_PROVISIONER_ELECTION"  # what they get
LIFETIME: Final = 2.0  # seconds; shorter than the configuration allows, because a test waits for it
KEY: Final = f"$KV.{BUCKET}.provisioner"
WRONG_LAST_SEQUENCE: Final = (10071, 10164)  # the second on replicated streams


class Candidate:
    """Campaigns as Choria's provisioner does: one key, written only if nobody else wrote it meanwhile."""

    def __init__(self, name: str, client: Client, prefix: str = "", key: str = KEY) -> None:
        self.name = name
        self.client = client
        self.sequence = 0
        self._subject = prefix + key

    async def campaign(self) -> bool:
        """Take the lead, or keep it."""
        headers = {"Nats-Expected-Last-Subject-Sequence": str(self.sequence)}
        reply = await self.client.request(self._subject, self.name.encode(), timeout=HANG_SECONDS, headers=headers)
        answer = json.loads(reply.data)
        if error := answer.get("error"):
            assert error["err_code"] in WRONG_LAST_SEQUENCE, error
            self.sequence = 0
            return False
        self.sequence = answer["seq"]
        return True


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    with Site(tmp_path_factory.mktemp("site")).running() as running:
        settings = running.settings()
        streams = replace(settings.streams, provisioner_election_ttl=LIFETIME)
        access = Access(settings=replace(settings, streams=streams))
        asyncio.run(change_streams(access, dry_run=False))
        yield running


@pytest.fixture
async def provisioners(site: Site) -> AsyncIterator[list[Client]]:
    access = site.access(certificate=site.directory / "provisioner.pem", key=site.directory / "provisioner.key")
    async with AsyncExitStack() as stack:
        clients = [await access.provisioner(site.settings().brokers[0]) for _ in range(2)]
        for client in clients:
            stack.push_async_callback(client.close)
        yield clients


async def until_won(candidate: Candidate) -> None:
    async with asyncio.timeout(HANG_SECONDS):
        while not await candidate.campaign():
            await asyncio.sleep(0.05)


async def test_one_leads_and_the_other_takes_over_when_it_stops(provisioners: list[Client]) -> None:
    # The second is a client that puts a prefix before all its stream subjects, as Choria's does.
    first, second = Candidate("p1", provisioners[0]), Candidate("p2", provisioners[1], "choria.streams.")
    await until_won(first)
    for _ in range(5):
        began = asyncio.get_running_loop().time()
        before = first.sequence
        assert await first.campaign()
        assert first.sequence > before
        assert not await second.campaign()
    await until_won(second)
    assert asyncio.get_running_loop().time() - began > LIFETIME * 0.8
    stale = first.sequence
    assert not await first.campaign(), "the old leader goes on leading"
    assert second.sequence > stale
    assert await second.campaign()


async def test_the_fleet_sees_who_leads(site: Site, provisioners: list[Client]) -> None:
    candidate = Candidate("the leader", provisioners[0])
    await until_won(candidate)
    fleet = await site.access().fleet(site.settings().brokers[0])
    try:
        bucket = await fleet.jetstream().key_value(OWN_BUCKET)
        assert (await bucket.get("provisioner")).value == b"the leader"
    finally:
        await fleet.close()


async def test_provisioners_see_the_bucket_and_no_other_stream(provisioners: list[Client]) -> None:
    info = await request_json(provisioners[0], f"choria.streams.STREAM.INFO.KV_{BUCKET}")
    assert info["config"]["name"] == f"KV_{OWN_BUCKET}"
    for subject in ("choria.streams.STREAM.INFO.CHORIA_EVENTS", f"$KV.{BUCKET}.other", f"$KV.{OWN_BUCKET}.other"):
        with pytest.raises(NatsError):
            await provisioners[0].request(subject, b"", timeout=HANG_SECONDS)


async def test_a_client_that_goes_on_with_the_name_it_is_told_is_elected(provisioners: list[Client]) -> None:
    """nats.go, and so Choria, takes the bucket's name from the stream's configuration (mapStreamToKVS in kv.go)."""
    api = "choria.streams.STREAM.INFO."
    told = (await request_json(provisioners[0], f"{api}KV_{BUCKET}"))["config"]["name"]
    assert (await request_json(provisioners[0], api + told))["config"]["name"] == told
    key = f"$KV.{told.removeprefix('KV_')}.provisioner"
    candidate = Candidate("p1", provisioners[0], "choria.streams.", key)
    await until_won(candidate)
    assert not await Candidate("p2", provisioners[1]).campaign(), "one key under every name"
    assert await candidate.campaign()


async def test_a_provisioner_cannot_see_or_erase_other_elections(site: Site, provisioners: list[Client]) -> None:
    """A stolen edge can do what a provisioner can: its link carries the whole provisioning account."""
    fleet = await site.access().fleet(site.settings().brokers[0])
    try:
        others = await fleet.jetstream().key_value(BUCKET)
        await until_won(Candidate("p1", provisioners[0]))
        for headers in (
            {"Nats-Rollup": "all"},
            {"Nats-Rollup": "sub"},
            {"KV-Operation": "PURGE", "Nats-Rollup": "sub"},
            {"Nats-TTL": "1s"},
        ):
            await others.put("other", b"leads")  # just now, because keys here live for two seconds
            reply = await provisioners[0].request(KEY, b"", timeout=HANG_SECONDS, headers=headers)
            assert "error" in json.loads(reply.data), headers
            assert (await others.get("other")).value == b"leads"
        question = {"subjects_filter": ">"}
        info = await request_json(provisioners[0], f"choria.streams.STREAM.INFO.KV_{BUCKET}", question)
        assert set(info["state"].get("subjects") or {}) <= {f"$KV.{OWN_BUCKET}.provisioner"}
    finally:
        await fleet.close()


async def test_a_waiting_node_cannot_campaign(site: Site) -> None:
    login = Login(what="a node", token=Secret(site.provisioning_token()), name="node1.example.net")
    node = await connect(site.url("edge"), login, site.access().tls(site.settings().brokers[1]))
    refused: asyncio.Queue[str] = asyncio.Queue()

    async def keep(error: Exception) -> None:
        refused.put_nowait(str(error).lower())

    node._error_cb = keep
    try:
        await node.publish(KEY, b"node")
        assert "permissions violation for publish" in await asyncio.wait_for(refused.get(), 5)
    finally:
        await node.close()


async def test_creating_twice_is_a_lost_race(provisioners: list[Client]) -> None:
    """Both find no leader at the same moment: exactly one wins."""
    candidates = [Candidate(f"racer {number}", client) for number, client in enumerate(provisioners)]
    won: list[bool] = []
    async with asyncio.timeout(HANG_SECONDS):
        while not any(won):
            won = await asyncio.gather(*(candidate.campaign() for candidate in candidates))
            await asyncio.sleep(0.05)
    assert sorted(won) == [False, True]
