"""Facts 4 to 9, 13 and 24: the content of a callout request, its subscribers, and the effect of answers."""

from __future__ import annotations

import asyncio
import json

import pytest

from broker_auth.natsio.client import round_trip
from broker_auth.natsio.nkey import public_nkey
from broker_auth.natsio.subjects import AUTH_REQUEST_SUBJECT
from broker_auth.sandbox.natsserver import free_port
from tests.deadlines import HANG_SECONDS
from tests.nats_server.responder import Request
from tests.nats_server.site import Site, echo, reachable

pytestmark = pytest.mark.e2e
VIOLATION = "-ERR 'Authorization Violation'"


async def test_fact_04_queue_group_members_share_requests(sandbox: Site) -> None:
    server = await sandbox.serve()
    one, two = await sandbox.responder(server, queue="q"), await sandbox.responder(server, queue="q")
    for _ in range(40):
        assert await (await sandbox.wire(server)).login() == "PONG"
    assert len(one.requests) + len(two.requests) == 40
    assert one.requests
    assert two.requests


async def test_fact_04_first_reply_wins(sandbox: Site) -> None:
    """A subscriber outside the queue group also receives every request, and its reply counts."""
    server = await sandbox.serve()
    service, intruder = (
        await sandbox.responder(server, queue="q"),
        await sandbox.responder(server, lambda _: b"garbage"),
    )

    async def answer_second(request: Request) -> bytes:
        await intruder.answered.wait()
        return sandbox.signer.admit(request)

    service.answer = answer_second
    assert await (await sandbox.wire(server)).login() == VIOLATION
    await asyncio.wait_for(service.answered.wait(), 15)


async def test_fact_04_second_valid_reply_is_harmless(sandbox: Site) -> None:
    """Each queue group receives a request once; the only member of a group receives all."""
    server = await sandbox.serve()
    responders = [await sandbox.responder(server, queue=group) for group in ("shared", "copies.one")]
    for _ in range(20):
        await echo(await sandbox.client(server), "still.connected")
    for responder in responders:
        async with asyncio.timeout(HANG_SECONDS):
            await round_trip(responder.client)
            while len(responder.requests) < 20:
                await responder.received()
        assert len(responder.requests) == 20


@pytest.mark.parametrize("own_users", [False, True])
async def test_fact_05_leaf_nodes_use_the_callout_unless_leafnodes_have_users(sandbox: Site, own_users: bool) -> None:
    port = free_port()
    users = "authorization { users: [ { user: edge, password: x, account: APP } ] }" if own_users else ""
    hub = await sandbox.serve(name="hub", extra=f'leafnodes {{ listen: "127.0.0.1:{port}", {users} }}')
    responder = await sandbox.responder(hub)
    leaf = sandbox.directory / "leaf.conf"
    leaf.write_text(
        f'listen: "127.0.0.1:-1", leafnodes {{ remotes: [ {{ url: "nats-leaf://edge:x@127.0.0.1:{port}" }} ] }}'
    )
    edge = await sandbox.start(leaf)
    if not own_users:
        assert (await responder.received())[0]["client_info"]["kind"] == "Leafnode"
        return
    await echo(await sandbox.client(edge), "across")
    await reachable(await sandbox.client(hub), "across")
    assert {request["client_info"]["kind"] for request in responder.requests} == {"Client"}


async def test_fact_06_server_settings_do_not_restrict_granted_permissions(sandbox: Site) -> None:
    deny = 'default_permissions: { publish: { deny: ">" }, subscribe: { deny: ">" } }'
    server = await sandbox.serve(
        authorization=deny, callout="allowed_accounts: [ APP ]", accounts=f"APP: {{ {deny} }}, OTHER: {{ {deny} }}"
    )
    await sandbox.responder(server, lambda request: sandbox.signer.admit(request, "OTHER"))
    client = await sandbox.client(server)
    subscription = await client.subscribe("any.subject")
    await client.publish("any.subject", b"x")
    assert (await subscription.next_msg(timeout=HANG_SECONDS)).data == b"x"


async def test_fact_07_token_is_forwarded_but_jwt_is_not(sandbox: Site) -> None:
    server = await sandbox.serve()
    responder = await sandbox.responder(server)
    wire = await sandbox.wire(server)
    assert await wire.login(auth_token="token", jwt="jwt", sig="sig", name="n1") == "PONG"
    options = responder.requests[0]["connect_opts"]
    assert (options["auth_token"], options["sig"], options["name"]) == ("token", "sig", "n1")
    assert "jwt" not in options
    assert "user" not in options  # empty strings are omitted
    assert responder.requests[0]["client_info"]["user"] == "[REDACTED]"


