"""Two services, two brokers, a steady stream of connects, and one failure after the other.

Planned changes lose no connect. A killed process loses at most the requests it held; a suspended worker's share is
answered by another one until the watchdog kills it. ``docs/availability.md`` holds the figures that this prints.
"""

from __future__ import annotations

import asyncio
import os
import signal
from pathlib import Path

import pytest

from broker_auth.sandbox.service import ServiceProcess
from tests.callout.deployment import FleetDeployment
from tests.callout.stream import Stream

pytestmark = pytest.mark.e2e
_CALM_SECONDS = 1.5  # a phase in which nothing happens ends by the clock


async def test_planned_changes_lose_no_connection(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    deployment = FleetDeployment(tmp_path, ("east", "west"))
    stream = Stream(deployment)
    first, second = (deployment.service("--workers", "2", name=name) for name in ("first", "second"))
    with deployment.running(), first, second:
        await _planned(stream, deployment, first, second)
        await _mishaps(stream, deployment, first, second)
        with capsys.disabled():
            print("\n" + "\n".join(str(tally) for tally in stream.tallies))
        names = {tally.name: tally for tally in stream.tallies}
        for name in ("nothing happens", "a service is drained and started", "reload", "afterwards"):
            assert not names[name].lost, name
            assert names[name].admitted, name
        assert sum(names["a worker is killed"].lost.values()) <= 2
        assert sum(names["a service is killed, workers and all"].lost.values()) <= 4
        # A stopped worker keeps its share, a quarter, until it is replaced; another answers for it.
        assert not names["a worker is stopped"].lost
        # A broker that is down admits nobody; the other one is not affected.
        assert not names["a broker restarts: the other one"].lost


async def _planned(stream: Stream, deployment: FleetDeployment, first: ServiceProcess, second: ServiceProcess) -> None:
    async with stream.phase("nothing happens"):
        await asyncio.sleep(_CALM_SECONDS)
    async with stream.phase("a service is drained and started") as tally:
        for _ in range(3):
            await stream.burst(tally)
            first.signal(signal.SIGTERM)
            await asyncio.to_thread(first.wait)
            mark = first.mark()
            first.launch()
            await first.logged("ready brokers=", since=mark)
    async with stream.phase("reload") as tally:
        for service in (first, second, first):
            await stream.burst(tally)
            mark = service.mark()
            service.signal(signal.SIGHUP)
            await service.logged("reloaded", since=mark)
    assert "not reloaded" not in "\n".join(first.log() + second.log())


async def _mishaps(stream: Stream, deployment: FleetDeployment, first: ServiceProcess, second: ServiceProcess) -> None:
    async with stream.phase("a worker is killed"):
        mark = first.mark()
        os.kill(first.workers[0], signal.SIGKILL)
        await first.logged("broker west: subscribed", since=mark)
        await asyncio.sleep(0.5)  # connects while one worker is missing; nothing outside shows when that ends
    async with stream.phase("a worker is stopped"):
        mark = first.mark()
        os.kill(first.workers[0], signal.SIGSTOP)
        await first.logged("is killed", since=mark)
        await first.logged("broker west: subscribed", since=mark)
    async with stream.phase("a service is killed, workers and all"):
        os.killpg(first.pid, signal.SIGKILL)
        await asyncio.to_thread(first.wait)
        mark = first.mark()
        first.launch()
        await first.logged("ready brokers=", since=mark)
    mark = second.mark()
    async with stream.phase("a broker restarts: the other one", ("east",)):
        await asyncio.to_thread(deployment.servers["west"].stop)
        deployment.servers["west"].start()
        for _ in second.workers:
            await second.logged("broker west: subscribed again", since=mark)
    async with stream.phase("afterwards"):
        await asyncio.sleep(_CALM_SECONDS)
