"""The bucket of revocations is the service's alone: no other user reads, writes, rolls back or fills it."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import dataclasses
import json
import ssl
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, Final

import pytest
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.errors import Error as NatsError

from broker_auth.natsio import bucket as buckets
from broker_auth.natsio.bucket import CREATE, REVOCATIONS, Bucket
from broker_auth.natsio.client import round_trip
from broker_auth.natsio.subjects import BUCKET_INBOX, CALLOUT_ACCOUNT
from broker_auth.operate.streams.change import change_buckets
from tests.deploy.responder import connect_nkey
from tests.deploy.shapes import Topology, build
from tests.deploy.test_topology import Deployment
from tests.nats_server.wire import Wire

pytestmark = pytest.mark.e2e
SECRET: Final = b"what was revoked"
ENCODED: Final = base64.b64encode(SECRET)  # as in answers of JetStream
KEY: Final = f"{REVOCATIONS.prefix}record.a"
SECONDS: Final = 1.0  # for requests that nothing answers, all at the same time
STREAM: Final = REVOCATIONS.stream
API: Final[dict[str, Any]] = {
    f"STREAM.INFO.{STREAM}": {"subjects_filter": ">"},
    f"STREAM.MSG.GET.{STREAM}": {"last_by_subj": KEY},
    f"DIRECT.GET.{STREAM}": {"last_by_subj": KEY},
    f"DIRECT.GET.{STREAM}.{KEY}": None,
    f"STREAM.SNAPSHOT.{STREAM}": {"deliver_subject": "snapshot"},
    f"STREAM.MSG.DELETE.{STREAM}": {"seq": 1},
    f"STREAM.PURGE.{STREAM}": None,
    f"STREAM.UPDATE.{STREAM}": REVOCATIONS.config(1) | {"max_bytes": 1},
    f"STREAM.DELETE.{STREAM}": None,
    f"STREAM.RESTORE.{STREAM}": {"config": REVOCATIONS.config(1), "state": {}},
    f"CONSUMER.CREATE.{STREAM}": {"stream_name": STREAM, "config": {"deliver_subject": "consumed"}},
    f"ACCOUNT.PURGE.{CALLOUT_ACCOUNT}": None,
}
COPY: Final = {"name": "COPY", "mirror": {"name": STREAM}, "storage": "memory"}


class Bucketed(Deployment):
    """A deployment with the bucket of revocations, which holds a value."""

    bucket: Bucket

    async def start(self) -> None:
        await super().start()
        settings = self.shape.settings
        seed = self.shape.zone("fleet").nkey_seed
        assert seed
        service = await buckets.connect(self.shape.url("fleet"), seed, self.tls("fleet"))
        self._clients.append(service)
        await change_buckets(service, settings, 1, dry_run=False)
        self.bucket = Bucket(service, REVOCATIONS)
        await self.bucket.put("record.a", SECRET, CREATE)


@pytest.fixture(params=["single", "edge", "websocket"])
async def deployment(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Bucketed]:
    topology: Topology = request.param
    shape = build(tmp_path, topology)
    settings = dataclasses.replace(shape.settings, revocations=tmp_path / "revoked.json", revocations_bucket=True)
    running = Bucketed(dataclasses.replace(shape, settings=settings))
    try:
        await running.start()
        yield running
    finally:
        await running.stop()


async def attack(client: Client) -> list[Msg]:
    """Read the bucket in every way, then change it in every way; return all messages that were received."""
    received: list[Msg] = []

    async def note(message: Msg) -> None:
        received.append(message)

    async def request(subject: str, payload: bytes, headers: dict[str, str] | None) -> None:
        with contextlib.suppress(NatsError, TimeoutError):
            received.append(await client.request(subject, payload, timeout=SECONDS, headers=headers))

    for subject in (f"{REVOCATIONS.prefix}>", "$KV.>", "$JS.>", "snapshot", "consumed", f"{BUCKET_INBOX}.>", ">"):
        await client.subscribe(subject, cb=note)
    writes = {KEY: b"overwritten", f"{REVOCATIONS.prefix}record.b": b"filled", f"{REVOCATIONS.prefix}host.x": b"{}"}
    calls = [(f"$JS.API.{verb}", b"" if body is None else json.dumps(body).encode()) for verb, body in API.items()]
    calls += [("$JS.API.STREAM.CREATE.COPY", json.dumps(COPY).encode()), *writes.items()]
    foreign = {"Nats-Request-Info": json.dumps({"acc": CALLOUT_ACCOUNT})}
    await asyncio.gather(*(request(*call, headers) for call in calls for headers in (None, foreign)))
    await request(KEY, b"", {"Nats-Rollup": "all"})
    return received


async def untouched(deployment: Bucketed) -> bool:
    entry, state = await deployment.bucket.get("record.a"), await deployment.bucket.state()
    return entry is not None and (entry.value, entry.revision, state.last) == (SECRET, 1, 1)


def encoded(received: list[Msg]) -> bytes:
    return b"\n".join(message.data for message in received)


async def test_no_member_node_provisioner_or_operator_reads_or_changes_the_bucket(deployment: Bucketed) -> None:
    shape, accounts = deployment.shape, deployment.shape.settings.accounts
    clients = {}
    for broker in shape.settings.brokers:
        zone_accounts = [accounts.provisioning, accounts.system] + [accounts.fleet] * (broker.name == "fleet")
        for account in zone_accounts:
            clients[broker.name, account] = await deployment.connect(broker.name, account)
        seed = shape.break_glass[broker.zone]
        clients[broker.name, "break-glass"] = await connect_nkey(
            shape.url(broker.name), deployment.tls(broker.name), seed
        )
    for who, client in clients.items():
        seen = encoded(await attack(client))
        assert SECRET not in seen, who
        assert ENCODED not in seen, who
        assert await untouched(deployment), who
    for broker in shape.settings.brokers:
        await clients[broker.name, "break-glass"].close()


async def test_service_reads_the_bucket_and_takes_nothing_out(deployment: Bucketed) -> None:
    """Shows that the attack above reads what its user may read."""
    client = deployment.bucket._client
    seen = encoded(await attack(client))
    assert SECRET in seen or ENCODED in seen
    assert await deployment.bucket.get("record.a") is not None


async def test_stolen_edge_reaches_nothing_of_the_bucket(tmp_path: Path) -> None:
    shape = build(tmp_path, "edge")
    settings = dataclasses.replace(shape.settings, revocations=tmp_path / "revoked.json", revocations_bucket=True)
    deployment = Bucketed(dataclasses.replace(shape, settings=settings))
    try:
        await deployment.start()
        edge = shape.zone("edge").nkey_seed
        assert edge
        with pytest.raises(NatsError, match="Authorization"):
            await connect_nkey(shape.url("fleet"), deployment.tls("fleet"), edge.reveal())
        await asyncio.to_thread(deployment.servers["edge"].kill)
        tls = ssl.create_default_context(cafile=str(shape.directory / "ca.pem"))
        files = shape.broker("edge").server.leaf_tls
        assert files.certificate
        tls.load_cert_chain(files.certificate, files.key)
        link = await Wire.open(deployment.servers["fleet"].port("leaf"), tls)
        await link.connect(name="thief", lang="")
        for subject in ("stolen", f"{REVOCATIONS.prefix}>", f"{BUCKET_INBOX}.>"):
            await link.send(f"LS+ {subject}\r\n")
        await link.send(f"LMSG {KEY} 4\r\nlost\r\n")
        for verb, body in API.items():
            data = "" if body is None else json.dumps(body)
            await link.send(f"LMSG $JS.API.{verb} stolen {len(data)}\r\n{data}\r\n")
        await link.send("PING\r\n")
        lines = [await link.line() for _ in range(2)]
        while lines[-1] and lines.count("PONG") < 2:
            lines.append(await link.line())
        text = "\n".join(lines).encode()  # JetStream answers that it is not enabled for the account of nodes
        assert SECRET not in text
        assert ENCODED not in text
        assert b"KV_BROKER_AUTH_REVOCATIONS" not in text
        await round_trip(deployment.bucket._client)
        assert await untouched(deployment)
        await link.close()
    finally:
        await deployment.stop()
