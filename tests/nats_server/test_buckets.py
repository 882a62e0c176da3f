"""Fact 33: a key-value bucket for a user that may use the subjects of its stream, and nothing else."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any, Final

import pytest
from nats.aio.client import Client
from nats.errors import NoRespondersError
from nats.errors import TimeoutError as NatsTimeout

from broker_auth.natsio import bucket as buckets
from broker_auth.natsio.bucket import CREATE, Bucket, BucketError, BucketSpec, ConflictError, MissingBucketError
from broker_auth.natsio.nkey import public_nkey
from broker_auth.natsio.subjects import BUCKET_INBOX
from broker_auth.sandbox.natsserver import NatsServer
from broker_auth.secret import Secret
from tests.deadlines import HANG_SECONDS
from tests.nats_server.site import Site

pytestmark = pytest.mark.e2e
SPEC: Final = BucketSpec("OWN", max_bytes=64 * 1024, max_value=1024)
YEAR: Final = 365.25 * 86_400  # seconds
REFUSAL_SECONDS: Final = 0.5  # for a request that nats-server does not answer, because it may not be published


async def serve(sandbox: Site) -> NatsServer:
    """Start a server with the bucket's account: the restricted user, and an unrestricted one."""
    path = sandbox.directory / "bucket.conf"
    path.write_text(f"""
        listen: "127.0.0.1:-1"
        jetstream {{ store_dir: "{sandbox.directory}/js" }}
        accounts {{
          OWN: {{
            jetstream: {{ max_memory: 0, max_file: {2 * SPEC.max_bytes}, max_streams: 1, max_consumers: 0 }}
            users: [
              {{ nkey: {public_nkey(sandbox.service)}, permissions: {{
                publish: {json.dumps(SPEC.published)}, subscribe: [ "{BUCKET_INBOX}.>" ] }} }}
              {{ user: unrestricted, password: x }}
            ]
          }}
          OTHER: {{ jetstream: enabled, users: [ {{ user: other, password: x }} ] }}
          SYS: {{ users: [ {{ nkey: {public_nkey(sandbox.operator)} }} ] }}
        }}
        system_account: SYS
    """)
    return await sandbox.start(path)


@pytest.fixture
async def server(sandbox: Site) -> NatsServer:
    return await serve(sandbox)


@pytest.fixture
async def bucket(sandbox: Site, server: NatsServer) -> AsyncIterator[Bucket]:
    client = await buckets.connect(f"nats://127.0.0.1:{server.port()}", Secret(sandbox.service), None)
    bucket = Bucket(client, SPEC)
    with pytest.raises(MissingBucketError, match="streams apply"):
        await bucket.state()
    assert "error" not in await api(client, f"STREAM.CREATE.{SPEC.stream}", SPEC.config(1))
    yield bucket
    await buckets.disconnect(client)


async def api(client: Client, verb: str, payload: Any = None, seconds: float = HANG_SECONDS) -> dict[str, Any]:
    data = b"" if payload is None else json.dumps(payload).encode()
    answer: dict[str, Any] = json.loads((await client.request(f"$JS.API.{verb}", data, timeout=seconds)).data)
    return answer


async def unrestricted(sandbox: Site, server: NatsServer) -> Client:
    return await sandbox.client(server, user="unrestricted", password="x")


