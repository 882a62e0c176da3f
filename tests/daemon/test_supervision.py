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
from broker_auth.daemon.prepared import Prepared
from broker_auth.daemon.slot import Cause
from broker_auth.daemon.supervisor import DRAIN_DEADLINE, HEARTBEAT_TIMEOUT, TAKEOVER_SECONDS, Supervisor
from broker_auth.daemon.worker import Heartbeat, prepare
from broker_auth.errors import BrokerAuthError, ConfigurationError, OperationError
from tests.callout.deployment import FleetDeployment
from tests.daemon.played import PlayedChild, Starter, run, suspend


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Prepared:
    deployment = FleetDeployment(tmp_path_factory.mktemp("supervised"), ("east", "west"))
    return prepare(deployment.settings().serving("fleet"))


@pytest.fixture(autouse=True)
def _logged(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "broker_auth")


def heartbeat(*, east: bool = True, west: bool = True, admitted: int = 0, oldest: float = 0.0) -> Heartbeat:
    stats = Snapshot(decisions=[("verified_tls", "admitted", admitted)] if admitted else [])
    return Heartbeat(stats=stats, brokers={"east": east, "west": west}, oldest=oldest)


class Supervised:
    """A supervisor and the workers it starts.

    Attributes:
        next_beat: what workers send that are started from now on, by default that they are subscribed.
        outcome: what the next reload returns or raises.
    """

    def __init__(self, prepared: Prepared, workers: int) -> None:
        self.starter = Starter[Heartbeat]()
        self.next_beat: Heartbeat | None = heartbeat()
        self.outcome: Prepared | Exception = prepared
        self.supervisor = Supervisor(prepared, self._reload, workers, start=self._start)

    def _start(self, _: Prepared, on_beat: Callable[[], None]) -> PlayedChild[Heartbeat]:
        return self.starter.start(self.next_beat, on_beat)

    def _reload(self) -> Prepared:
        if isinstance(self.outcome, Exception):
            raise self.outcome
        return self.outcome

    @property
    def workers(self) -> list[PlayedChild[Heartbeat]]:
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
            await self.supervisor.wait_for_change()
        return self.supervisor.reloads[True] > before[True]


@contextlib.asynccontextmanager
async def supervised(prepared: Prepared, workers: int = 2) -> AsyncIterator[Supervised]:
    """Run a supervisor until the test ends, then drain it."""
    zone = Supervised(prepared, workers)
    running = asyncio.create_task(zone.supervisor.run())
    await asyncio.sleep(0.1)
    try:
        yield zone
    finally:
        zone.supervisor.stop()
        await running


def test_workers_start_serve_and_drain(prepared: Prepared, caplog: pytest.LogCaptureFixture) -> None:
    async def test() -> None:
        async with supervised(prepared) as zone:
            (state,) = zone.supervisor.states()
            assert (state.zone, state.alive, state.ready, state.expected_workers) == ("fleet", True, True, 2)
            assert state.brokers == {"east": 2, "west": 2}
            assert len(state.resident) == 2
            await asyncio.sleep(3600)
            assert len(zone.workers) == 2
        assert [worker.signals for worker in zone.workers] == [[signal.SIGTERM]] * 2
        assert zone.supervisor.stopping

    run(test())
    assert caplog.messages == ["ready brokers=east,west", "stopped; every request of a reachable broker is answered"]


def test_a_broker_that_is_away_is_not_called_ready(prepared: Prepared, caplog: pytest.LogCaptureFixture) -> None:
    async def test() -> None:
        async with supervised(prepared) as zone:
            for worker in zone.workers:
                worker.say(heartbeat(west=False))
            (state,) = zone.supervisor.states()
            assert state.brokers == {"east": 2, "west": 0}
            assert not state.ready
            assert state.alive

    run(test())


def test_a_worker_that_keeps_dying_is_replaced_ever_more_slowly(prepared: Prepared) -> None:
    async def test() -> None:
        async with supervised(prepared, workers=1) as zone:
            zone.starter.stillborn = True
            zone.workers[0].die()
            await asyncio.sleep(120)
            gaps = [round(later - earlier, 3) for earlier, later in pairwise(zone.starter.times[1:])]
            assert gaps == [0.5, 1.0, 2.0, 5.0, 10.0, 30.0, 30.0, 30.0]
            assert zone.supervisor.replaced == {Cause.DIED: 10, Cause.STUCK: 0}

    run(test())


