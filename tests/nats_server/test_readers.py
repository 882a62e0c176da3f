"""Fact 34: what a user that may request something of JetStream can do with the answer, and with its key."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Final

import pytest
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.errors import TimeoutError as NatsTimeout

from broker_auth.natsio import bucket as buckets
from broker_auth.natsio.bucket import CREATE, Bucket, BucketSpec
from broker_auth.natsio.client import round_trip
from broker_auth.natsio.nkey import public_nkey
from broker_auth.natsio.subjects import BUCKET_INBOX
from broker_auth.secret import Secret
from tests.deadlines import HANG_SECONDS
from tests.nats_server.site import Site

pytestmark = pytest.mark.e2e
SPEC: Final = BucketSpec("OWN", max_bytes=64 * 1024, max_value=1024)
KEY, READ = SPEC.of_key("mine")
VALUE: Final = b"forged"
REFUSAL_SECONDS: Final = 0.5  # for a request that nats-server does not answer
HEADERS: Final = (
    ({"Nats-Rollup": "all"}, "rollup not permitted"),
    ({"Nats-Rollup": "sub", "KV-Operation": "PURGE"}, "rollup not permitted"),
    ({"Nats-Schedule": "@at 2037-01-01T00:00:00Z", "Nats-Schedule-Target": f"{SPEC.prefix}other"}, "disabled"),
    ({"Nats-Incr": "+1"}, "disabled"),
    ({"Nats-Batch-Id": "b", "Nats-Batch-Sequence": "1"}, "disabled"),
    ({"Nats-Batch-Id": "b", "Nats-Batch-Sequence": "1", "Nats-Batch-Commit": "1"}, "disabled"),
    ({"Nats-Expected-Last-Sequence": "999"}, "wrong last sequence"),
    ({"Nats-TTL": "never"}, ""),
    ({"Nats-Msg-Id": "1"}, ""),
    (
        {
            "Nats-Expected-Last-Subject-Sequence": "1",
            "Nats-Expected-Last-Subject-Sequence-Subject": f"{SPEC.prefix}other",
        },
        "",
    ),
    ({"Nats-Marker-Reason": "Purge"}, ""),
    ({"Nats-Request-Info": '{"acc": "OWN"}'}, ""),
)


@dataclass(frozen=True, slots=True)
class Users:
    """The owner of the bucket, a user of the same account and one of another that imports the same two subjects."""

    owner: Bucket
    inside: Client
    outside: Client
    received: list[bytes]


@pytest.fixture
async def users(sandbox: Site) -> AsyncIterator[Users]:
    path = sandbox.directory / "reader.conf"
    allowed = f'permissions: {{ publish: {json.dumps([KEY, READ])}, subscribe: [ "_INBOX.>" ] }}'
    path.write_text(f"""
        listen: "127.0.0.1:-1"
        jetstream {{ store_dir: "{sandbox.directory}/js" }}
        accounts {{
          OWN: {{
            jetstream: enabled
            users: [
              {{ nkey: {public_nkey(sandbox.service)}, permissions: {{
                publish: {json.dumps(SPEC.published)}, subscribe: [ "{BUCKET_INBOX}.>", "peers" ] }} }}
              {{ user: inside, password: x, {allowed} }}
            ]
            exports: [ {{ service: "{KEY}", accounts: [ APART ] }}, {{ service: "{READ}", accounts: [ APART ] }} ]
          }}
          APART: {{
            users: [ {{ user: outside, password: x, {allowed} }} ]
            imports: [
              {{ service: {{ account: OWN, subject: "{KEY}" }} }}
              {{ service: {{ account: OWN, subject: "{READ}" }}, to: "{READ}" }}
            ]
          }}
        }}
    """)
    server = await sandbox.start(path)
    client = await buckets.connect(f"nats://127.0.0.1:{server.port()}", Secret(sandbox.service), None)
    made = await client.request(f"$JS.API.STREAM.CREATE.{SPEC.stream}", json.dumps(SPEC.config(1)).encode())
    assert "error" not in json.loads(made.data)
    owner, received = Bucket(client, SPEC), list[bytes]()

    async def note(message: Msg) -> None:
        received.append(message.data)

    await client.subscribe("peers", cb=note)
    await owner.put("other", b"1", CREATE)
    await owner.put("mine", VALUE, CREATE)
    inside, outside = [await sandbox.client(server, user=name, password="x") for name in ("inside", "outside")]
    yield Users(owner, inside, outside, received)
    await buckets.disconnect(client)


async def test_fact_34_answer_goes_to_any_subject_of_the_account_that_asks(users: Users) -> None:
    for client in (users.outside, users.inside):
        with pytest.raises(NatsTimeout):
            await client.request("peers", VALUE, timeout=REFUSAL_SECONDS)  # may not be published
        assert users.received == []
        await client.publish(READ, b"", reply="peers")
        await client.flush()
        await users.owner.get("mine")
        await round_trip(users.owner._client)
    assert users.received == [VALUE]


async def test_fact_34_headers_on_one_key_change_no_other(users: Users) -> None:
    for headers, refusal in HEADERS:
        answer = json.loads((await users.outside.request(KEY, b"x", timeout=HANG_SECONDS, headers=headers)).data)
        assert refusal in answer.get("error", {}).get("description", ""), headers
        assert bool(refusal) is ("error" in answer), headers
        other = await users.owner.get("other")
        assert other is not None
        assert (other.value, other.revision) == (b"1", 1), headers
        last = (await users.owner.state()).last
        assert {entry.key for entry in (await users.owner.read(0, last))[0]} == {"other", "mine"}, headers


async def test_fact_34_request_for_one_key_reads_no_other(users: Users) -> None:
    for client in (users.inside, users.outside):
        mine = await client.request(READ, b"", timeout=HANG_SECONDS)
        assert mine.data == VALUE
        for query in ({"last_by_subj": f"{SPEC.prefix}other"}, {"seq": 1}, {"seq": 1, "batch": 9}):
            answer = await client.request(READ, json.dumps(query).encode(), timeout=HANG_SECONDS)
            assert (answer.data, (answer.headers or {}).get("Status")) == (b"", "408")
