"""Facts 4 to 9, 13 and 24: what a callout says, who may answer it, and what becomes of the answer."""

from __future__ import annotations

import asyncio
import json

import pytest

from broker_auth.natsio.client import round_trip
from broker_auth.natsio.nkey import public_nkey
from broker_auth.natsio.subjects import AUTH_REQUEST_SUBJECT
from broker_auth.sandbox.natsserver import free_port
from tests.deadlines import HANG_SECONDS
from tests.nats_server.oracle import Request
from tests.nats_server.site import Site, echo, reachable

pytestmark = pytest.mark.e2e
VIOLATION = "-ERR 'Authorization Violation'"


async def test_fact_04_members_of_a_queue_group_share_the_requests(site: Site) -> None:
    server = await site.serve()
    one, two = await site.oracle(server, queue="q"), await site.oracle(server, queue="q")
    for _ in range(40):
        assert await (await site.wire(server)).login() == "PONG"
    assert len(one.requests) + len(two.requests) == 40
    assert one.requests
    assert two.requests


async def test_fact_04_the_first_reply_wins(site: Site) -> None:
    """Whoever sends it: a subscriber outside the queue group hears every request and may answer."""
    server = await site.serve()
    service, intruder = await site.oracle(server, queue="q"), await site.oracle(server, lambda _: b"garbage")

    async def afterwards(request: Request) -> bytes:
        await intruder.said.wait()
        return site.signer.admit(request)

    service.answer = afterwards
    assert await (await site.wire(server)).login() == VIOLATION
    await asyncio.wait_for(service.said.wait(), 15)


async def test_fact_04_two_good_replies_do_no_harm(site: Site) -> None:
    """Each group of subscribers is sent a request once; a group of one hears all."""
    server = await site.serve()
    oracles = [await site.oracle(server, queue=group) for group in ("shared", "copies.one")]
    for _ in range(20):
        await echo(await site.client(server), "still.connected")
    for oracle in oracles:
        async with asyncio.timeout(HANG_SECONDS):
            await round_trip(oracle.client)
            while len(oracle.requests) < 20:
                await oracle.heard()
        assert len(oracle.requests) == 20


@pytest.mark.parametrize("own_users", [False, True])
async def test_fact_05_leaf_nodes_reach_the_callout_unless_leafnodes_have_users(site: Site, own_users: bool) -> None:
    port = free_port()
    users = "authorization { users: [ { user: edge, password: x, account: APP } ] }" if own_users else ""
    hub = await site.serve(name="hub", extra=f'leafnodes {{ listen: "127.0.0.1:{port}", {users} }}')
    oracle = await site.oracle(hub)
    leaf = site.directory / "leaf.conf"
    leaf.write_text(
        f'listen: "127.0.0.1:-1", leafnodes {{ remotes: [ {{ url: "nats-leaf://edge:x@127.0.0.1:{port}" }} ] }}'
    )
    edge = await site.start(leaf)
    if not own_users:
        assert (await oracle.heard())[0]["client_info"]["kind"] == "Leafnode"
        return
    await echo(await site.client(edge), "across")
    await reachable(await site.client(hub), "across")
    assert {request["client_info"]["kind"] for request in oracle.requests} == {"Client"}


async def test_fact_06_no_setting_of_the_server_restricts_what_an_answer_grants(site: Site) -> None:
    deny = 'default_permissions: { publish: { deny: ">" }, subscribe: { deny: ">" } }'
    server = await site.serve(
        authorization=deny, callout="allowed_accounts: [ APP ]", accounts=f"APP: {{ {deny} }}, OTHER: {{ {deny} }}"
    )
    await site.oracle(server, lambda request: site.signer.admit(request, "OTHER"))
    client = await site.client(server)
    heard = await client.subscribe("any.subject")
    await client.publish("any.subject", b"x")
    assert (await heard.next_msg(timeout=HANG_SECONDS)).data == b"x"


async def test_fact_07_the_token_is_forwarded_and_the_jwt_is_not(site: Site) -> None:
    server = await site.serve()
    oracle = await site.oracle(server)
    wire = await site.wire(server)
    assert await wire.login(auth_token="token", jwt="jwt", sig="sig", name="n1") == "PONG"
    said = oracle.requests[0]["connect_opts"]
    assert (said["auth_token"], said["sig"], said["name"]) == ("token", "sig", "n1")
    assert "jwt" not in said
    assert "user" not in said  # empty strings are left out
    assert oracle.requests[0]["client_info"]["user"] == "[REDACTED]"


