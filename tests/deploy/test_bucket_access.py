"""The buckets of the service are its own: no other user reads, writes, rolls back or fills them."""

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
from broker_auth.natsio.bucket import CREATE, NODES, REVOCATIONS, Bucket, BucketSpec
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
KEY: Final = "record.a"
BUCKETS: Final = (REVOCATIONS, NODES)
SECONDS: Final = 1.0  # for requests that nothing answers, all at the same time


def requests(spec: BucketSpec) -> dict[str, Any]:
    """Return every request to JetStream that concerns a bucket."""
    stream, key = spec.stream, spec.prefix + KEY
    return {
        f"STREAM.INFO.{stream}": {"subjects_filter": ">"},
        f"STREAM.MSG.GET.{stream}": {"last_by_subj": key},
        f"DIRECT.GET.{stream}": {"last_by_subj": key},
        f"DIRECT.GET.{stream}.{key}": None,
        f"STREAM.SNAPSHOT.{stream}": {"deliver_subject": "snapshot"},
        f"STREAM.MSG.DELETE.{stream}": {"seq": 1},
        f"STREAM.PURGE.{stream}": None,
        f"STREAM.UPDATE.{stream}": spec.config(1) | {"max_bytes": 1},
        f"STREAM.DELETE.{stream}": None,
        f"STREAM.RESTORE.{stream}": {"config": spec.config(1), "state": {}},
        f"CONSUMER.CREATE.{stream}": {"stream_name": stream, "config": {"deliver_subject": "consumed"}},
        f"STREAM.CREATE.COPY-{stream}": {"name": f"COPY-{stream}", "mirror": {"name": stream}, "storage": "memory"},
    }


API: Final = {subject: body for spec in BUCKETS for subject, body in requests(spec).items()} | {
    f"ACCOUNT.PURGE.{CALLOUT_ACCOUNT}": None
}


class Bucketed(Deployment):
    """A deployment with the buckets of the service, each of which holds a value."""

    buckets: list[Bucket]

    async def start(self) -> None:
        await super().start()
        settings = self.shape.settings
        seed = self.shape.zone("fleet").nkey_seed
        assert seed
        service = await buckets.connect(self.shape.url("fleet"), seed, self.tls("fleet"))
        self._clients.append(service)
        await change_buckets(service, settings, 1, dry_run=False)
        assert settings.buckets == BUCKETS
        self.buckets = [Bucket(service, spec) for spec in settings.buckets]
        for bucket in self.buckets:
            await bucket.put(KEY, SECRET, CREATE)


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

    for subject in (
        *(f"{spec.prefix}>" for spec in BUCKETS),
        "$KV.>",
        "$JS.>",
        "snapshot",
        "consumed",
        f"{BUCKET_INBOX}.>",
        ">",
    ):
        await client.subscribe(subject, cb=note)
    values = {KEY: b"overwritten", "record.b": b"filled", "host.x": b"{}", "token.x": b"{}"}
    writes = {spec.prefix + key: value for spec in BUCKETS for key, value in values.items()}
    calls = [(f"$JS.API.{verb}", b"" if body is None else json.dumps(body).encode()) for verb, body in API.items()]
    calls += writes.items()
    foreign = {"Nats-Request-Info": json.dumps({"acc": CALLOUT_ACCOUNT})}
    await asyncio.gather(*(request(*call, headers) for call in calls for headers in (None, foreign)))
    for spec in BUCKETS:
        await request(spec.prefix + KEY, b"", {"Nats-Rollup": "all"})
    return received


async def untouched(deployment: Bucketed) -> bool:
    for bucket in deployment.buckets:
        entry, state = await bucket.get(KEY), await bucket.state()
        if entry is None or (entry.value, entry.revision, state.last) != (SECRET, 1, 1):
            return False
    return True


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
    client = deployment.buckets[0]._client
    seen = encoded(await attack(client))
    assert SECRET in seen or ENCODED in seen
    assert all([await bucket.get(KEY) is not None for bucket in deployment.buckets])


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
        for subject in ("stolen", *(f"{spec.prefix}>" for spec in BUCKETS), f"{BUCKET_INBOX}.>"):
            await link.send(f"LS+ {subject}\r\n")
        for spec in BUCKETS:
            await link.send(f"LMSG {spec.prefix}{KEY} 4\r\nlost\r\n")
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
        assert b"KV_BROKER_AUTH" not in text
        await round_trip(deployment.buckets[0]._client)
        assert await untouched(deployment)
        await link.close()
    finally:
        await deployment.stop()
