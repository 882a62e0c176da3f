"""Supervising workers, with workers that a test plays: when they are replaced, and how a reload takes over."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import errno
import logging
import signal
from collections.abc import AsyncIterator, Callable
from itertools import pairwise

import pytest

from broker_auth.callout.stats import Snapshot
from broker_auth.daemon.slot import Cause
from broker_auth.daemon.supervisor import DRAIN_DEADLINE, SILENCE_SECONDS, TAKEOVER_SECONDS, Supervisor
from broker_auth.daemon.worker import Beat, Prepared, prepare
from broker_auth.errors import BrokerAuthError, ConfigurationError, OperationError
from tests.callout.deployment import Deployment
from tests.daemon.played import PlayedChild, Starter, run, suspend


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Prepared:
    deployment = Deployment(tmp_path_factory.mktemp("supervised"), ("east", "west"))
    return prepare(deployment.settings().serving("fleet"))


@pytest.fixture(autouse=True)
def _logged(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "broker_auth")


def beat(*, east: bool = True, west: bool = True, admitted: int = 0, oldest: float = 0.0) -> Beat:
    stats = Snapshot(decisions=[("verified_tls", "admitted", admitted)] if admitted else [])
    return Beat(stats=stats, brokers={"east": east, "west": west}, oldest=oldest)


class Supervised:
    """A supervisor and the workers it starts.

    Attributes:
        next_beat: what workers send that are started from now on, by default that they are subscribed.
        outcome: what the next reload returns or raises.
    """

    def __init__(self, prepared: Prepared, workers: int) -> None:
        self.starter = Starter[Beat]()
        self.next_beat: Beat | None = beat()
        self.outcome: Prepared | Exception = prepared
        self.supervisor = Supervisor(prepared, self._reload, workers, start=self._start)

    def _start(self, _: Prepared, on_beat: Callable[[], None]) -> PlayedChild[Beat]:
        return self.starter.start(self.next_beat, on_beat)

    def _reload(self) -> Prepared:
        if isinstance(self.outcome, Exception):
            raise self.outcome
        return self.outcome

    @property
    def workers(self) -> list[PlayedChild[Beat]]:
        """The workers that were started."""
        return self.starter.children

    @property
    def in_charge(self) -> list[int]:
        """The process ids of those that answer."""
        return [worker.pid for worker in self.supervisor.workers]

    async def reload(self) -> bool:
        """Reload, and return whether the configuration was accepted."""
        before = dict(self.supervisor.reloads)
        self.supervisor.reload()
        while self.supervisor.reloads == before:
            await self.supervisor.news()
        return self.supervisor.reloads[True] > before[True]


@contextlib.asynccontextmanager
async def supervised(prepared: Prepared, workers: int = 2) -> AsyncIterator[Supervised]:
    """Run a supervisor until the test ends, then drain it."""
    site = Supervised(prepared, workers)
    running = asyncio.create_task(site.supervisor.run())
    await asyncio.sleep(0.1)
    try:
        yield site
    finally:
        site.supervisor.stop()
        await running


def test_workers_start_serve_and_drain(prepared: Prepared, caplog: pytest.LogCaptureFixture) -> None:
    async def test() -> None:
        async with supervised(prepared) as site:
            (state,) = site.supervisor.states()
            assert (state.zone, state.alive, state.ready, state.wanted) == ("fleet", True, True, 2)
            assert state.brokers == {"east": 2, "west": 2}
            assert len(state.resident) == 2
            await asyncio.sleep(3600)
            assert len(site.workers) == 2
        assert [worker.signals for worker in site.workers] == [[signal.SIGTERM]] * 2
        assert site.supervisor.stopping

    run(test())
    assert caplog.messages == ["ready brokers=east,west", "drained, every request received is answered"]


def test_a_broker_that_is_away_is_not_called_ready(prepared: Prepared, caplog: pytest.LogCaptureFixture) -> None:
    async def test() -> None:
        async with supervised(prepared) as site:
            for worker in site.workers:
                worker.say(beat(west=False))
            (state,) = site.supervisor.states()
            assert state.brokers == {"east": 2, "west": 0}
            assert not state.ready
            assert state.alive

    run(test())


def test_a_worker_that_keeps_dying_is_replaced_ever_more_slowly(prepared: Prepared) -> None:
    async def test() -> None:
        async with supervised(prepared, workers=1) as site:
            site.starter.stillborn = True
            site.workers[0].die()
            await asyncio.sleep(120)
            gaps = [round(later - earlier, 3) for earlier, later in pairwise(site.starter.times[1:])]
            assert gaps == [0.5, 1.0, 2.0, 5.0, 10.0, 30.0, 30.0, 30.0]
            assert site.supervisor.replaced == {Cause.DIED: 10, Cause.STUCK: 0}

    run(test())


def test_a_worker_that_ran_long_is_replaced_at_once(prepared: Prepared) -> None:
    async def test() -> None:
        async with supervised(prepared, workers=1) as site:
            for _ in range(3):
                await asyncio.sleep(31)
                before = asyncio.get_running_loop().time()
                site.workers[-1].die()
                await asyncio.sleep(0.01)
                assert site.starter.times[-1] == before
            assert len(site.workers) == 4

    run(test())


def test_what_a_worker_counted_is_kept_when_it_has_ended(prepared: Prepared) -> None:
    async def test() -> None:
        async with supervised(prepared) as site:
            first, second = site.workers
            first.say(beat(admitted=3))
            second.say(beat(admitted=4))
            first.die()
            await asyncio.sleep(1)
            (state,) = site.supervisor.states()
            assert state.counted.decisions == [("verified_tls", "admitted", 7)]
            assert state.replaced == {"died": 1, "stuck": 0}

    run(test())


def test_a_silent_worker_is_killed_and_replaced(prepared: Prepared, caplog: pytest.LogCaptureFixture) -> None:
    async def test() -> None:
        async with supervised(prepared) as site:
            silent, other = site.workers
            silent.fall_silent()
            await asyncio.sleep(SILENCE_SECONDS - 1)
            assert silent.signals == []
            await asyncio.sleep(2)
            assert silent.signals == [signal.SIGKILL]
            assert site.in_charge == [3, other.pid]
            assert site.supervisor.replaced == {Cause.DIED: 0, Cause.STUCK: 1}
            site.workers[-1].die()
            await asyncio.sleep(1)
            assert site.supervisor.replaced == {Cause.DIED: 1, Cause.STUCK: 1}

    run(test())
    assert any("worker 1 sent nothing for 3." in message and "is killed" in message for message in caplog.messages)


def test_no_service_is_alive_whose_workers_are_all_silent(prepared: Prepared) -> None:
    async def test() -> None:
        async with supervised(prepared, workers=1) as site:
            assert site.supervisor.alive
            site.next_beat = None
            site.workers[0].fall_silent()
            await asyncio.sleep(SILENCE_SECONDS + 0.05)
            assert not site.supervisor.alive

    run(test())


@pytest.mark.parametrize(
    ("oldest", "killed"),
    [
        pytest.param((0.0, 1.4, 0.0), False, id="a busy worker"),
        pytest.param((6.0, 0.0, 6.0), False, id="suspended twice"),
        pytest.param((6.0, 7.0), True, id="requests wait although it is heard"),
    ],
)
def test_a_worker_that_lets_requests_wait_is_stuck(prepared: Prepared, oldest: tuple[float, ...], killed: bool) -> None:
    async def test() -> None:
        async with supervised(prepared) as site:
            worker = site.workers[0]
            for seconds in oldest:
                worker.say(beat(oldest=seconds))
                await asyncio.sleep(0.6)  # the watchdog looks every half second
            worker.say(beat())
            await asyncio.sleep(1)
            assert (worker.signals == [signal.SIGKILL]) is killed
            assert site.supervisor.replaced[Cause.STUCK] == killed

    run(test())


def test_a_supervisor_that_was_suspended_loses_no_worker(prepared: Prepared) -> None:
    async def test() -> None:
        async with supervised(prepared) as site:
            for worker in site.workers:
                worker.fall_silent()  # the whole machine was suspended, and it is the supervisor that wakes first
            suspend(600)
            await asyncio.sleep(2)
            assert site.supervisor.alive
            for worker in site.workers:
                worker.say(beat())
            await asyncio.sleep(2)
            assert site.in_charge == [1, 2]
            assert [worker.signals for worker in site.workers] == [[], []]

    run(test())


def test_a_worker_is_started_as_soon_as_the_system_allows_it(
    prepared: Prepared, caplog: pytest.LogCaptureFixture
) -> None:
    async def test() -> None:
        async with supervised(prepared, workers=1) as site:
            site.starter.failures = [OSError(errno.EAGAIN, "no processes left")] * 3
            site.workers[0].die()
            await asyncio.sleep(3.5)
            assert site.in_charge == [2]
            assert site.starter.times[1:] == pytest.approx([0.1, 1.1, 2.1, 3.1])

    run(test())
    assert caplog.messages.count("worker cannot be started: no processes left; tried again in 1 s") == 3


def test_signals_for_workers_are_passed_on(prepared: Prepared) -> None:
    async def test() -> None:
        async with supervised(prepared) as site:
            signal.raise_signal(signal.SIGUSR1)
            await asyncio.sleep(0.1)
            assert [worker.signals for worker in site.workers] == [[signal.SIGUSR1]] * 2
            signal.raise_signal(signal.SIGHUP)
            await asyncio.sleep(5)
            assert site.supervisor.reloads == {True: 1, False: 0}

    run(test())


# -- reload ----------------------------------------------------------------------------------------


def test_new_workers_take_over_before_old_ones_drain(prepared: Prepared) -> None:
    changed = dataclasses.replace(prepared)

    async def test() -> None:
        async with supervised(prepared) as site:
            site.outcome, site.next_beat = changed, beat(east=False)
            reloading = asyncio.create_task(site.reload())
            await asyncio.sleep(5)
            assert site.supervisor.reloading
            assert (site.in_charge, len(site.workers)) == ([1, 2], 4)
            site.workers[2].say(beat())
            await asyncio.sleep(1)
            assert site.in_charge == [1, 2]
            site.workers[3].say(beat())
            assert await reloading
            assert site.in_charge == [3, 4]
            assert site.supervisor.prepared is changed
            assert [worker.signals for worker in site.workers] == [[signal.SIGTERM]] * 2 + [[]] * 2
            assert not site.supervisor.reloading

    run(test())


def test_a_broker_that_no_worker_reaches_is_not_waited_for(prepared: Prepared) -> None:
    async def test() -> None:
        async with supervised(prepared) as site:
            for worker in site.workers:
                worker.say(beat(west=False))
            site.next_beat = beat(west=False)
            began = asyncio.get_running_loop().time()
            assert await site.reload()
            assert asyncio.get_running_loop().time() - began < 1

    run(test())


@pytest.mark.parametrize(
    ("sent", "reason"),
    [
        (beat(east=False), "workers do not get subscribed at east"),
        (beat(east=False, west=False), "workers do not get subscribed at east, west"),
        (None, "workers do not get subscribed at east, west"),
    ],
    ids=["one broker", "both", "no heartbeat"],
)
def test_workers_that_do_not_get_in_are_given_up(
    prepared: Prepared, caplog: pytest.LogCaptureFixture, sent: Beat | None, reason: str
) -> None:
    async def test() -> None:
        async with supervised(prepared) as site:
            site.outcome, site.next_beat = dataclasses.replace(prepared), sent
            site.starter.drains = False
            began = asyncio.get_running_loop().time()
            assert not await site.reload()
            took = asyncio.get_running_loop().time() - began
            assert TAKEOVER_SECONDS <= took <= TAKEOVER_SECONDS + DRAIN_DEADLINE + 1
            assert site.in_charge == [1, 2]
            assert site.supervisor.prepared is prepared
            assert all(worker.status is not None for worker in site.workers[2:])
            assert [worker.signals for worker in site.workers[:2]] == [[], []]

    run(test())
    expected = f"not reloaded: with the new configuration {reason}; the old one stays"
    assert expected in caplog.messages


@pytest.mark.parametrize(
    ("error", "messages"),
    [
        (ConfigurationError(["a: is odd; write b", "c: is odd; write d"]), 2),
        (OperationError("audit file cannot be opened"), 1),
    ],
    ids=["problems", "error"],
)
def test_a_bad_configuration_reaches_no_worker(
    prepared: Prepared, caplog: pytest.LogCaptureFixture, error: BrokerAuthError, messages: int
) -> None:
    async def test() -> None:
        async with supervised(prepared) as site:
            site.outcome = error
            assert not await site.reload()
            assert len(site.workers) == 2
            assert site.in_charge == [1, 2]
            (state,) = site.supervisor.states()
            assert (state.accepted, state.refused) == (0, 1)

    run(test())
    assert len([message for message in caplog.messages if message.startswith("not reloaded: ")]) == messages


def test_an_unforeseen_error_in_a_reload_does_not_end_later_reloads(
    prepared: Prepared, caplog: pytest.LogCaptureFixture
) -> None:
    async def test() -> None:
        async with supervised(prepared) as site:
            site.outcome = ZeroDivisionError("unforeseen")
            assert not await site.reload()
            assert site.in_charge == [1, 2]
            site.outcome = prepared
            assert await site.reload()
            assert site.in_charge == [3, 4]

    run(test())
    (record,) = [record for record in caplog.records if record.levelno == logging.ERROR]
    assert record.getMessage() == "not reloaded: an error in this program; the old configuration stays"
    assert record.exc_info is not None


def test_stopping_during_a_reload_ends_every_worker(prepared: Prepared) -> None:
    async def test() -> None:
        async with supervised(prepared) as site:
            site.next_beat = None
            site.supervisor.reload()
            await asyncio.sleep(1)
            assert len(site.workers) == 4
        assert all(worker.status == 0 for worker in site.workers)

    run(test())


def test_a_worker_that_does_not_drain_is_killed(prepared: Prepared, caplog: pytest.LogCaptureFixture) -> None:
    async def test() -> None:
        async with supervised(prepared) as site:
            site.starter.drains = False
            assert await site.reload()
            site.supervisor.stop()
            began = asyncio.get_running_loop().time()
        assert asyncio.get_running_loop().time() - began == pytest.approx(DRAIN_DEADLINE)
        assert [worker.signals for worker in site.workers[2:]] == [[signal.SIGTERM, signal.SIGKILL]] * 2

    run(test())
    assert "worker 3 did not drain (status -9)" in caplog.messages
