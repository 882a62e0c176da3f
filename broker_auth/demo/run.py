"""Runs the demo: starts a deployment, makes all login attempts, shows isolation and onboarding, stops everything."""

from __future__ import annotations

import asyncio
import logging
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from broker_auth.demo.attempts import attempts, try_all
from broker_auth.demo.isolation import show_isolation
from broker_auth.demo.last_mile import LastMile
from broker_auth.demo.observation import Observation
from broker_auth.deploy.plan import Topology
from broker_auth.sandbox.sandbox import Sandbox
from broker_auth.settings.model import FleetAuth


@dataclass(frozen=True, slots=True, kw_only=True)
class Shape:
    """The shape of the deployment to show."""

    topology: Topology
    fleet_auth: FleetAuth = FleetAuth.CALLOUT


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """All observations of the demo."""

    admission: list[Observation]
    isolation: list[Observation]
    onboarding: list[Observation]

    @property
    def ok(self) -> bool:
        """Whether every row did what it should."""
        return all(outcome.as_expected for outcome in (*self.admission, *self.isolation, *self.onboarding))


async def run_demo(shape: Shape, show: Callable[[Sandbox, Result], None], *, wait: bool) -> Result:
    """Run the demo in a temporary directory.

    Args:
        shape: the shape of the deployment.
        show: called with the result while everything is still running.
        wait: keep running until interrupted.

    Raises:
        BrokerAuthError: a process could not be started.
    """
    # asyncio logs warnings about nats-py when TLS refuses a client, which is expected here.
    logging.getLogger("asyncio").setLevel(logging.ERROR)
    with tempfile.TemporaryDirectory(prefix="broker-auth-demo-") as directory:
        async with Sandbox(Path(directory) / "site", shape.topology, fleet_auth=shape.fleet_auth) as sandbox:
            admission = await try_all(sandbox, attempts(sandbox))
            await sandbox.apply_streams()
            async with LastMile(sandbox) as last_mile:
                isolation = await show_isolation(sandbox)
                result = Result(admission=admission, isolation=isolation, onboarding=await last_mile.show())
                show(sandbox, result)
                if wait:
                    await asyncio.Event().wait()
        return result
