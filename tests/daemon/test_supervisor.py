"""Dead and stuck workers are replaced; shutdown and failed starts are orderly."""

from __future__ import annotations

import asyncio
import os
import resource
import signal
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
from nats.errors import Error as NatsError

from broker_auth.daemon.pidfile import PidFile, running
from broker_auth.errors import OperationError
from broker_auth.sandbox.service import ServiceProcess
from tests.callout.deployment import FleetDeployment, eventually
from tests.deadlines import HANG_SECONDS

pytestmark = pytest.mark.e2e


@pytest.fixture(scope="module")
def deployment(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FleetDeployment]:
    supervised = FleetDeployment(tmp_path_factory.mktemp("supervised"))
    with supervised.running():
        yield supervised


@pytest.fixture
def service(deployment: FleetDeployment) -> Iterator[ServiceProcess]:
    with deployment.service("--workers", "2") as running_service:
        yield running_service


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


async def test_killed_worker_is_replaced(deployment: FleetDeployment, service: ServiceProcess) -> None:
    first, second = service.workers
    mark = service.mark()
    os.kill(first, signal.SIGKILL)
    assert "status -9" in service.wait_for_log(rf"worker {first} died", since=mark)
    service.wait_for_log("subscribed at", since=mark)
    pids = service.workers
    assert len(pids) == 2
    assert second in pids
    assert first not in pids
    await (await deployment.connect()).close()


async def test_suspended_worker_is_killed_and_replaced(deployment: FleetDeployment, service: ServiceProcess) -> None:
    stopped, other = service.workers
    mark = service.mark()
    os.kill(stopped, signal.SIGSTOP)
    service.wait_for_log(rf"worker {stopped} has sent no heartbeat for \d\.\d s and is killed", 10, since=mark)
    service.wait_for_log(rf"worker {stopped} stuck", since=mark)
    service.wait_for_log("subscribed at", since=mark)
    assert not alive(stopped)
    assert alive(other)
    await (await deployment.connect()).close()


async def test_a_worker_is_replaced_as_soon_as_the_system_allows_it(
    deployment: FleetDeployment, service: ServiceProcess
) -> None:
    """Out of memory or descriptors, as the death of a worker may have been."""
    (victim, _), supervisor = service.workers, service.pid
    before = resource.prlimit(supervisor, resource.RLIMIT_NOFILE)
    mark = service.mark()
    resource.prlimit(supervisor, resource.RLIMIT_NOFILE, (3, before[1]))
    os.kill(victim, signal.SIGKILL)
    service.wait_for_log("worker cannot be started: Too many open files", since=mark)
    resource.prlimit(supervisor, resource.RLIMIT_NOFILE, before)
    service.wait_for_log("subscribed at", since=mark)
    await eventually(lambda: len(service.workers) == 2)
    await (await deployment.connect()).close()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_service_drains_on_signal(service: ServiceProcess, number: signal.Signals) -> None:
    workers = service.workers
    service.signal(number)
    assert service.wait() == 0
    assert not any(alive(pid) for pid in workers)
    assert "stopped; every request" in service.log()[-1]


def test_interrupting_the_process_group_is_not_an_error(service: ServiceProcess) -> None:
    """Ctrl-C in a terminal is sent to workers and supervisor."""
    os.killpg(service.pid, signal.SIGINT)
    assert service.wait() == 0
    assert not [line for line in service.log() if " ERROR " in line]


async def test_workers_end_with_a_killed_supervisor(service: ServiceProcess) -> None:
    workers = service.workers
    service.signal(signal.SIGKILL)
    service.wait()
    await eventually(lambda: not any(alive(pid) for pid in workers))


async def test_suspended_worker_does_not_block_shutdown(service: ServiceProcess) -> None:
    stopped = service.workers[0]
    os.kill(stopped, signal.SIGSTOP)
    service.signal(signal.SIGTERM)
    assert service.wait() == 0
    assert not alive(stopped)
    assert [line for line in service.log() if f"worker {stopped} has sent no heartbeat" in line]


async def test_waits_for_brokers_that_are_down(tmp_path: Path) -> None:
    deployment = FleetDeployment(tmp_path, ("east", "west"))
    with deployment.servers["east"]:
        service = deployment.service()
        service.launch()
        try:
            service.wait_for_log("broker east: subscribed")
            await (await deployment.connect("east")).close()
            assert not [line for line in service.log() if "ready brokers=" in line]
            with deployment.servers["west"]:
                service.wait_for_log("ready brokers=east,west")
                await (await deployment.connect("west")).close()
        finally:
            assert service.terminate() == 0


