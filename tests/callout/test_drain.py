"""Every request is answered while the service stops or reloads; the test sends the requests.

With a callout, nats-server refuses requests of clients (fact 24), so here it has the same account without a callout,
and the test plays its part. The speed of the machine does not matter: no request waits long enough to be dropped
because its client would have given up.
"""

from __future__ import annotations

import asyncio
import itertools
import os
import signal
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from nats.aio.client import Client
from nats.aio.msg import Msg

from broker_auth.callout.request import XKEY_HEADER
from broker_auth.natsio.client import round_trip
from broker_auth.natsio.nkey import NkeyKind, decode_public, public_nkey
from broker_auth.sandbox.natsserver import NatsServer
from broker_auth.sandbox.service import ServiceProcess
from tests.builders.requests import Server, fleet
from tests.callout.deployment import FleetDeployment, eventually
from tests.deadlines import HANG_SECONDS

pytestmark = pytest.mark.e2e
REQUESTS = 1200  # that wait when the service stops: few enough that none becomes too old
AT_ONCE = 60  # unanswered requests throughout a reload
RELOADS = 5
AHEAD = 30  # seconds that the server's clock is ahead of the service's: no request becomes late
CONFIG = """
listen: 127.0.0.1:{port}
tls {{ cert_file: "{path}/server.pem", key_file: "{path}/server.key", ca_file: "{path}/ca.pem", verify: true }}
accounts {{ AUTH {{ users: [
  {{ nkey: {observer} }}
  {{ nkey: {service}, permissions: {{
      publish: [ "broker-auth.peers" ], allow_responses: {{ max: 2, expires: "60s" }} }} }}
] }} }}
"""


@pytest.fixture
def deployment(tmp_path: Path) -> FleetDeployment:
    deployment = FleetDeployment(tmp_path)
    seed = deployment.settings().zone("fleet").nkey_seed
    assert seed
    text = CONFIG.format(
        port=deployment.ports["east"],
        path=tmp_path,
        observer=public_nkey(deployment.observer),
        service=public_nkey(seed.reveal()),
    )
    (tmp_path / "plain.conf").write_text(text)
    deployment.servers["east"] = NatsServer(tmp_path / "plain.conf")
    return deployment


class Asking:
    """A client that plays nats-server: it sends requests, and keeps the answers.

    Attributes:
        answers: by reply subject. A busy machine may answer some requests twice (fact 4).
    """

    def __init__(self, deployment: FleetDeployment, client: Client) -> None:
        seed = deployment.settings().zone("fleet").xkey_seed
        assert seed
        self.answers: dict[str, bytes] = {}
        self._server = Server()
        self._xkey = decode_public(public_nkey(seed.reveal()), NkeyKind.CURVE)
        self._client = client
        self._inbox = client.new_inbox()
        self._numbers = itertools.count()
        self._changed = asyncio.Event()

    async def listen(self) -> None:
        await self._client.subscribe(f"{self._inbox}.*", cb=self._on_answer)
        await round_trip(self._client)

    def request(self) -> tuple[bytes, str, str]:
        """Return a new request: its data, the server's xkey, and the reply subject."""
        number, now = next(self._numbers), int(time.time()) + AHEAD
        data, header = self._server.sealed(fleet(name=f"node{number}"), self._xkey, now=now)
        return data, header, f"{self._inbox}.{number}"

    async def send(self, data: bytes, header: str, reply: str) -> None:
        await self._client.publish("$SYS.REQ.USER.AUTH", data, reply=reply, headers={XKEY_HEADER: header})

    async def sent(self) -> None:
        """Return once the server has every request."""
        await round_trip(self._client)

    async def until_answered(self, count: int, deadline: float = HANG_SECONDS) -> None:
        """Wait for ``count`` answers; a lost request raises TimeoutError."""
        async with asyncio.timeout(deadline):
            while len(self.answers) < count:
                self._changed.clear()
                await self._changed.wait()

    async def keep_asking(self, stop: asyncio.Event) -> int:
        """Ask as fast as answers arrive; return the number of requests."""
        for asked in itertools.count():
            if stop.is_set():
                break
            await self.until_answered(asked - AT_ONCE)
            await self.send(*self.request())
        return asked

    def readable(self) -> bool:
        """Return whether every answer can be opened by this server."""
        return all(self._server.open(answer, self._xkey) for answer in self.answers.values())

    async def _on_answer(self, message: Msg) -> None:
        self.answers[message.subject] = message.data
        self._changed.set()


@pytest.fixture
def service(deployment: FleetDeployment) -> Iterator[ServiceProcess]:
    with deployment.running(), deployment.service("--workers", "2") as running:
        yield running


@pytest.fixture
async def asking(deployment: FleetDeployment, service: ServiceProcess) -> AsyncIterator[Asking]:
    client = await deployment.watch()
    asking = Asking(deployment, client)
    await asking.listen()
    yield asking
    await client.close()


def is_signalled(pid: int, number: signal.Signals) -> bool:
    """Return whether a signal is pending for this process."""
    status = Path(f"/proc/{pid}/status").read_text(encoding="ascii")
    pending = next(line for line in status.splitlines() if line.startswith("ShdPnd:"))
    return bool(int(pending.split()[1], 16) & 1 << number - 1)


async def test_every_received_request_is_answered_before_the_service_ends(
    service: ServiceProcess, asking: Asking
) -> None:
    requests = [asking.request() for _ in range(REQUESTS)]
    workers = service.workers
    for worker in workers:  # so that all requests have arrived when it gets the signal
        os.kill(worker, signal.SIGSTOP)
    try:
        for request in requests:
            await asking.send(*request)
        await asking.sent()
        service.signal(signal.SIGTERM)
        await eventually(lambda: all(is_signalled(worker, signal.SIGTERM) for worker in workers))
        assert not asking.answers
    finally:
        for worker in workers:
            os.kill(worker, signal.SIGCONT)
    assert await asyncio.to_thread(service.wait) == 0
    await asking.until_answered(REQUESTS)
    assert asking.readable()


async def test_reloads_lose_no_request(service: ServiceProcess, asking: Asking) -> None:
    stop = asyncio.Event()
    asked = asyncio.create_task(asking.keep_asking(stop))
    for _ in range(RELOADS):
        await asking.until_answered(len(asking.answers) + AT_ONCE)
        mark = service.mark()
        service.signal(signal.SIGHUP)
        await service.logged("reloaded", since=mark)
    stop.set()
    await asking.until_answered(await asked)
    assert len(asking.answers) == asked.result()
    assert asking.readable()
