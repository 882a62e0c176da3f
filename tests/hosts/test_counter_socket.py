"""The socket of the counter: who sends anything but requests is disconnected, and nobody else notices."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import socket
import stat
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, Final, cast

import pytest

from broker_auth.errors import OperationError
from broker_auth.hosts import counter_client, counter_server
from broker_auth.hosts.counter_client import CounterClient
from broker_auth.hosts.counter_server import AT_ONCE, MAX_OF_PROCESS, CounterServer, bind, verified_token
from broker_auth.hosts.counter_wire import MAX_LINE, CountRequest
from broker_auth.hosts.node_counter import NodeCounter
from broker_auth.natsio.bucket import Bucket
from broker_auth.policy.counting import Counted, NodeClaim
from tests.builders.clock import DAY, HOUR, NOW
from tests.builders.policies import changed, x509_policy
from tests.builders.tokens import ABSENT, SERVER_SIGNER, provisioning_claims, provisioning_signer, server_claims, sign
from tests.callout.deployment import eventually
from tests.deadlines import HANG_SECONDS
from tests.hosts.test_node_counter import SharedBucket

POLICY: Final = x509_policy()


def token_for(nodes: Any = 2, *, key: Any = None, **claims: Any) -> str:
    """Return a provisioning token for a number of nodes."""
    bounds = {"max_nodes": nodes, **claims.pop("bounds", {})}
    extensions = {"broker-auth": bounds}
    return sign(provisioning_claims(extensions=extensions, **claims), key or provisioning_signer())


TOKEN: Final = token_for()


class Host:
    """A counter with its socket, and a bucket that many may share."""

    def __init__(self, directory: Path, bucket: SharedBucket) -> None:
        self.path = directory / "revoked.json.counter"
        self.bucket = bucket
        self.serving: asyncio.Task[None] | None = None
        self.start()

    def start(self) -> None:
        """Start it, in place of the one before."""
        counter = NodeCounter()
        counter._bucket = cast(Bucket, self.bucket)
        counter._report("")
        self.counter = counter
        listener = bind(self.path)
        self.server = CounterServer(counter, POLICY, lambda: NOW)
        self.serving = asyncio.create_task(self.server.serve(listener))

    async def stop(self) -> None:
        assert self.serving is not None
        self.serving.cancel()
        await asyncio.gather(self.serving, return_exceptions=True)

    async def connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        return await asyncio.open_unix_connection(str(self.path))

    async def count(self, node: str, token: str = TOKEN) -> Counted:
        """Return what a worker is told that connects now."""
        client = CounterClient(self.path)
        try:
            return await client.count(NodeClaim(token=token, node=node))
        finally:
            await client.close()


@pytest.fixture(autouse=True)
def _patient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(counter_client, "SECONDS", float(HANG_SECONDS))


@pytest.fixture
async def host(tmp_path: Path) -> AsyncIterator[Host]:
    host = Host(tmp_path, SharedBucket())
    yield host
    await host.stop()


def line(node: str = "n1", token: str = TOKEN, number: int = 0) -> bytes:
    return json.dumps({"id": number, "token": token, "node": node}).encode() + b"\n"


async def test_nodes_are_counted_for_every_worker(host: Host) -> None:
    assert [await host.count(node) for node in ("n1", "n2", "n3", "n1")] == ["counted", "counted", "used_up", "counted"]
    assert await host.count("n3", token_for(3)) == "counted"


async def test_answers_arrive_in_any_order_on_one_connection(host: Host) -> None:
    token = token_for(100)
    client = CounterClient(host.path)
    names = [f"n{number % 150}" for number in range(400)]
    results = await asyncio.gather(*(client.count(NodeClaim(token=token, node=name)) for name in names))
    assert len({name for name, result in zip(names, results, strict=True) if result is Counted.YES}) == 100
    assert Counted.UNKNOWN not in results
    assert not client._waiting
    await client.close()


@pytest.mark.parametrize(
    "sent",
    [
        b"\n",
        b"garbage\n",
        b"\x00\xff" * 2000 + b"\n",
        b"[" * 15_000 + b"\n",
        b"x" * (3 * MAX_LINE),
        line(token="t" * MAX_LINE),
        b'{"id":1}\n',
        b'{"id":-1,"token":"","node":""}\n',
        b'{"id":1,"token":"","node":"","more":1}\n',
        b'{"id":1,"token":1,"node":""}\n',
    ],
)
async def test_connection_that_sends_anything_else_is_closed(host: Host, sent: bytes) -> None:
    reader, writer = await host.connect()
    writer.write(sent)
    with contextlib.suppress(ConnectionError):
        async with asyncio.timeout(HANG_SECONDS):
            assert await reader.read() == b""
    assert await host.count("n1") is Counted.YES
    writer.close()


async def test_half_lines_and_disconnects_leave_nothing_behind(host: Host) -> None:
    for part in (b"", line()[:20], line() + line("n2")[:-1], line("n2")):
        _, writer = await host.connect()
        writer.write(part)
        writer.close()
    assert await host.count("n1") is Counted.YES
    await eventually(lambda: not host.server._connections)


async def test_worker_that_does_not_read_is_disconnected_and_others_are_answered(host: Host) -> None:
    assert await host.count("n1") is Counted.YES
    _, writer = await host.connect()

    async def flood() -> None:
        with contextlib.suppress(ConnectionError):
            while True:
                writer.write(line() * 50)
                await writer.drain()

    flooding = asyncio.create_task(flood())
    for _ in range(20):
        assert await host.count("n1") is Counted.YES
    async with asyncio.timeout(HANG_SECONDS):
        await flooding
    writer.close()


async def test_flood_of_foreign_tokens_delays_no_other_worker(host: Host) -> None:
    """Check that a worker is answered although another one, of a stolen edge, sends what costs a verification each."""
    reader, writer = await host.connect()
    foreign = b"".join(line(token=f"{TOKEN[:-8]}{number:08}", number=number) for number in range(2000))
    writer.write(foreign)
    assert await host.count("n1") is Counted.YES
    answered = 0
    async with asyncio.timeout(HANG_SECONDS):
        while answered < 2000:
            assert b'"unknown"' in await reader.readline()
            answered += 1
    writer.close()
    assert len(host.bucket.stream.entries) == 1


async def test_more_requests_than_places_wait_in_the_socket(host: Host) -> None:
    host.bucket.hangs = True
    reader, writer = await host.connect()
    writer.write(b"".join(line(f"n{number}", number=number) for number in range(3 * AT_ONCE)))
    await eventually(lambda: sum(map(len, host.counter._waiting.values())) >= AT_ONCE - 1)
    waiting = [len(futures) for nodes in host.counter._waiting.values() for futures in nodes.values()]
    assert sum(waiting) <= AT_ONCE
    host.bucket.hangs = False
    writer.close()
    await reader.read()


async def test_process_has_a_few_connections_and_others_have_theirs(host: Host) -> None:
    held = [await host.connect() for _ in range(MAX_OF_PROCESS)]
    await eventually(lambda: len(host.server._connections) == MAX_OF_PROCESS)
    for _ in range(2):
        assert await (await host.connect())[0].read() == b""
    program = (
        "import socket, sys; end = socket.socket(socket.AF_UNIX); end.connect(sys.argv[1]);"
        "end.sendall(sys.argv[2].encode()); print(end.recv(1000).decode())"
    )
    other = await asyncio.create_subprocess_exec(
        sys.executable, "-c", program, str(host.path), line("n1").decode(), stdout=asyncio.subprocess.PIPE
    )
    assert b'"counted"' in (await other.communicate())[0]
    for _, one in held:
        one.close()
    await eventually(lambda: not host.server._connections)


async def test_connections_are_limited(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(counter_server, "_process_of", lambda _: 0)  # a system that does not tell
    monkeypatch.setattr(counter_server, "MAX_CONNECTIONS", 40)
    held = [await host.connect() for _ in range(40)]
    await eventually(lambda: len(host.server._connections) == 40)
    reader, writer = await host.connect()
    assert await reader.read() == b""
    writer.close()
    for _, one in held:
        one.close()
    await eventually(lambda: not host.server._connections)
    assert await host.count("n1") is Counted.YES


async def test_worker_asks_the_counter_that_replaces_another(host: Host) -> None:
    client = CounterClient(host.path)
    assert await client.count(NodeClaim(token=TOKEN, node="n1")) is Counted.YES
    host.bucket.hangs = True
    waiting = asyncio.create_task(client.count(NodeClaim(token=TOKEN, node="n2")))
    await eventually(lambda: bool(host.counter._waiting))
    await host.stop()
    assert host.path.is_socket()
    host.bucket.hangs = False
    host.start()
    assert await waiting is Counted.YES
    await client.close()


async def test_counter_that_is_gone_or_hangs_is_not_waited_for(
    host: Host, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(counter_client, "SECONDS", 0.2)
    host.bucket.hangs = True
    assert await host.count("n1") is Counted.UNKNOWN
    await host.stop()
    assert await host.count("n1") is Counted.UNKNOWN
    missing = CounterClient(tmp_path / "missing")
    assert await missing.count(NodeClaim(token=TOKEN, node="n1")) is Counted.UNKNOWN
    await missing.close()


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells who listens")
async def test_token_is_not_shown_to_another_user_who_made_the_socket(
    host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as other:
        other.setattr(counter_client, "SECONDS", 0.2)
        other.setattr(os, "geteuid", lambda: os.getuid() + 1)
        assert await host.count("n1") is Counted.UNKNOWN
    assert not host.bucket.stream.entries
    assert await host.count("n1") is Counted.YES


async def test_claim_that_is_too_long_for_a_line_disturbs_no_other(host: Host) -> None:
    client = CounterClient(host.path)
    host.bucket.hangs = True
    waiting = asyncio.create_task(client.count(NodeClaim(token=TOKEN, node="n1")))
    await eventually(lambda: bool(host.counter._waiting))
    assert await client.count(NodeClaim(token=TOKEN + "\v" * 15_000, node="n2")) is Counted.UNKNOWN
    assert list(client._waiting) == [0]  # has not asked again
    host.bucket.hangs = False
    await client.close()
    waiting.cancel()


async def test_answers_that_are_not_of_a_counter_are_not_believed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(counter_client, "SECONDS", 0.2)
    answers = [b'{"id":7,"counted":"counted"}\n', b'{"id":0,"counted":"yes"}\n', b"{}\n", b"x" * 3 * MAX_LINE]

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readline()
        writer.write(answers.pop() if answers else b"")
        writer.close()

    server = await asyncio.start_unix_server(answer, str(tmp_path / "socket"))
    client = CounterClient(tmp_path / "socket")
    assert await client.count(NodeClaim(token=TOKEN, node="n1")) is Counted.UNKNOWN
    assert not answers
    await client.close()
    server.close()


def test_only_the_service_may_connect_and_what_was_left_there_is_replaced(tmp_path: Path) -> None:
    path = tmp_path / "socket"
    for _ in range(2):  # the second time in place of the first, as after a crash
        bind(path).close()
        assert stat.S_IMODE(path.lstat().st_mode) == 0o600
    assert [one.name for one in tmp_path.iterdir()] == ["socket"]
    (tmp_path / "socket~").write_text("left by a crash")
    bind(path).close()
    path.unlink()
    path.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(OperationError, match="is not a socket; remove it"):
        bind(path)
    path.unlink()
    path.write_text("of somebody")
    with pytest.raises(OperationError, match="is not a socket; remove it"):
        bind(path)
    assert path.read_text() == "of somebody"
    with pytest.raises(OperationError, match="cannot be made"):
        bind(tmp_path / "missing" / "socket")


REFUSED: Final = {
    "signature": (TOKEN[:-4] + "AAAA", "n1"),
    "another key": (token_for(key=SERVER_SIGNER), "n1"),
    "another kind": (sign(server_claims(extensions={"broker-auth": {"max_nodes": 2}}), SERVER_SIGNER), "n1"),
    "any number of nodes": (sign(provisioning_claims(), provisioning_signer()), "n1"),
    "expired": (token_for(exp=NOW - 1), "n1"),
    "not yet valid": (token_for(nbf=NOW + DAY), "n1"),
    "never expires": (token_for(exp=ABSENT), "n1"),
    "name": (TOKEN, "a b"),
    "no name": (TOKEN, ""),
    "name of another": (token_for(bounds={"names": ["n2"]}), "n1"),
    "nothing": ("", "n1"),
}


@pytest.mark.parametrize(("token", "node"), REFUSED.values(), ids=REFUSED)
async def test_node_is_counted_only_if_its_token_says_so(host: Host, token: str, node: str) -> None:
    assert verified_token(POLICY, token, node, NOW) is None
    assert await host.count(node, token) is Counted.UNKNOWN
    assert not host.bucket.stream.entries


def test_token_says_how_many_nodes_and_until_when() -> None:
    counted = verified_token(POLICY, token_for(7, bounds={"names": ["n1"]}), "n1", NOW)
    assert counted is not None
    assert (counted.limit, counted.expires) == (7, NOW + HOUR)
    endless = verified_token(changed(POLICY, allow_non_expiring_tokens=True), token_for(exp=ABSENT), "n1", NOW)
    assert endless is not None
    assert endless.expires is None


def test_request_shows_no_token() -> None:
    assert TOKEN not in repr(CountRequest(id=1, token=TOKEN, node="n1"))


def test_counter_ends_without_a_word_while_workers_are_connected(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async def serve() -> None:
        host = Host(tmp_path, SharedBucket())
        _, worker = await host.connect()
        await eventually(lambda: host.server._connections)
        assert not worker.is_closing()

    asyncio.run(serve())  # ends every task
    assert not caplog.records


async def test_claims_that_wait_for_a_counter_try_to_connect_together(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    attempts = 0

    def connect(path: Path) -> socket.socket:
        nonlocal attempts
        attempts += 1
        raise ConnectionRefusedError(path)

    monkeypatch.setattr(counter_client, "_connect", connect)
    monkeypatch.setattr(counter_client, "SECONDS", 0.2)
    client = CounterClient(tmp_path / "missing")
    results = await asyncio.gather(*(client.count(NodeClaim(token=TOKEN, node=f"n{number}")) for number in range(200)))
    assert set(results) == {Counted.UNKNOWN}
    assert 0 < attempts <= counter_client.SECONDS / counter_client._RETRY_SECONDS + 1
