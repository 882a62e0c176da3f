"""Runs the demo: login attempts, isolation, onboarding and a revocation in a deployment that it starts and stops."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from broker_auth.demo.attempts import attempts, try_all
from broker_auth.demo.isolation import show_isolation
from broker_auth.demo.last_mile import LastMile
from broker_auth.demo.observation import Observation
from broker_auth.demo.revocation import FILE, show_revocation
from broker_auth.deploy.plan import Topology
from broker_auth.sandbox.leftovers import ended_by_signals, vanishing_directory
from broker_auth.sandbox.sandbox import Sandbox
from broker_auth.settings.model import FleetAuth
from broker_auth.settings.revocation_store import create


@dataclass(frozen=True, slots=True, kw_only=True)
class Shape:
    """The shape of the deployment to show."""

    topology: Topology
    fleet_auth: FleetAuth = FleetAuth.CALLOUT


@dataclass(slots=True, kw_only=True)
class Result:
    """All observations of the demo, by part."""

    admission: list[Observation] = field(default_factory=list)
    isolation: list[Observation] = field(default_factory=list)
    onboarding: list[Observation] = field(default_factory=list)
    revocation: list[Observation] = field(default_factory=list)

    @property
    def ok(self) -> bool:
        """Whether every row did what it should."""
        parts = (self.admission, self.isolation, self.onboarding, self.revocation)
        return all(outcome.as_expected for part in parts for outcome in part)


@dataclass(frozen=True, slots=True, kw_only=True)
class Screen:
    """The functions that show the demo.

    Attributes:
        started: called once the servers and the service run.
        part: called with the name of each part of :class:`Result` and its rows, once it is done.
        end: called with everything while it is still running.
    """

    started: Callable[[Sandbox], None]
    part: Callable[[str, list[Observation]], None]
    end: Callable[[Sandbox, Result], None]


async def run_demo(shape: Shape, screen: Screen, *, wait: bool) -> Result:
    """Run the demo in a temporary directory.

    Args:
        shape: the shape of the deployment.
        screen: the functions that show it.
        wait: keep running, with a node that waits, until a signal comes.

    Raises:
        BrokerAuthError: a process could not be started.
        Ended: a signal came.
    """
    # asyncio logs warnings about nats-py when TLS refuses a client, which is expected here.
    logging.getLogger("asyncio").setLevel(logging.ERROR)
    with ended_by_signals(), vanishing_directory("broker-auth-demo-") as directory:
        return await _run(directory, shape, screen, wait=wait)


async def _run(directory: Path, shape: Shape, screen: Screen, *, wait: bool) -> Result:
    result = Result()
    deployment = directory / "site"
    deployment.mkdir(mode=0o700)
    create(deployment / FILE)
    changes = {"plugin.broker_auth.revocations": FILE}
    async with Sandbox(deployment, shape.topology, fleet_auth=shape.fleet_auth, changes=changes) as sandbox:
        screen.started(sandbox)
        async with LastMile(sandbox) as last_mile:
            result.admission = await try_all(sandbox, attempts(sandbox))
            screen.part("admission", result.admission)
            await sandbox.apply_streams()
            result.isolation = await show_isolation(sandbox)
            screen.part("isolation", result.isolation)
            result.onboarding = await last_mile.show()
            screen.part("onboarding", result.onboarding)
            result.revocation = await show_revocation(sandbox)
            screen.part("revocation", result.revocation)
            if wait:
                await last_mile.leave_a_node_waiting()
            screen.end(sandbox, result)
            if wait:
                await asyncio.Event().wait()
    return result
