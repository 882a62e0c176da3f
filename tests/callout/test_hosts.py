"""Two services like on two hosts: a suspended one, a wrong clock or a missing permission costs no login."""

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
AT_ONCE = 8  # bounds the load on a slow machine
# A machine that pauses for seconds makes a client give up now and then; a host that takes its share with it costs half.
PAUSES = 2


@pytest.fixture(scope="module")
def deployment(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FleetDeployment]:
    deployment = FleetDeployment(tmp_path_factory.mktemp("hosts"))
    deployment.write_config("plugin.broker_auth.audit.output = log")
    with deployment.running():
        yield deployment


async def lost(deployment: FleetDeployment, logins: int = LOGINS) -> list[BaseException]:
    """Log in once each 25 ms; return why the logins failed that were not admitted at the first attempt."""
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
    return [result for result in results if result is not None]


async def peers_are_known(deployment: FleetDeployment, *services: tuple[ServiceProcess, int]) -> None:
    """Wait until two workers know each other: one announces itself as the guard, the other as the deputy."""
    for service, port in services:
        await asyncio.to_thread(eventually_ready, service, port)
    observer = await deployment.watch()
    messages = await observer.subscribe(PEERS_SUBJECT)
    duties: dict[bytes, bytes] = {}
    async with asyncio.timeout(HANG_SECONDS):
        while sorted(duties.values()) != [Duty.DEPUTY.encode(), Duty.GUARD.encode()]:
            _, worker, _, _, duty, *_ = (await messages.next_msg(HANG_SECONDS)).data.split()
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
def two_hosts(
    deployment: FleetDeployment, **environ: str
) -> Iterator[tuple[tuple[ServiceProcess, int], tuple[ServiceProcess, int]]]:
    """Run two services of one worker each; yield them with the ports of their health pages."""
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


async def test_suspended_host_costs_no_login(deployment: FleetDeployment) -> None:
    with two_hosts(deployment) as (first, second):
        await peers_are_known(deployment, first, second)
        for (stopped, _), (_, port) in ((first, second), (second, first)):
            os.killpg(stopped.pid, signal.SIGSTOP)
            try:
                failures = await lost(deployment)
                assert len(failures) <= PAUSES, failures
                await eventually(functools.partial(total, port, "broker_auth_answered_for_others_total"))
            finally:
                os.killpg(stopped.pid, signal.SIGCONT)
            failures = await lost(deployment, LOGINS // 2)
            assert len(failures) <= PAUSES, failures
        lines = [line.partition("audit: {") for line in (*first[0].log(), *second[0].log())]
        records = [json.loads("{" + rest) for _, separator, rest in lines if separator]
        cids = [record["cid"] for record in records if record["event"] == "decision"]
        # A busy machine may answer some requests twice, which is harmless (fact 4).
        assert len(set(cids)) >= 2 * (LOGINS + LOGINS // 2 - 2 * PAUSES)


async def test_host_with_wrong_clock_costs_no_login_unsubscribes_and_returns(
    deployment: FleetDeployment, tmp_path: Path
) -> None:
    (tmp_path / "sitecustomize.py").write_text(CLOCK)
    ahead = tmp_path / "ahead"
    with two_hosts(deployment, PYTHONPATH=str(tmp_path), CHAOS_CLOCK=str(ahead)) as (first, second):
        await peers_are_known(deployment, first, second)
        service, port = first
        ahead.write_bytes(b"x" * 30)
        failures = await lost(deployment)
        assert len(failures) <= PAUSES, failures
        assert "unsubscribed from requests" in service.wait_for_log(r"clock and ours differ by about [23]\d s")
        await eventually(lambda: status(port) == 503 and total(port, "broker_auth_broker_left_total"))
        mark = service.mark()
        ahead.unlink()
        service.wait_for_log("subscribing to requests again", since=mark)
        failures = await lost(deployment)
        assert len(failures) <= PAUSES, failures
        service.wait_for_log("subscribing to requests again", since=mark)
        await eventually(lambda: status(port) == 200)


async def test_broker_rendered_by_an_older_version_is_served(tmp_path: Path) -> None:
    deployment = FleetDeployment(tmp_path)
    config = tmp_path / "east.conf"
    config.write_text(config.read_text().replace(f'"{PEERS_SUBJECT}"', '"nobody"'))
    with deployment.running(), deployment.service("--workers", "2") as service:
        failures = await lost(deployment, LOGINS // 4)
        assert len(failures) <= PAUSES, failures
        assert len([line for line in service.log() if "render it again and restart" in line]) == 2, (
            "one for each worker"
        )