def test_a_worker_that_ran_long_is_replaced_at_once(prepared: Prepared) -> None:
    async def test() -> None:
        async with supervised(prepared, workers=1) as zone:
            for _ in range(3):
                await asyncio.sleep(31)
                before = asyncio.get_running_loop().time()
                zone.workers[-1].die()
                await asyncio.sleep(0.01)
                assert zone.starter.times[-1] == before
            assert len(zone.workers) == 4

    run(test())


def test_counts_of_an_ended_worker_are_kept(prepared: Prepared) -> None:
    async def test() -> None:
        async with supervised(prepared) as zone:
            first, second = zone.workers
            first.say(heartbeat(admitted=3))
            second.say(heartbeat(admitted=4))
            first.die()
            await asyncio.sleep(1)
            (state,) = zone.supervisor.states()
            assert state.counted.decisions == [("verified_tls", "admitted", 7)]
            assert state.replaced == {"died": 1, "stuck": 0}

    run(test())


def test_a_silent_worker_is_killed_and_replaced(prepared: Prepared, caplog: pytest.LogCaptureFixture) -> None:
    async def test() -> None:
        async with supervised(prepared) as zone:
            silent, other = zone.workers
            silent.fall_silent()
            await asyncio.sleep(HEARTBEAT_TIMEOUT - 1)
            assert silent.signals == []
            await asyncio.sleep(2)
            assert silent.signals == [signal.SIGKILL]
            assert zone.in_charge == [3, other.pid]
            assert zone.supervisor.replaced == {Cause.DIED: 0, Cause.STUCK: 1}
            zone.workers[-1].die()
            await asyncio.sleep(1)
            assert zone.supervisor.replaced == {Cause.DIED: 1, Cause.STUCK: 1}

    run(test())
    assert any(
        "worker 1 has sent no heartbeat for 3." in message and "is killed" in message for message in caplog.messages
    )


def test_no_service_is_alive_whose_workers_are_all_silent(prepared: Prepared) -> None:
    async def test() -> None:
        async with supervised(prepared, workers=1) as zone:
            assert zone.supervisor.alive
            zone.next_beat = None
            zone.workers[0].fall_silent()
            await asyncio.sleep(HEARTBEAT_TIMEOUT + 0.05)
            assert not zone.supervisor.alive

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
        async with supervised(prepared) as zone:
            worker = zone.workers[0]
            for seconds in oldest:
                worker.say(heartbeat(oldest=seconds))
                await asyncio.sleep(0.6)  # the watchdog looks every half second
            worker.say(heartbeat())
            await asyncio.sleep(1)
            assert (worker.signals == [signal.SIGKILL]) is killed
            assert zone.supervisor.replaced[Cause.STUCK] == killed

    run(test())


def test_a_supervisor_that_was_suspended_loses_no_worker(prepared: Prepared) -> None:
    async def test() -> None:
        async with supervised(prepared) as zone:
            for worker in zone.workers:
                worker.fall_silent()  # the whole machine was suspended, and it is the supervisor that wakes first
            suspend(600)
            await asyncio.sleep(2)
            assert zone.supervisor.alive
            for worker in zone.workers:
                worker.say(heartbeat())
            await asyncio.sleep(2)
            assert zone.in_charge == [1, 2]
            assert [worker.signals for worker in zone.workers] == [[], []]

    run(test())


def test_a_worker_is_started_as_soon_as_the_system_allows_it(
    prepared: Prepared, caplog: pytest.LogCaptureFixture
) -> None:
    async def test() -> None:
        async with supervised(prepared, workers=1) as zone:
            zone.starter.failures = [OSError(errno.EAGAIN, "no processes left")] * 3
            zone.workers[0].die()
            await asyncio.sleep(3.5)
            assert zone.in_charge == [2]
            assert zone.starter.times[1:] == pytest.approx([0.1, 1.1, 2.1, 3.1])

    run(test())
    assert caplog.messages.count("worker cannot be started: no processes left; retrying in 1 s") == 3


def test_signals_for_workers_are_passed_on(prepared: Prepared) -> None:
    async def test() -> None:
        async with supervised(prepared) as zone:
            signal.raise_signal(signal.SIGUSR1)
            await asyncio.sleep(0.1)
            assert [worker.signals for worker in zone.workers] == [[signal.SIGUSR1]] * 2
            signal.raise_signal(signal.SIGHUP)
            await asyncio.sleep(5)
            assert zone.supervisor.reloads == {True: 1, False: 0}

    run(test())


# -- reload ----------------------------------------------------------------------------------------