async def test_fact_07_user_and_password_are_forwarded_in_clear_text(sandbox: Site) -> None:
    server = await sandbox.serve()
    responder = await sandbox.responder(server)
    wire = await sandbox.wire(server)
    assert await wire.login(user="provisioner", **{"pass": "secret"}, auth_token="") == "PONG"
    options = responder.requests[0]["connect_opts"]
    assert (options["user"], options["pass"]) == ("provisioner", "secret")
    assert "auth_token" not in options


async def test_fact_08_nonce_is_sent_to_clients_and_forwarded_if_signed(sandbox: Site) -> None:
    server = await sandbox.serve()
    responder = await sandbox.responder(server)
    plain, signed = await sandbox.wire(server), await sandbox.wire(server)
    assert await plain.login(auth_token="t") == "PONG"
    assert await signed.login(auth_token="t", sig="any") == "PONG"
    first, second = (request["client_info"] for request in responder.requests)
    assert "nonce" not in first
    assert second["nonce"] == signed.info["nonce"]
    assert signed.info["nonce"] != plain.info["nonce"]
    assert second["nonce"].isascii()


async def test_fact_08_nonce_is_not_sent_without_nkey_users(sandbox: Site) -> None:
    issuer = public_nkey(sandbox.issuer)
    config = sandbox.directory / "one.conf"
    config.write_text(f"""
        listen: "127.0.0.1:-1"
        authorization {{ auth_callout {{ issuer: {issuer}, account: AUTH, auth_users: [ service ] }} }}
        accounts {{ AUTH: {{ users: [ {{ user: service, password: x }} ] }} }}
    """)
    wire = await sandbox.wire(await sandbox.start(config))
    assert "nonce" not in wire.info


@pytest.mark.parametrize("raised", [False, True])
async def test_fact_09_oversized_connect_is_refused_before_the_callout(sandbox: Site, raised: bool) -> None:
    server = await sandbox.serve(extra="max_control_line: 65536" if raised else "")
    responder = await sandbox.responder(server)
    wire = await sandbox.wire(server)
    verdict = await wire.login(auth_token="t" * 2048, jwt="j" * 2048)
    assert verdict.lower() == ("pong" if raised else "-err 'maximum control line exceeded'")
    assert len(responder.requests) == raised


async def test_fact_13_reason_is_logged_and_published_but_not_sent_to_the_client(sandbox: Site) -> None:
    server = await sandbox.serve()
    responder = await sandbox.responder(server, lambda request: sandbox.signer.deny(request, "the reason why"))
    failures = await responder.client.subscribe("$SYS.ACCOUNT.CLIENT.AUTH.ERR")
    await round_trip(responder.client)
    wire = await sandbox.wire(server)
    assert await wire.login(user="somebody", **{"pass": "secret"}, name="n1") == VIOLATION
    assert await wire.line() == ""
    logged = await sandbox.logged(server, "Auth callout service returned an error")
    assert logged.endswith(": the reason why")
    assert "cid:" not in logged
    event = json.loads((await failures.next_msg(timeout=HANG_SECONDS)).data)
    assert event["client"]["id"] == wire.info["client_id"]
    assert event["client"]["name"] == "n1"
    assert event["client"]["user"] == "somebody"
    assert event["client"]["host"] == "127.0.0.1"
    assert event["reason"].endswith("the reason why")


async def test_fact_24_clients_cannot_publish_requests_if_a_callout_is_configured(sandbox: Site) -> None:
    server = await sandbox.serve()
    errors: asyncio.Queue[str] = asyncio.Queue()

    async def note(error: Exception) -> None:
        errors.put_nowait(str(error))

    responder = await sandbox.responder(server)
    client = await sandbox.client(server, nkeys_seed_str=sandbox.service, error_cb=note)
    await client.publish(AUTH_REQUEST_SUBJECT, b"request", reply="answer")
    await round_trip(client)
    refused = await asyncio.wait_for(errors.get(), 15)
    assert "permissions violation for publish" in refused.lower()
    assert responder.claims == []


async def test_fact_24_clients_can_publish_requests_without_a_callout(sandbox: Site) -> None:
    config = sandbox.directory / "plain.conf"
    user = public_nkey(sandbox.service)
    config.write_text(f'listen: "127.0.0.1:-1", accounts {{ AUTH: {{ users: [ {{ nkey: {user} }} ] }} }}')
    server = await sandbox.start(config)
    client = await sandbox.client(server, nkeys_seed_str=sandbox.service)
    requests = await client.subscribe(AUTH_REQUEST_SUBJECT)
    await client.publish(AUTH_REQUEST_SUBJECT, b"request", reply="answer")
    assert (await requests.next_msg(timeout=HANG_SECONDS)).reply == "answer"
