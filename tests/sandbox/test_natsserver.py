"""A real nats-server starts, reports its ports, and is stopped reliably."""

from __future__ import annotations

import os
import select
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from broker_auth.deploy.natsbinary import check_configuration
from broker_auth.errors import OperationError
from broker_auth.sandbox.natsserver import NatsServer, free_port
from tests.deadlines import HANG_SECONDS

pytestmark = pytest.mark.e2e


@pytest.fixture
def config(tmp_path: Path) -> Path:
    path = tmp_path / "nats.conf"
    path.write_text('listen: "127.0.0.1:-1"\n')
    return path


def accepts(port: int) -> bool:
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=HANG_SECONDS) as connection:
            return connection.recv(4) == b"INFO"
    except ConnectionRefusedError:
        return False


def test_server_is_ready_after_start_and_gone_after_stop(config: Path) -> None:
    with NatsServer(config) as server:
        port = server.port()
        assert accepts(port)
        pid = server.pid
    assert not accepts(port)
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)
    assert "Server is ready" in server.log_file.read_text()


async def test_server_is_an_async_context_manager(config: Path) -> None:
    async with NatsServer(config) as server:
        assert accepts(server.port())
    assert not server.running


def test_suspended_server_is_stopped(config: Path) -> None:
    server = NatsServer(config)
    server.start()
    pid = server.pid
    server.signal(signal.SIGSTOP)
    server.stop()
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


def test_killed_server_can_be_started_again(config: Path) -> None:
    with NatsServer(config) as server:
        first = server.pid
        server.kill()
        assert not server.running
        server.start()
        assert server.pid != first
        assert accepts(server.port())


def test_refused_configuration_raises_with_the_reason(config: Path) -> None:
    config.write_text("no_such_field: 1\n")
    with pytest.raises(OperationError, match="no_such_field"):
        check_configuration(config)
    server = NatsServer(config)
    with pytest.raises(OperationError, match="no_such_field"):
        server.start()
    assert not server.running


def test_reload_waits_and_raises_if_refused(config: Path) -> None:
    with NatsServer(config) as server:
        config.write_text('listen: "127.0.0.1:-1"\nmax_payload: 4096\n')
        server.reload()
        assert any("max_payload" in line for line in server.log())
        config.write_text("no_such_field: 1\n")
        with pytest.raises(OperationError, match="did not reload"):
            server.reload()
        assert server.running


def test_missing_log_line_raises(config: Path) -> None:
    with NatsServer(config) as server, pytest.raises(OperationError, match="did not log 'never logged'"):
        server.wait_for_log("never logged", timeout=0.05)


def test_server_dies_with_a_killed_parent(config: Path) -> None:
    program = (
        "import sys, time; from pathlib import Path; from broker_auth.sandbox.natsserver import NatsServer\n"
        f"server = NatsServer(Path({str(config)!r})); server.start()\n"
        "print(server.pid, flush=True); time.sleep(600)"
    )
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout
        watched = os.pidfd_open(int(parent.stdout.readline()))
        try:
            parent.kill()
            ended, _, _ = select.select([watched], [], [], 10)
        finally:
            os.close(watched)
    assert ended, "nats-server outlived its parent"


def test_free_ports_are_distinct() -> None:
    assert len({free_port() for _ in range(300)}) == 300


def test_free_ports_can_be_bound() -> None:
    port = free_port()
    assert port < 32768  # below the ephemeral ports
    with socket.create_server(("127.0.0.1", port)):
        pass