def test_new_workers_take_over_before_old_ones_drain(prepared: Prepared) -> None:
    changed = dataclasses.replace(prepared)

    async def test() -> None:
        async with supervised(prepared) as zone:
            zone.outcome, zone.next_beat = changed, heartbeat(east=False)
            reloading = asyncio.create_task(zone.reload())
            await asyncio.sleep(5)
            assert zone.supervisor.reloading
            assert (zone.in_charge, len(zone.workers)) == ([1, 2], 4)
            zone.workers[2].say(heartbeat())
            await asyncio.sleep(1)
            assert zone.in_charge == [1, 2]
            zone.workers[3].say(heartbeat())
            assert await reloading
            assert zone.in_charge == [3, 4]
            assert zone.supervisor.prepared is changed
            assert [worker.signals for worker in zone.workers] == [[signal.SIGTERM]] * 2 + [[]] * 2
            assert not zone.supervisor.reloading

    run(test())


def test_a_broker_that_no_worker_reaches_is_not_waited_for(prepared: Prepared) -> None:
    async def test() -> None:
        async with supervised(prepared) as zone:
            for worker in zone.workers:
                worker.say(heartbeat(west=False))
            zone.next_beat = heartbeat(west=False)
            began = asyncio.get_running_loop().time()
            assert await zone.reload()
            assert asyncio.get_running_loop().time() - began < 1

    run(test())


@pytest.mark.parametrize(
    ("sent", "reason"),
    [
        (heartbeat(east=False), "workers cannot subscribe at east"),
        (heartbeat(east=False, west=False), "workers cannot subscribe at east, west"),
        (None, "workers cannot subscribe at east, west"),
    ],
    ids=["one broker", "both", "no heartbeat"],
)
def test_workers_that_do_not_get_in_are_given_up(
    prepared: Prepared, caplog: pytest.LogCaptureFixture, sent: Heartbeat | None, reason: str
) -> None:
    async def test() -> None:
        async with supervised(prepared) as zone:
            zone.outcome, zone.next_beat = dataclasses.replace(prepared), sent
            zone.starter.drains = False
            began = asyncio.get_running_loop().time()
            assert not await zone.reload()
            took = asyncio.get_running_loop().time() - began
            assert TAKEOVER_SECONDS <= took <= TAKEOVER_SECONDS + DRAIN_DEADLINE + 1
            assert zone.in_charge == [1, 2]
            assert zone.supervisor.prepared is prepared
            assert all(worker.status is not None for worker in zone.workers[2:])
            assert [worker.signals for worker in zone.workers[:2]] == [[], []]

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
        async with supervised(prepared) as zone:
            zone.outcome = error
            assert not await zone.reload()
            assert len(zone.workers) == 2
            assert zone.in_charge == [1, 2]
            (state,) = zone.supervisor.states()
            assert (state.accepted, state.refused) == (0, 1)

    run(test())
    assert len([message for message in caplog.messages if message.startswith("not reloaded: ")]) == messages


def test_an_unforeseen_error_in_a_reload_does_not_end_later_reloads(
    prepared: Prepared, caplog: pytest.LogCaptureFixture
) -> None:
    async def test() -> None:
        async with supervised(prepared) as zone:
            zone.outcome = ZeroDivisionError("unforeseen")
            assert not await zone.reload()
            assert zone.in_charge == [1, 2]
            zone.outcome = prepared
            assert await zone.reload()
            assert zone.in_charge == [3, 4]

    run(test())
    (record,) = [record for record in caplog.records if record.levelno == logging.ERROR]
    assert record.getMessage() == "not reloaded: internal error; the old configuration stays"
    assert record.exc_info is not None


def test_stopping_during_a_reload_ends_every_worker(prepared: Prepared) -> None:
    async def test() -> None:
        async with supervised(prepared) as zone:
            zone.next_beat = None
            zone.supervisor.reload()
            await asyncio.sleep(1)
            assert len(zone.workers) == 4
        assert all(worker.status == 0 for worker in zone.workers)

    run(test())


def test_a_worker_that_does_not_drain_is_killed(prepared: Prepared, caplog: pytest.LogCaptureFixture) -> None:
    async def test() -> None:
        async with supervised(prepared) as zone:
            zone.starter.drains = False
            assert await zone.reload()
            zone.supervisor.stop()
            began = asyncio.get_running_loop().time()
        assert asyncio.get_running_loop().time() - began == pytest.approx(DRAIN_DEADLINE)
        assert [worker.signals for worker in zone.workers[2:]] == [[signal.SIGTERM, signal.SIGKILL]] * 2

    run(test())
    assert "worker 3 did not drain (status -9)" in caplog.messages
