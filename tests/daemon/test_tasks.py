"""Long-lived tasks never end silently."""

from __future__ import annotations

import asyncio
import logging

import pytest

from broker_auth.daemon.tasks import LongTasks
from tests.daemon.played import run


@pytest.mark.parametrize("raised", [ValueError("odd"), RecursionError(), None], ids=["error", "deep", "end"])
def test_a_task_that_ends_is_logged_counted_and_started_again(
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

    async def test() -> None:
        tasks = LongTasks(lambda: noted.append(1))
        tasks.start("some work", work)
        await asyncio.sleep(2.5)
        assert len(runs) == 3, "a second lies between two attempts"
        await asyncio.sleep(60)
        assert len(runs) == 4
        assert tasks.failures == len(noted) == 3
        await tasks.cancel()

    with caplog.at_level(logging.ERROR):
        run(test())
    assert [record.levelname for record in caplog.records] == ["ERROR"] * 3
    assert all("'some work'" in record.getMessage() for record in caplog.records)


def test_a_task_that_may_end_ends_and_is_restarted_after_an_error_only() -> None:
    runs: list[int] = []

    async def work() -> None:
        runs.append(len(runs))
        if len(runs) == 1:
            raise ValueError

    async def test() -> None:
        tasks = LongTasks()
        tasks.start("once", work, once=True)
        await tasks.finish()
        assert (len(runs), tasks.failures) == (2, 1)

    run(test())