async def test_fact_33_values_are_written_by_revision_and_read_without_a_consumer(
    bucket: Bucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(buckets, "_BATCH", 2)
    revisions = [await bucket.put(f"a.{n}", b"%d" % n, CREATE) for n in range(5)]
    for wrong in (CREATE, revisions[0] + 1):
        with pytest.raises(ConflictError):
            await bucket.put("a.0", b"lost", wrong)
    latest = await bucket.put("a.0", b"again", revisions[0])
    entry = await bucket.get("a.0")
    assert entry is not None
    assert (entry.value, entry.revision) == (b"again", latest)
    assert await bucket.get("a.9") is None
    last, read = (await bucket.state()).last, 0
    seen: dict[str, bytes] = {}
    while read < last:  # oldest first, in batches; the replaced value is gone
        entries, read = await bucket.read(read, last)
        seen |= {entry.key: entry.value for entry in entries}
    assert list(seen.items()) == [("a.1", b"1"), ("a.2", b"2"), ("a.3", b"3"), ("a.4", b"4"), ("a.0", b"again")]
    assert {entry.key for entry in await bucket.entries("a")} == set(seen)


async def test_fact_33_user_of_the_bucket_may_do_nothing_else(bucket: Bucket) -> None:
    await bucket.put("a", b"1", CREATE)
    verbs = (
        f"STREAM.DELETE.{SPEC.stream}",
        f"STREAM.PURGE.{SPEC.stream}",
        f"STREAM.MSG.DELETE.{SPEC.stream}",
        f"STREAM.SNAPSHOT.{SPEC.stream}",
        f"STREAM.RESTORE.{SPEC.stream}",
        f"CONSUMER.CREATE.{SPEC.stream}",
        "STREAM.CREATE.OTHER",
        "STREAM.NAMES",
        "INFO",
    )
    for verb in verbs:
        with pytest.raises((NoRespondersError, NatsTimeout)):
            await api(bucket._client, verb, {}, REFUSAL_SECONDS)
    assert (await bucket.state()).last == 1


async def test_fact_33_nobody_takes_values_out_of_the_bucket(sandbox: Site, server: NatsServer, bucket: Bucket) -> None:
    """An unrestricted user of the account could only delete the whole stream."""
    await bucket.put("a", b"1", CREATE)
    client = await unrestricted(sandbox, server)
    refusals = [
        await api(client, f"STREAM.PURGE.{SPEC.stream}"),
        await api(client, f"STREAM.MSG.DELETE.{SPEC.stream}", {"seq": 1}),
        await api(client, f"STREAM.UPDATE.{SPEC.stream}", {**SPEC.config(1), "deny_delete": False}),
        await api(client, f"STREAM.UPDATE.{SPEC.stream}", {**SPEC.config(1), "deny_purge": False}),
        await api(client, "STREAM.CREATE.MORE", {"name": "MORE", "subjects": ["more"], "max_bytes": 1}),
    ]
    assert [answer.get("error", {}).get("description") for answer in refusals] == [
        "stream purge not permitted",
        "message delete not permitted",
        "stream configuration update can not cancel deny message deletes",
        "stream configuration update can not cancel deny purge",
        "maximum number of streams reached",
    ]
    rollup = await client.request(f"{SPEC.prefix}a", b"x", timeout=HANG_SECONDS, headers={"Nats-Rollup": "all"})
    assert json.loads(rollup.data)["error"]["description"] == "rollup not permitted"
    entry = await bucket.get("a")
    assert entry is not None
    assert entry.value == b"1"


async def test_fact_33_value_with_a_time_is_removed_by_the_server(bucket: Bucket) -> None:
    kept = await bucket.put("kept", b"1", CREATE)
    await bucket.put("gone", b"2", CREATE, ttl=1)
    async with asyncio.timeout(HANG_SECONDS):
        while await bucket.get("gone") is not None:
            await asyncio.sleep(0.1)
    state = await bucket.state()
    assert state.last == kept + 1
    assert await bucket.read(kept, state.last) == ([], state.last)
    with pytest.raises(BucketError, match="TTL"):
        await bucket.put("late", b"3", CREATE, ttl=300 * YEAR)
    await bucket.put("late", b"3", CREATE, ttl=260 * YEAR)
    async with asyncio.timeout(HANG_SECONDS):
        while await bucket.get("late") is not None:
            await asyncio.sleep(0.1)


async def test_fact_33_full_bucket_refuses_values_and_keeps_its_own(bucket: Bucket) -> None:
    first = await bucket.put("first", b"1", CREATE)
    with pytest.raises(BucketError, match="size"):
        await bucket.put("long", b"x" * SPEC.max_value, CREATE)
    value = b"x" * (SPEC.max_value // 2)
    full = SPEC.max_bytes // (SPEC.max_value // 2)
    results = await asyncio.gather(
        *(bucket.put(f"more.{n}", value, CREATE) for n in range(full)), return_exceptions=True
    )
    refusals = [str(result) for result in results if isinstance(result, BucketError)]
    assert "maximum bytes" in refusals[-1]
    assert len(refusals) < full
    assert await bucket.put("first", b"2", first) > first  # a replaced value makes room for itself
