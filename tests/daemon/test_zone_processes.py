"""Zones whose processes a test plays: what they say is shown, what they need is waited for, and no more."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import signal
from collections.abc import AsyncIterator, Callable

import pytest

from broker_auth.callout.stats import Snapshot
from broker_auth.daemon.state import ZoneState
from broker_auth.daemon.zones import HEARTBEAT_TIMEOUT, Zones
from broker_auth.errors import ConfigurationError
from tests.daemon.played import PlayedChild, Starter, run


@pytest.fixture(autouse=True)
def _logged(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "broker_auth")


def serving(zone: str, up: int = 1, admitted: int = 0) -> ZoneState:
    counted = Snapshot(decisions=[("verified_tls", "admitted", admitted)] if admitted else [])
    return ZoneState(zone=zone, alive=True, ready=up > 0, brokers={zone: up}, counted=counted, resident=(1,))


class Host:
    """The zones, and their processes by name.

    Attributes:
        names: the zones of the configuration, or what reading it raises.
        first: what the process of a zone sends, by default that it serves.
    """

    def __init__(self, *names: str) -> None:
        self.names: tuple[str, ...] | ConfigurationError = names
        self.first: dict[str, ZoneState | None] = {}
        self.starters = {name: Starter[ZoneState](100 * number) for number, name in enumerate((*names, "new"), 1)}
        self.zones = Zones(names, self._start, self._names_now)

    def _start(self, name: str, on_beat: Callable[[], None]) -> PlayedChild[ZoneState]:
        return self.starters[name].start(self.first.get(name, serving(name)), on_beat)

    def _names_now(self) -> tuple[str, ...]:
        if isinstance(self.names, ConfigurationError):
            raise self.names
        return self.names

    def process(self, name: str) -> PlayedChild[ZoneState]:
        """Return the last process of a zone."""
        return self.starters[name].children[-1]

    async def reload(self) -> None:
        signal.raise_signal(signal.SIGHUP)
        await asyncio.sleep(0.1)


@contextlib.asynccontextmanager
async def hosted(host: Host) -> AsyncIterator[Zones]:
    """Run the zones until the test ends, then drain them."""
    running = asyncio.create_task(host.zones.run())
    await asyncio.sleep(0.1)
    try:
        yield host.zones
    finally:
        signal.raise_signal(signal.SIGTERM)
        await running


def test_zones_are_announced_once_each_broker_is_served(caplog: pytest.LogCaptureFixture) -> None:
    host = Host("fleet", "edge")
    host.first["edge"] = serving("edge", up=0)

    async def test() -> None:
        async with hosted(host) as zones:
            assert (zones.ready, caplog.messages) == (False, [])
            assert [state.zone for state in zones.states()] == ["fleet", "edge"]
            host.process("edge").say(serving("edge"))
            await asyncio.sleep(0.1)
            assert zones.ready
        assert [host.process(name).signals for name in ("fleet", "edge")] == [[signal.SIGTERM]] * 2

    run(test())
    assert caplog.messages == ["ready brokers=fleet,edge", "stopped; every request of a reachable broker is answered"]


def test_problems_of_every_zone_end_the_start() -> None:
    host = Host("fleet", "edge", "lab")
    host.first["fleet"] = ZoneState(zone="fleet", problems=("both", "of the fleet"))
    host.first["edge"] = None

    async def test() -> None:
        running = asyncio.create_task(host.zones.run())
        await asyncio.sleep(0.1)
        host.process("fleet").die(0)
        await asyncio.sleep(5)
        assert not running.done(), "the edge has not read its configuration yet"
        host.process("edge").say(ZoneState(zone="edge", problems=("both", "of the edge")))
        host.process("edge").die(0)
        with pytest.raises(ConfigurationError) as raised:
            await running
        assert raised.value.problems == ("both", "of the fleet", "of the edge")
        assert host.process("lab").signals == [signal.SIGTERM]

    run(test())


def test_a_zone_without_a_process_is_down_and_keeps_its_counts() -> None:
    host = Host("fleet", "edge")
    host.first["edge"] = serving("edge", admitted=5)

    async def test() -> None:
        async with hosted(host) as zones:
            host.first["edge"] = None
            host.process("edge").die()
            await asyncio.sleep(0.1)
            fleet, edge = zones.states()
            assert (fleet.alive, edge.alive, edge.brokers) == (True, False, {"edge": 0})
            assert edge.counted.decisions == [("verified_tls", "admitted", 5)]
            host.process("edge").say(serving("edge", admitted=2))
            edge = zones.states()[1]
            assert (edge.alive, edge.counted.decisions) == (True, [("verified_tls", "admitted", 7)])

    run(test())


def test_a_silent_zone_is_killed_and_replaced_alone() -> None:
    host = Host("fleet", "edge")

    async def test() -> None:
        async with hosted(host) as zones:
            silent = host.process("edge")
            silent.fall_silent()
            now = asyncio.get_running_loop().time()
            await asyncio.sleep(silent.last_seen - now + HEARTBEAT_TIMEOUT + 0.05)
            assert silent.signals == [], "the watchdog has not looked yet"
            assert [state.alive for state in zones.states()] == [True, False]
            await asyncio.sleep(1)
            assert silent.signals == [signal.SIGKILL]
            assert host.process("edge") is not silent
            assert len(host.starters["fleet"].children) == 1

    run(test())


def test_a_reload_reaches_zones_starts_new_ones_and_ends_those_gone(caplog: pytest.LogCaptureFixture) -> None:
    host = Host("fleet", "edge")

    async def test() -> None:
        async with hosted(host) as zones:
            host.names = ("fleet", "new")
            await host.reload()
            assert [state.zone for state in zones.states()] == ["fleet", "new"]
            assert host.process("fleet").signals == [signal.SIGHUP]
            assert host.process("edge").signals == [signal.SIGTERM]
            assert host.process("new").signals == []
            await asyncio.sleep(60)
            assert len(host.starters["edge"].children) == 1

    run(test())
    assert {"zone new is new", "zone edge has been removed"} <= set(caplog.messages)


def test_a_configuration_that_cannot_be_read_changes_no_zone() -> None:
    host = Host("fleet", "edge")

    async def test() -> None:
        async with hosted(host) as zones:
            host.names = ConfigurationError(["odd"])
            await host.reload()
            assert [state.zone for state in zones.states()] == ["fleet", "edge"]
            host.names = ("fleet",)
            await host.reload()
            assert [state.zone for state in zones.states()] == ["fleet"]

    run(test())


def test_signals_to_reopen_files_reach_every_zone() -> None:
    host = Host("fleet", "edge")

    async def test() -> None:
        async with hosted(host):
            signal.raise_signal(signal.SIGUSR1)
            await asyncio.sleep(0.1)
            assert host.process("fleet").signals == host.process("edge").signals == [signal.SIGUSR1]

    run(test())
