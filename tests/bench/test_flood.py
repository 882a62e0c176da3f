"""The service answers the fleet's requests before a flood that arrived earlier, with a real nats-server."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

import pytest

from broker_auth.audit.file import StreamAudit
from broker_auth.bench.flooder import Flooder, Pool
from broker_auth.bench.kinds import Maker
from broker_auth.bench.materials import PlayedServer, Trust
from broker_auth.bench.site import BenchDeployment
from broker_auth.callout.callout import Callout, make_callout
from broker_auth.callout.connection import BrokerConnection
from broker_auth.callout.service import Service, tls_contexts
from broker_auth.settings.load import load
from broker_auth.settings.model import FLEET_ZONE, ServingSettings
from broker_auth.settings.policy import build_policy
from tests.deadlines import HANG_SECONDS

FLOOD = 400
FLEET = 5


class Recorder(Flooder):
    """A flooder that records the order of answers."""

    def __init__(self, pool: Pool, password: str) -> None:
        super().__init__(pool, password)
        self.order: list[int] = []
        self.all_answered = asyncio.Event()

    def _answered(self, number: int, now: float) -> None:
        super()._answered(number, now)
        self.order.append(number)
        if len(self.order) == FLOOD + FLEET:
            self.all_answered.set()


class DelayedService(Service):
    """A service that starts to answer after all requests have arrived, so that their speed does not matter."""

    def __init__(self, settings: ServingSettings, callout: Callout) -> None:
        super().__init__(settings, callout, tls_contexts(settings))
        self._received = 0
        self._all_received = asyncio.Event()

    def _on_request(self, connection: BrokerConnection, reply: str, data: bytes, headers: bytes | None) -> None:
        super()._on_request(connection, reply, data, headers)
        self._received += 1
        if self._received == FLOOD + FLEET:
            self._all_received.set()

    async def _answer_all(self) -> None:
        await self._all_received.wait()
        await super()._answer_all()


@pytest.mark.e2e
async def test_fleet_is_answered_before_a_flood_of_bad_tokens(tmp_path: Path) -> None:
    trust = Trust()
    deployment = BenchDeployment(tmp_path, trust, xkey=False)
    maker = Maker(trust, PlayedServer(), time.time())
    bad_token = trust.provisioning_token(maker.now, foreign=True)
    bad = [maker.node(number, bad_token).request.wire for number in range(FLOOD)]
    fleet = [maker.mtls(number).request.wire for number in range(FLEET)]
    settings = load(deployment.config, {}, serving=True).serving(FLEET_ZONE)
    policy = build_policy(settings)
    policy.tokens.examine(bad_token)
    audit = StreamAudit(tmp_path / "audit.log")
    service = DelayedService(settings, make_callout(settings, policy, audit))
    stop = asyncio.Event()
    async with deployment.server(deployment.brokers[0]):
        serving = asyncio.create_task(service.run(stop))
        try:
            async with asyncio.timeout(HANG_SECONDS):
                await service.wait_ready()
                transport, recorder = await asyncio.get_running_loop().create_connection(
                    lambda: Recorder(Pool(requests=bad + fleet), deployment.password),
                    "127.0.0.1",
                    deployment.brokers[0].port,
                )
                await recorder.ready
                recorder.send(FLOOD + FLEET)
                await recorder.all_answered.wait()
        finally:
            stop.set()
            await serving
        transport.close()
    audit.close()
    first = recorder.order[:FLEET]
    assert sorted(first) == list(range(FLOOD, FLOOD + FLEET)), (
        "requests were answered in the order of arrival, where the fleet is last"
    )
    assert service.callout.stats.decisions["verified_tls", "admitted"] == FLEET
    assert service.pending == 0