@pytest.mark.parametrize(
    "greeting", [b"INFO {not json}\r\n", b"INFO []\r\n", b"\xff\xfe\x00\r\n", b"220 mail\r\n", b""]
)
async def test_retries_endpoint_that_does_not_speak_nats(tmp_path: Path, greeting: bytes) -> None:
    deployment = FleetDeployment(tmp_path)

    async def greet(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(greeting)
        writer.close()

    impostor = await asyncio.start_server(greet, "127.0.0.1", deployment.ports["east"])
    service = deployment.service()
    service.launch()
    try:
        await asyncio.to_thread(service.wait_for_log, "WARNING .* broker east: ")
        impostor.close()
        await impostor.wait_closed()
        with deployment.servers["east"]:
            await asyncio.to_thread(service.wait_for_log, "ready brokers=east")
            await (await deployment.connect()).close()
    finally:
        assert service.terminate() == 0
    assert not [line for line in service.log() if "Traceback" in line]


async def test_connections_survive_without_any_service(deployment: FleetDeployment) -> None:
    with deployment.service():
        client = await deployment.connect()
        received = await client.subscribe("still.here")
    with pytest.raises((NatsError, TimeoutError)):
        await deployment.connect(seconds=1)
    await client.publish("still.here", b"yes")
    assert (await received.next_msg(timeout=HANG_SECONDS)).data == b"yes"
    await client.close()


def test_bad_configuration_fails_at_start_with_every_problem(tmp_path: Path) -> None:
    deployment = FleetDeployment(tmp_path)
    deployment.write_config("plugin.broker_auth.tokn_leeway = 5s", "plugin.broker_auth.workers = 0")
    service = deployment.service()
    service.launch()
    assert service.wait() == 1
    errors = service.log()
    assert len(errors) == 2
    assert all(line.startswith(f"Error: {deployment.config}:") for line in errors)
    assert "did you mean plugin.broker_auth.token_leeway" in errors[0]


def test_audit_file_that_cannot_be_opened_fails_the_start(tmp_path: Path) -> None:
    deployment = FleetDeployment(tmp_path)
    deployment.write_config("plugin.broker_auth.audit.output = file:missing/audit.jsonl")
    service = deployment.service()
    service.launch()
    assert service.wait() == 1
    assert service.log()[-1].startswith("Error: audit file")


def test_metrics_address_in_use_fails_the_start(deployment: FleetDeployment, tmp_path: Path) -> None:
    other = FleetDeployment(tmp_path)
    other.write_config(f"plugin.broker_auth.metrics.listen = 127.0.0.1:{deployment.ports['east']}")
    service = other.service()
    service.launch()
    assert service.wait() == 1
    assert "Error: plugin.broker_auth.metrics.listen" in service.log()[-1]


def test_pid_file_is_exclusive(tmp_path: Path) -> None:
    path = tmp_path / "service.pid"
    held = PidFile(path)
    with pytest.raises(OperationError, match="held by a running service"):
        PidFile(path)
    assert running(path).pid == os.getpid()
    assert path.stat().st_mode & 0o077 == 0, "a process that can open the file can lock it"
    held.remove()
    assert not path.exists()


def test_stale_pid_file_is_recognized(tmp_path: Path) -> None:
    path = tmp_path / "service.pid"
    held = PidFile(path)
    content = path.read_text()
    held.remove()
    path.write_text(content)
    with pytest.raises(OperationError, match="no service runs"):
        running(path)


def test_service_manager_is_notified_of_start_reload_and_stop(tmp_path: Path) -> None:
    deployment = FleetDeployment(tmp_path)
    address = tmp_path / "notify"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager, deployment.servers["east"]:
        manager.bind(str(address))
        manager.settimeout(HANG_SECONDS)
        with deployment.service(NOTIFY_SOCKET=str(address), WATCHDOG_USEC="2000000") as service:
            messages = _receive(manager, "READY=1")
            service.signal(signal.SIGHUP)
            messages += _receive(manager, "RELOADING=1")
            messages += _receive(manager, "READY=1")
            messages += _receive(manager, "WATCHDOG=1")
        messages += _receive(manager, "STOPPING=1")
    assert "READY=1\nSTATUS=zone fleet: workers 1/1; subscribed: east 1" in messages
    assert any("MONOTONIC_USEC=" in message for message in messages)


def _receive(manager: socket.socket, expected: str) -> list[str]:
    """Return the messages up to the first with the line ``expected``."""
    messages: list[str] = []
    while not messages or expected not in messages[-1].split("\n"):
        messages.append(manager.recv(4096).decode())
    return messages
