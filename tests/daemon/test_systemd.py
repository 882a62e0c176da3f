"""Notifications to the service manager."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from broker_auth.daemon.systemd import Notifier
from tests.deadlines import HANG_SECONDS


@pytest.fixture
def manager(tmp_path: Path) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as bound:
        bound.bind(str(tmp_path / "notify"))
        bound.settimeout(HANG_SECONDS)
        yield bound


def receive(manager: socket.socket) -> list[str]:
    return manager.recv(4096).decode().split("\n")


def test_each_state_is_sent(manager: socket.socket) -> None:
    notifier = Notifier({"NOTIFY_SOCKET": manager.getsockname()})
    notifier.ready("all well")
    assert receive(manager) == ["READY=1", "STATUS=all well"]
    notifier.reloading()
    state, moment = receive(manager)
    assert state == "RELOADING=1"
    assert moment.partition("=")[2].isdigit()  # microseconds; systemd refuses a reload without
    notifier.status("fine")
    assert receive(manager) == ["STATUS=fine"]
    notifier.alive()
    assert receive(manager) == ["WATCHDOG=1"]
    notifier.stopping()
    assert receive(manager) == ["STOPPING=1"]


def test_notification_variables_are_removed_from_the_environment(manager: socket.socket) -> None:
    environ = {"NOTIFY_SOCKET": manager.getsockname(), "WATCHDOG_USEC": "1", "WATCHDOG_PID": "1", "HOME": "/"}
    Notifier(environ)
    assert environ == {"HOME": "/"}


def test_abstract_socket_is_supported() -> None:
    name = f"broker-auth-test-{os.getpid()}"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(f"\0{name}")
        manager.settimeout(HANG_SECONDS)
        Notifier({"NOTIFY_SOCKET": f"@{name}"}).alive()
        assert receive(manager) == ["WATCHDOG=1"]


def test_without_service_manager_nothing_is_sent() -> None:
    notifier = Notifier({})
    notifier.ready("ignored")
    assert notifier.watchdog is None


def test_unreachable_service_manager_is_only_logged(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    Notifier({"NOTIFY_SOCKET": str(tmp_path / "gone")}).alive()
    assert "cannot notify the service manager of WATCHDOG=1" in caplog.text


@pytest.mark.parametrize(
    ("environ", "seconds"),
    [
        ({"WATCHDOG_USEC": "10000000"}, 5.0),  # twice as often as needed
        ({"WATCHDOG_USEC": "10000000", "WATCHDOG_PID": str(os.getpid())}, 5.0),
        ({"WATCHDOG_USEC": "10000000", "WATCHDOG_PID": "1"}, None),
        ({"WATCHDOG_USEC": "soon"}, None),
    ],
)
def test_watchdog_of_another_process_is_ignored(environ: dict[str, str], seconds: float | None) -> None:
    assert Notifier(environ).watchdog == seconds
