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

from broker_auth.hosts.sealed_bucket import SealedBucket
from broker_auth.natsio import bucket as buckets
from broker_auth.natsio.bucket import CREATE, NODES, OUTPOSTS, REVOCATIONS, Bucket, BucketError, BucketSpec
from broker_auth.natsio.client import round_trip
from broker_auth.natsio.nkey import NkeyKind, generate_seed
from broker_auth.natsio.subjects import (
    AUTH_QUEUE,
    AUTH_REQUEST_SUBJECT,
    BUCKET_INBOX,
    CALLOUT_ACCOUNT,
    PEERS_SUBJECT,
    READER_API,
    reader_account,
)
from broker_auth.operate.streams.change import change_buckets
from broker_auth.secret import Secret
from tests.deploy.responder import connect_nkey
from tests.deploy.shapes import Topology, build, with_readers
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
        assert settings.buckets[: len(BUCKETS)] == BUCKETS
        self.buckets = [Bucket(service, spec) for spec in BUCKETS]
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
    await asyncio.gather(*(request(spec.prefix + KEY, b"", {"Nats-Rollup": "all"}) for spec in BUCKETS))
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
    attacks = await asyncio.gather(*map(attack, clients.values()))
    for who, received in zip(clients, attacks, strict=True):
        seen = encoded(received)
        assert SECRET not in seen, who
        assert ENCODED not in seen, who
    assert await untouched(deployment)
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


AWAY: Final = "away"  # a zone whose servers and hosts are elsewhere
HIDDEN: Final = b"what another zone wrote"
MOST: Final = 16  # connections of a reader


@pytest.fixture(params=["single", "edge", "websocket"])
async def readers(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Bucketed]:
    topology: Topology = request.param
    running = Bucketed(with_readers(build(tmp_path, topology), AWAY, "other"))
    try:
        await running.start()
        await Bucket(running.buckets[0]._client, OUTPOSTS).put("other", HIDDEN, CREATE)
        yield running
    finally:
        await running.stop()


async def reader(deployment: Bucketed, url: str = "") -> Client:
    """Log in as a thief of what a host of the zone has: its seed, and a certificate if the listener requires one."""
    tls = deployment.shape.tls() if url else deployment.tls("fleet")
    client = await buckets.connect(url or deployment.shape.url("fleet"), Secret(deployment.shape.reader[AWAY]), tls)
    deployment._clients.append(client)
    return client


async def test_reader_follows_the_bucket_and_writes_its_own_key(readers: Bucketed) -> None:
    websocket = readers.shape.broker("fleet").server.websocket_listen
    for url in ("", f"wss://{websocket}") if websocket else ("",):
        client = await reader(readers, url)
        bucket = Bucket(client, REVOCATIONS, READER_API)
        state = await bucket.state()
        assert state == await readers.buckets[0].state()
        entries, last = await bucket.read(0, state.last)
        assert [(entry.key, entry.value, last) for entry in entries] == [(KEY, SECRET, 1)]
        assert await bucket.read(last, state.last) == ([], last)
        own = Bucket(client, OUTPOSTS, READER_API)
        before = await own.get_own(AWAY)
        revision = await own.put(AWAY, b"{}", before.revision if before else CREATE, ttl=60)
        entry = await own.get_own(AWAY)
        assert entry is not None
        assert (entry.key, entry.value, entry.revision) == (AWAY, b"{}", revision)


async def test_reader_understands_records_and_nothing_else_in_the_bucket(tmp_path: Path) -> None:
    readers = Bucketed(with_readers(build(tmp_path, "single"), AWAY))
    try:
        await readers.start()
        client, seed = readers.buckets[0]._client, readers.shape.zone("fleet").nkey_seed
        assert seed
        hosts = SealedBucket(client, seed)
        for key in ("host.x", "question.x.0"):
            await hosts.put(key, HIDDEN, CREATE, ttl=60)
        entry = await hosts.get("host.x")
        assert entry is not None
        assert entry.value == HIDDEN
        assert [one.value for one in await hosts.entries("question")] == [HIDDEN]
        state = await hosts.state()
        assert [one.value for one in (await hosts.read(0, state.last))[0]] == [SECRET, HIDDEN, HIDDEN]
        read, _ = await Bucket(await reader(readers), REVOCATIONS, READER_API).read(0, state.last)
        assert [one.value == SECRET for one in read] == [True, False, False]
        assert HIDDEN not in b"".join(one.value for one in read)
        stranger = SealedBucket(client, Secret(generate_seed(NkeyKind.USER)))
        assert [one.value for one in await stranger.entries("host")] == [b""]
    finally:
        await readers.stop()


