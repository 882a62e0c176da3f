"""Two provisioners elect a leader with a bucket of the fleet, which they reach from the provisioning account.

Fact 19, with the real service and real TLS.
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

from broker_auth.operate.access import Access
from broker_auth.operate.answers import request_json
from broker_auth.operate.logins import Login, connect
from broker_auth.operate.streams.change import change_streams
from broker_auth.secret import Secret
from tests.deadlines import HANG_SECONDS
from tests.operate.deployment import EdgeDeployment

pytestmark = pytest.mark.e2e
BUCKET: Final = "CHORIA_LEADER_ELECTION"  # as Choria's clients name it
OWN_BUCKET: Final = "CHORIA_PROVISIONER_ELECTION"  # what they get
LIFETIME: Final = 2.0  # seconds; shorter than the configuration allows, because a test waits for it
KEY: Final = f"$KV.{BUCKET}.provisioner"
WRONG_LAST_SEQUENCE: Final = (10071, 10164)  # the second on replicated streams


class Candidate:
    """A candidate like Choria's provisioner: it writes one key, unless another client has written it meanwhile."""

    def __init__(self, name: str, client: Client, prefix: str = "", key: str = KEY) -> None:
        self.name = name
        self.client = client
        self.sequence = 0
        self._subject = prefix + key

    async def campaign(self) -> bool:
        """Try to take or keep the lead; return whether it succeeded."""
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
def deployment(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EdgeDeployment]:
    with EdgeDeployment(tmp_path_factory.mktemp("deployment")).running() as running:
        settings = running.settings()
        streams = replace(settings.streams, provisioner_election_ttl=LIFETIME)
        access = Access(settings=replace(settings, streams=streams))
        asyncio.run(change_streams(access, dry_run=False))
        yield running


@pytest.fixture
async def provisioners(deployment: EdgeDeployment) -> AsyncIterator[list[Client]]:
    access = deployment.access(
        certificate=deployment.directory / "provisioner.pem", key=deployment.directory / "provisioner.key"
    )
    async with AsyncExitStack() as stack:
        clients = [await access.provisioner(deployment.settings().brokers[0]) for _ in range(2)]
        for client in clients:
            stack.push_async_callback(client.close)
        yield clients


async def until_won(candidate: Candidate) -> None:
    async with asyncio.timeout(HANG_SECONDS):
        while not await candidate.campaign():
            await asyncio.sleep(0.05)


async def test_other_provisioner_takes_over_when_the_leader_stops(provisioners: list[Client]) -> None:
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


async def test_fleet_can_read_the_leader(deployment: EdgeDeployment, provisioners: list[Client]) -> None:
    candidate = Candidate("the leader", provisioners[0])
    await until_won(candidate)
    fleet = await deployment.access().fleet(deployment.settings().brokers[0])
    try:
        bucket = await fleet.jetstream().key_value(OWN_BUCKET)
        assert (await bucket.get("provisioner")).value == b"the leader"
    finally:
        await fleet.close()


async def test_provisioners_can_read_only_the_bucket(provisioners: list[Client]) -> None:
    info = await request_json(provisioners[0], f"choria.streams.STREAM.INFO.KV_{BUCKET}")
    assert info["config"]["name"] == f"KV_{OWN_BUCKET}"
    for subject in ("choria.streams.STREAM.INFO.CHORIA_EVENTS", f"$KV.{BUCKET}.other", f"$KV.{OWN_BUCKET}.other"):
        with pytest.raises(NatsError):
            await provisioners[0].request(subject, b"", timeout=HANG_SECONDS)


async def test_client_that_uses_the_reported_bucket_name_is_elected(provisioners: list[Client]) -> None:
    """nats.go, and so Choria, takes the bucket's name from the stream's configuration (mapStreamToKVS in kv.go)."""
    api = "choria.streams.STREAM.INFO."
    reported = (await request_json(provisioners[0], f"{api}KV_{BUCKET}"))["config"]["name"]
    assert (await request_json(provisioners[0], api + reported))["config"]["name"] == reported
    key = f"$KV.{reported.removeprefix('KV_')}.provisioner"
    candidate = Candidate("p1", provisioners[0], "choria.streams.", key)
    await until_won(candidate)
    assert not await Candidate("p2", provisioners[1]).campaign(), "one key under every name"
    assert await candidate.campaign()


async def test_provisioner_cannot_read_or_erase_other_elections(
    deployment: EdgeDeployment, provisioners: list[Client]
) -> None:
    """A stolen edge can do what a provisioner can: its link carries the whole provisioning account."""
    fleet = await deployment.access().fleet(deployment.settings().brokers[0])
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


async def test_waiting_node_cannot_campaign(deployment: EdgeDeployment) -> None:
    login = Login(what="a node", token=Secret(deployment.provisioning_token()), name="node1.example.net")
    node = await connect(deployment.url("edge"), login, deployment.access().tls(deployment.settings().brokers[1]))
    refused: asyncio.Queue[str] = asyncio.Queue()

    async def keep(error: Exception) -> None:
        refused.put_nowait(str(error).lower())

    node._error_cb = keep
    try:
        await node.publish(KEY, b"node")
        assert "permissions violation for publish" in await asyncio.wait_for(refused.get(), 5)
    finally:
        await node.close()


async def test_only_one_of_two_simultaneous_candidates_wins(provisioners: list[Client]) -> None:
    """Both see that there is no leader at the same moment."""
    candidates = [Candidate(f"racer {number}", client) for number, client in enumerate(provisioners)]
    won: list[bool] = []
    async with asyncio.timeout(HANG_SECONDS):
        while not any(won):
            won = await asyncio.gather(*(candidate.campaign() for candidate in candidates))
            await asyncio.sleep(0.05)
    assert sorted(won) == [False, True]
