"""Long-lived tasks never end silently."""

from __future__ import annotations

import asyncio
import logging
import subprocess
import sys
from pathlib import Path

import pytest

from broker_auth.daemon import tasks as module
from broker_auth.daemon.tasks import LongTasks
from broker_auth.sandbox.lifetime import dies_with_parent
from tests.callout.deployment import Deployment, eventually


@pytest.fixture(autouse=True)
def _at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_RESTART_SECONDS", 0.0)


@pytest.mark.parametrize("raised", [ValueError("odd"), RecursionError(), None], ids=["error", "deep", "end"])
async def test_task_that_ends_is_logged_counted_and_restarted(
    raised: Exception | None, caplog: pytest.LogCaptureFixture
) -> None:
    runs: list[int] = []
    noted: list[int] = []

    async def work() -> None:
        runs.append(len(runs))
        if len(runs) > 3:
            await asyncio.Event().wait()
        if raised is not None:
            raise raised

    tasks = LongTasks(lambda: noted.append(1))
    with caplog.at_level(logging.ERROR):
        tasks.start("some work", work)
        await eventually(lambda: len(runs) == 4)
    assert tasks.failures == len(noted) == 3
    assert [record.levelname for record in caplog.records] == ["ERROR"] * 3
    assert all("'some work'" in record.getMessage() for record in caplog.records)
    await tasks.cancel()


async def test_finite_task_is_restarted_only_after_an_error() -> None:
    runs: list[int] = []

    async def work() -> None:
        runs.append(len(runs))
        if len(runs) == 1:
            raise ValueError

    tasks = LongTasks()
    tasks.start("once", work, once=True)
    await tasks.finish()
    assert (len(runs), tasks.failures) == (2, 1)


PROGRAM = """
import asyncio, os, signal, sys
from pathlib import Path
from broker_auth.daemon.worker import prepare
from broker_auth.daemon.supervisor import Supervisor
from broker_auth.settings.load import load

prepared = prepare(load(Path(sys.argv[1]), {}, serving=True).serving("fleet"))
outcomes = [ZeroDivisionError("unexpected"), None]

def reload():
    outcome = outcomes.pop(0)
    if outcome is not None:
        raise outcome
    return prepared

async def until(true):
    while not true():
        await asyncio.sleep(0.05)

async def main():
    supervisor = Supervisor(prepared, reload)
    running = asyncio.create_task(supervisor.run())
    pids = lambda: [worker.pid for worker in supervisor.workers]
    await until(lambda: supervisor.ready)
    before = pids()
    os.kill(os.getpid(), signal.SIGHUP)
    await until(lambda: supervisor.reloads[False])
    print(pids() == before, supervisor.reloading, flush=True)
    os.kill(os.getpid(), signal.SIGHUP)
    await until(lambda: supervisor.reloads[True])
    print(pids() == before, supervisor.reloading, flush=True)
    supervisor.stop()
    await running

asyncio.run(main())
"""


@pytest.mark.e2e
def test_unexpected_error_in_a_reload_does_not_prevent_later_reloads(tmp_path: Path) -> None:
    """The service logs the error, keeps the old configuration, and accepts the next reload."""
    deployment = Deployment(tmp_path)
    with deployment.running():
        command = dies_with_parent([sys.executable, "-c", PROGRAM, str(deployment.config)])
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.stdout.splitlines() == ["True False", "False False"], done.stderr
    assert "not reloaded: internal error; the old configuration stays" in done.stderr
    assert "ZeroDivisionError: unexpected" in done.stderr