async def test_fact_07_user_and_password_come_in_clear(site: Site) -> None:
    server = await site.serve()
    oracle = await site.oracle(server)
    wire = await site.wire(server)
    assert await wire.login(user="provisioner", **{"pass": "secret"}, auth_token="") == "PONG"
    said = oracle.requests[0]["connect_opts"]
    assert (said["user"], said["pass"]) == ("provisioner", "secret")
    assert "auth_token" not in said


async def test_fact_08_clients_are_sent_a_nonce_and_requests_have_it_if_it_was_signed(site: Site) -> None:
    server = await site.serve()
    oracle = await site.oracle(server)
    plain, signed = await site.wire(server), await site.wire(server)
    assert await plain.login(auth_token="t") == "PONG"
    assert await signed.login(auth_token="t", sig="any") == "PONG"
    first, second = (request["client_info"] for request in oracle.requests)
    assert "nonce" not in first
    assert second["nonce"] == signed.info["nonce"]
    assert signed.info["nonce"] != plain.info["nonce"]
    assert second["nonce"].isascii()


async def test_fact_08_without_an_nkey_user_there_is_no_nonce(site: Site) -> None:
    issuer = public_nkey(site.issuer)
    config = site.directory / "one.conf"
    config.write_text(f"""
        listen: "127.0.0.1:-1"
        authorization {{ auth_callout {{ issuer: {issuer}, account: AUTH, auth_users: [ service ] }} }}
        accounts {{ AUTH: {{ users: [ {{ user: service, password: x }} ] }} }}
    """)
    wire = await site.wire(await site.start(config))
    assert "nonce" not in wire.info


@pytest.mark.parametrize("raised", [False, True])
async def test_fact_09_a_long_connect_is_refused_before_the_callout(site: Site, raised: bool) -> None:
    server = await site.serve(extra="max_control_line: 65536" if raised else "")
    oracle = await site.oracle(server)
    wire = await site.wire(server)
    verdict = await wire.login(auth_token="t" * 2048, jwt="j" * 2048)
    assert verdict.lower() == ("pong" if raised else "-err 'maximum control line exceeded'")
    assert len(oracle.requests) == raised


async def test_fact_13_the_reason_goes_to_the_log_and_to_an_advisory_but_not_to_the_client(site: Site) -> None:
    server = await site.serve()
    oracle = await site.oracle(server, lambda request: site.signer.deny(request, "the reason why"))
    failures = await oracle.client.subscribe("$SYS.ACCOUNT.CLIENT.AUTH.ERR")
    await round_trip(oracle.client)
    wire = await site.wire(server)
    assert await wire.login(user="somebody", **{"pass": "secret"}, name="n1") == VIOLATION
    assert await wire.line() == ""
    logged = await site.logged(server, "Auth callout service returned an error")
    assert logged.endswith(": the reason why")
    assert "cid:" not in logged
    event = json.loads((await failures.next_msg(timeout=HANG_SECONDS)).data)
    assert event["client"]["id"] == wire.info["client_id"]
    assert event["client"]["name"] == "n1"
    assert event["client"]["user"] == "somebody"
    assert event["client"]["host"] == "127.0.0.1"
    assert event["reason"].endswith("the reason why")


async def test_fact_24_nobody_may_publish_requests_where_a_callout_is_configured(site: Site) -> None:
    server = await site.serve()
    errors: asyncio.Queue[str] = asyncio.Queue()

    async def note(error: Exception) -> None:
        errors.put_nowait(str(error))

    oracle = await site.oracle(server)
    player = await site.client(server, nkeys_seed_str=site.service, error_cb=note)
    await player.publish(AUTH_REQUEST_SUBJECT, b"request", reply="answer")
    await round_trip(player)
    refused = await asyncio.wait_for(errors.get(), 15)
    assert "permissions violation for publish" in refused.lower()
    assert oracle.claims == []


async def test_fact_24_a_server_without_a_callout_lets_a_bench_play_nats_server(site: Site) -> None:
    config = site.directory / "plain.conf"
    user = public_nkey(site.service)
    config.write_text(f'listen: "127.0.0.1:-1", accounts {{ AUTH: {{ users: [ {{ nkey: {user} }} ] }} }}')
    server = await site.start(config)
    hearer = await site.client(server, nkeys_seed_str=site.service)
    heard = await hearer.subscribe(AUTH_REQUEST_SUBJECT)
    await hearer.publish(AUTH_REQUEST_SUBJECT, b"request", reply="answer")
    assert (await heard.next_msg(timeout=HANG_SECONDS)).reply == "answer"