async def test_thief_of_a_reader_learns_what_was_revoked_and_takes_part_in_nothing(readers: Bucketed) -> None:
    shape, overheard = readers.shape, []

    async def note(message: Msg) -> None:
        overheard.append(message)

    service = readers.buckets[0]._client
    for subject in (PEERS_SUBJECT, f"{BUCKET_INBOX}.watched.>"):
        await service.subscribe(subject, cb=note)
    await service.subscribe(AUTH_REQUEST_SUBJECT, AUTH_QUEUE, cb=note)
    thief = await reader(readers)
    allowed = [subject.replace("$JS.API.", READER_API) for subject in REVOCATIONS.followed]
    own = [subject.replace("$JS.API.", READER_API) for subject in OUTPOSTS.of_key(AWAY)]
    for subject in (PEERS_SUBJECT, AUTH_REQUEST_SUBJECT, f"{BUCKET_INBOX}.watched.x"):
        await thief.publish(subject, b"forged")
        for asked in (*allowed, *own):  # JetStream answers to any subject that a request names
            await thief.publish(asked, b'{"seq": 1}' if asked in allowed[1:] else b"", reply=subject)
    received = await attack(thief)
    received += await attack_as_reader(thief)
    seen = encoded(received)
    shown = b"\n".join(json.dumps(message.headers or {}).encode() for message in received)
    assert SECRET in seen
    assert NODES.name.encode() not in seen + shown
    assert HIDDEN not in seen
    assert base64.b64encode(HIDDEN) not in seen
    assert await untouched(readers)
    other = await Bucket(service, OUTPOSTS).get("other")
    assert other is not None
    assert (other.value, other.revision) == (HIDDEN, 1)
    await thief.flush()
    await round_trip(service)
    assert overheard == []
    for broker in shape.settings.brokers[1:]:
        with pytest.raises(NatsError, match="Authorization"):
            await connect_nkey(shape.url(broker.name), readers.tls(broker.name), shape.reader[AWAY])


async def attack_as_reader(thief: Client) -> list[Msg]:
    """Use every request of JetStream by the names in the account of a reader, and every subject of the service."""
    received: list[Msg] = []

    async def note(message: Msg) -> None:
        received.append(message)

    async def request(subject: str, payload: bytes) -> None:
        with contextlib.suppress(NatsError, TimeoutError):
            received.append(await thief.request(subject, payload, timeout=SECONDS))

    for subject in (AUTH_REQUEST_SUBJECT, PEERS_SUBJECT, "$SRV.>", "$SYS.>", "_INBOX.>", f"{READER_API}>"):
        await thief.subscribe(subject, cb=note)
    await thief.subscribe(AUTH_REQUEST_SUBJECT, AUTH_QUEUE, cb=note)
    verbs = API | requests(OUTPOSTS) | {"STREAM.INFO.KV_OTHER": None, "STREAM.NAMES": None, "INFO": None}
    calls = [
        (f"{prefix}{verb}", b"" if body is None else json.dumps(body).encode())
        for verb, body in verbs.items()
        for prefix in (READER_API, "$JS.API.")
    ]
    key = f"{OUTPOSTS.prefix}other"
    calls += [(f"{READER_API}DIRECT.GET.{OUTPOSTS.stream}.{key}", b""), (key, b"overwritten")]
    own = f"{READER_API}DIRECT.GET.{OUTPOSTS.stream}.{OUTPOSTS.prefix}{AWAY}"
    calls.append((own, json.dumps({"last_by_subj": key}).encode()))
    await asyncio.gather(*(request(*call) for call in calls))
    return received


async def test_reader_has_a_few_connections_and_one_value(tmp_path: Path) -> None:
    readers = Bucketed(with_readers(build(tmp_path, "single"), AWAY))
    try:
        await readers.start()
        *others, large, first = [await reader(readers) for _ in range(MOST)]
        with pytest.raises(BucketError, match="maximum account active connections"):
            await reader(readers)
        assert all(client.is_connected for client in others)
        own = Bucket(first, OUTPOSTS, READER_API)
        with pytest.raises(BucketError):  # ends the connection
            await Bucket(large, OUTPOSTS, READER_API).put(AWAY, b"x" * OUTPOSTS.max_value, CREATE)
        await own.put(AWAY, b"x" * (OUTPOSTS.max_value - 200), CREATE)
        assert (await Bucket(readers.buckets[0]._client, OUTPOSTS).state()).last == 1
        assert reader_account(AWAY) not in (CALLOUT_ACCOUNT, *dataclasses.astuple(readers.shape.settings.accounts))
    finally:
        await readers.stop()
