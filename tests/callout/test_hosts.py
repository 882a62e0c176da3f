"""Two services as on two hosts: one that stands still, has a wrong clock or may not listen costs no login."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import json
import os
import re
import signal
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
from nats.errors import Error as NatsError

from broker_auth.callout.hedging import Duty
from broker_auth.natsio.subjects import PEERS_SUBJECT
from broker_auth.sandbox.natsserver import free_port
from broker_auth.sandbox.service import ServiceProcess
from tests.callout.deployment import FleetDeployment, eventually
from tests.chaos.site import CLOCK
from tests.deadlines import HANG_SECONDS

pytestmark = pytest.mark.e2e
LOGINS = 40
AT_ONCE = 8  # so that a slow machine is not asked for more than it can do


@pytest.fixture(scope="module")
def deployment(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FleetDeployment]:
    site = FleetDeployment(tmp_path_factory.mktemp("hosts"))
    with site.running():
        yield site


async def lost(deployment: FleetDeployment, logins: int = LOGINS) -> int:
    """Count those of some logins, one each 25 ms, that are not let in at the first try."""
    room = asyncio.Semaphore(AT_ONCE)

    async def one() -> None:
        try:
            await (await deployment.connect()).close()
        finally:
            room.release()

    tasks = []
    for _ in range(logins):
        await room.acquire()
        tasks.append(asyncio.create_task(one()))
        await asyncio.sleep(0.025)
    results = await asyncio.gather(*tasks, return_exceptions=True)
    assert all(isinstance(result, NatsError | OSError | TimeoutError | None) for result in results)
    return sum(result is not None for result in results)


async def heard(deployment: FleetDeployment, *services: tuple[ServiceProcess, int]) -> None:
    """Wait until two workers hear each other: one says that it is the guard, the other that it is the deputy."""
    for service, port in services:
        await asyncio.to_thread(eventually_ready, service, port)
    observer = await deployment.watch()
    words = await observer.subscribe(PEERS_SUBJECT)
    duties: dict[bytes, bytes] = {}
    async with asyncio.timeout(HANG_SECONDS):
        while sorted(duties.values()) != [Duty.DEPUTY.encode(), Duty.GUARD.encode()]:
            _, worker, _, _, duty, *_ = (await words.next_msg(HANG_SECONDS)).data.split()
            duties[worker] = duty
    await observer.close()


def eventually_ready(service: ServiceProcess, port: int) -> None:
    deadline = time.monotonic() + HANG_SECONDS
    while status(port) != 200:
        assert time.monotonic() < deadline, service.log()[-5:]
        time.sleep(0.05)


def status(port: int, path: str = "/readyz") -> int:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=HANG_SECONDS) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as error:
        return error.code


def total(port: int, metric: str) -> float:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=HANG_SECONDS) as answer:
        text = answer.read().decode()
    return sum(float(value) for value in re.findall(rf"^{metric}{{.*}} (\S+)$", text, re.MULTILINE))


@contextlib.contextmanager
def two(
    deployment: FleetDeployment, **environ: str
) -> Iterator[tuple[tuple[ServiceProcess, int], tuple[ServiceProcess, int]]]:
    """Two services of one worker each, with their health's ports."""
    ports = free_port(), free_port()
    first, second = [
        deployment.service(
            "--workers",
            "1",
            name=f"host{number}",
            BROKER_AUTH_METRICS_LISTEN=f"127.0.0.1:{port}",
            **(environ if number == 0 else {}),
        )
        for number, port in enumerate(ports)
    ]
    with first, second:
        yield (first, ports[0]), (second, ports[1])


async def test_a_host_that_stands_still_costs_no_login(deployment: FleetDeployment) -> None:
    with two(deployment) as (first, second):
        await heard(deployment, first, second)
        for (stopped, _), (_, port) in ((first, second), (second, first)):
            os.killpg(stopped.pid, signal.SIGSTOP)
            try:
                assert await lost(deployment) == 0
                await eventually(functools.partial(total, port, "broker_auth_answered_for_others_total"))
            finally:
                os.killpg(stopped.pid, signal.SIGCONT)
            assert await lost(deployment, 20) == 0
        lines = [line.partition("audit: {") for line in (*first[0].log(), *second[0].log())]
        records = [json.loads("{" + rest) for _, found, rest in lines if found]
        cids = [record["cid"] for record in records if record["event"] == "decision"]
        # Some are answered twice where this machine is busy, which does no harm (fact 4).
        assert len(set(cids)) >= 2 * (LOGINS + 20)


async def test_a_host_whose_clock_is_wrong_costs_no_login_asks_for_none_and_comes_back(
    deployment: FleetDeployment, tmp_path: Path
) -> None:
    (tmp_path / "sitecustomize.py").write_text(CLOCK)
    ahead = tmp_path / "ahead"
    with two(deployment, PYTHONPATH=str(tmp_path), CHAOS_CLOCK=str(ahead)) as (first, second):
        await heard(deployment, first, second)
        service, port = first
        ahead.write_bytes(b"x" * 30)
        assert await lost(deployment) == 0
        assert "unsubscribed from requests" in service.wait_for_log(r"clock and ours differ by about [23]\d s")
        await eventually(lambda: status(port) == 503 and total(port, "broker_auth_broker_left_total"))
        mark = service.mark()
        ahead.unlink()
        service.wait_for_log("subscribing to requests again", since=mark)
        assert await lost(deployment) == 0
        service.wait_for_log("subscribing to requests again", since=mark)
        await eventually(lambda: status(port) == 200)


async def test_a_broker_rendered_by_an_older_version_is_served_as_before(tmp_path: Path) -> None:
    deployment = FleetDeployment(tmp_path)
    config = tmp_path / "east.conf"
    config.write_text(config.read_text().replace(f'"{PEERS_SUBJECT}"', '"nobody"'))
    with deployment.running(), deployment.service("--workers", "2") as service:
        assert await lost(deployment, 10) == 0
        assert len([line for line in service.log() if "render it again and restart" in line]) == 2, (
            "one for each worker"
        )
